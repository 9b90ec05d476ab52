package admin

import "net/http"

// table lists the endpoints, in the order of the help, whose texts are Envoy's.
func (s *Server) table() []*endpoint {
	statParams := []param{
		{"usedonly", "Only include stats that have been written by system since restart"},
		{"filter", "Regular expression (Google re2) for filtering stats"},
		{"invert_filter", "Invert the filter regex"},
	}
	return append([]*endpoint{
		{path: "/", help: "Admin home page", serve: s.serveHome},
		{path: "/allocprofiler", mutates: true, hidden: true, serve: notImplemented("The current build does not support allocation profiler")},
		{path: "/certs", help: "print certs on machine", serve: s.serveCerts},
		{path: "/clusters", help: "upstream cluster status", serve: s.serveClusters, params: []param{
			{"filter", "Regular expression (Google re2) for filtering clusters by name"},
			{"format", "File format to use; One of (text, json)"},
		}},
		{path: "/config_dump", help: "dump current Envoy configs", serve: s.serveConfigDump, params: []param{
			{"resource", "The resource to dump"},
			{"mask", "The mask to apply. When both resource and mask are specified, the mask is applied to every element in the desired repeated field so that only a subset of fields are returned. The mask is parsed as a Protobuf::FieldMask"},
			{"name_regex", "Dump only the currently loaded configurations whose names match the specified regex. Can be used with both resource and mask query parameters."},
			{"include_eds", "Dump currently loaded configuration including EDS. See the response definition for more information"},
		}},
		{path: "/contention", help: "dump current Envoy mutex contention stats (if enabled)", serve: serveContention},
		{path: "/cpuprofiler", mutates: true, hidden: true, serve: serveCPUProfiler},
		{path: "/drain_listeners", help: "drain listeners", mutates: true, serve: s.serveDrain, params: []param{
			{"graceful", "When draining listeners, enter a graceful drain period prior to closing listeners. This behaviour and duration is configurable via server options or CLI"},
			{"skip_exit", "When draining listeners, drain the connections but never stop the listeners. The graceful parameter has no effect when this is set, since the drain period only delays stopping the listeners"},
			{"inboundonly", "Drains all inbound listeners. traffic_direction field in envoy_v3_api_msg_config.listener.v3.Listener is used to determine whether a listener is inbound or outbound."},
		}},
		{path: "/healthcheck/fail", help: "cause the server to fail health checks", mutates: true, serve: s.serveHealth(false)},
		{path: "/healthcheck/ok", help: "cause the server to pass health checks", mutates: true, serve: s.serveHealth(true)},
		{path: "/heap_dump", hidden: true, serve: notImplemented("The current build does not support heap dump")},
		{path: "/heapprofiler", mutates: true, hidden: true, serve: notImplemented("The current build does not support heap profiler")},
		{path: "/help", help: "print out list of admin commands", serve: s.serveHelp},
		{path: "/hot_restart_version", help: "print the hot restart compatibility version", serve: serveHotRestart},
		{path: "/init_dump", help: "dump current Envoy init manager information (experimental)", serve: s.serveInitDump, params: []param{
			{"mask", "The desired component to dump unready targets. The mask is parsed as a Protobuf::FieldMask. For example, get the unready targets of all listeners with /init_dump?mask=listener`"},
		}},
		{path: "/listeners", help: "print listener info", serve: s.serveListeners, params: []param{
			{"format", "File format to use; One of (text, json)"},
		}},
		{path: "/logging", help: "query/change logging levels", mutates: true, serve: s.serveLogging, params: []param{
			{"paths", "Change multiple logging levels by setting to <logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>."},
			{"level", "desired logging level, this will change all loggers's level; One of (, trace, debug, info, warning, error, critical, off)"},
		}},
		{path: "/memory", help: "print current allocation/heap usage", serve: serveMemory},
		{path: "/memory/tcmalloc", hidden: true, serve: notImplemented("The current build does not use TCMalloc")},
		{path: "/peak_heap_dump", hidden: true, serve: notImplemented("The current build does not support heap dump")},
		{path: "/quitquitquit", help: "exit the server", mutates: true, serve: s.serveQuit},
		{path: "/ready", help: "print server state, return 200 if LIVE, otherwise return 503", serve: s.serveReady},
		{path: "/reopen_logs", help: "reopen access logs", mutates: true, serve: s.serveReopenLogs},
		{path: "/reset_counters", help: "reset all counters to zero", mutates: true, serve: s.serveResetCounters},
		{path: "/runtime", help: "print runtime values", serve: s.serveRuntime},
		{path: "/runtime_modify", help: "Adds or modifies runtime values as passed in query parameters. To delete a previously added key, use an empty string as the value. Note that deletion only applies to overrides added via this endpoint; values loaded from disk can be modified via override but not deleted. E.g. ?key1=value1&key2=value2...", mutates: true, serve: s.serveRuntimeModify},
		{path: "/server_info", help: "print server version/status information", serve: s.serveServerInfo},
		{path: "/stats", help: "print server stats", serve: s.serveStats, params: append(statParams[:3:3], []param{
			{"format", "Format to use; One of (text, json, prometheus)"},
			{"type", "Stat types to include.; One of (All, Counters, Histograms, Gauges, TextReadouts)"},
			{"histogram_buckets", "Histogram bucket display mode; One of (cumulative, disjoint, detailed, summary)"},
		}...)},
		{path: "/stats/prometheus", help: "print server stats in prometheus format", serve: s.servePrometheus, params: append(statParams[:3:3], []param{
			{"text_readouts", "Render text_readouts as new gaugues with value 0 (increases Prometheus data size)"},
			{"histogram_buckets", "Histogram bucket display mode; One of (cumulative, summary)"},
		}...)},
		{path: "/stats/recentlookups", hidden: true, serve: notImplemented("Lookup tracking is not supported by this proxy")},
	}, s.pages()...)
}

func notImplemented(message string) func(*request) answer {
	return func(*request) answer { return text(http.StatusNotImplemented, message) }
}
