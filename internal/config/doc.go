// Package config turns what users and management servers write (YAML, JSON, protobuf text and
// binary) into protobuf messages, strictly, and gives every Compile function the same few tools:
// field paths, a collector of errors, the accounting of fields, and readers for the values that
// occur everywhere (wrappers, durations, percentages, data sources).
//
// # Errors
//
// Nothing stops at the first mistake. A Compile function makes one [Errors], hands it down with the
// [Path] of what it looks at, and returns Err() at its end:
//
//	func Compile(msg *tcpv3.TcpProxy) (*Config, error) {
//		var errs config.Errors
//		tcpProxyFields.Check(nil, msg, &errs)
//		c := &Config{
//			idle: config.Duration(config.Field("idle_timeout"), msg.IdleTimeout, time.Hour, &errs),
//		}
//		if msg.GetCluster() == "" && msg.GetWeightedClusters() == nil {
//			errs.Add(config.Field("cluster"), "is required")
//		}
//		return c, errs.Err()
//	}
//
// Paths start at the message that was given; whoever called Compile puts its own in front:
//
//	errs.Wrap(path.Field("filters").Index(i).Field("typed_config"), err)
//
// and the user reads
//
//	static_resources.listeners[0].filter_chains[0].filters[0].typed_config.cluster: is required
//
// # Field accounting
//
// A field that is accepted and has no effect is a bug. Each Compile function therefore has a table
// beside it, one for each message type that it reads, that says of every field what becomes of it:
//
//	var tcpProxyFields = config.Fields[*tcpv3.TcpProxy]{
//		Used:    "stat_prefix cluster weighted_clusters idle_timeout",
//		OffOnly: "flush_access_log_on_connected",
//		Refused: "tunneling_config on_demand",
//		NoOp: map[string]string{
//			"hash_policy": "only read by the ring hash and Maglev policies, which are refused",
//		},
//	}
//
// Check reports each field that is set and refused, so that refusing needs no code. A test in the
// same package calls configtest.Covers with the tables: it fails for a field that no list names,
// for a name that the message doesn't have, and for a message-typed field that is used and whose
// own type has no table.
//
// # Extensions
//
// [OpenAs] opens a typed_config into the message that an extension expects, through a TypedStruct
// if it is one, and runs the message's own constraints. [TypeName] asks for the type inside first.
//
// # Limitations
//
// Types resolve against the protobuf registry, thus against what the binary links. Unknown fields
// are looked for where a message enters the process (Load, Parse, [CheckUnknown]), not each time a
// part of it is opened.
package config
