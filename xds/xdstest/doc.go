// Package xdstest is a management server in the process: what tests and the demo configure a proxy
// with. It serves ADS and the services of single types, state-of-the-world and incremental, and
// remembers what the client acknowledged and rejected, so that a test waits for an event instead of
// for time to pass.
//
//	srv := xdstest.New(t)
//	version := srv.Set(listener, cluster)
//	srv.WaitACK(ctx, source.ListenerType, version)
package xdstest
