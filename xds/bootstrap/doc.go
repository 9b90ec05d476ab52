// Package bootstrap reads what the process starts with, an envoy.config.bootstrap.v3.Bootstrap, and
// hands each part on in the form in which it is needed.
//
// What concerns the whole process (node, admin, runtime, stats, log, overload) is compiled here.
// Static listeners and clusters, the admin server's access logs and the like belong to their own
// compilers, which this package must not know: they are handed on as protobuf messages, for the
// server to compile and then to let go.
//
// Everything that is wrong is found in one run. [Load] returns what it could read along with its
// errors, the server goes on to compile that, and [Input.Locate] adds file and line to what the
// compilers found:
//
//	b, warnings, err := bootstrap.Load(in)
//	var errs config.Errors
//	errs.Wrap(nil, err)
//	for i, c := range b.Clusters {
//		_, err := cluster.Compile(c)
//		errs.Wrap(bootstrap.ClusterPath(i), err)
//	}
//	if err := in.Locate(errs.Err()); err != nil { ... }
package bootstrap
