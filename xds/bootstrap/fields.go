package bootstrap

import (
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"sidecar/internal/config"
)

var bootstrapFields = config.Fields[*bootstrapv3.Bootstrap]{
	Used: `node static_resources dynamic_resources cluster_manager deferred_stat_options stats_config
		layered_runtime admin overload_manager bootstrap_extensions stats_sinks application_log_config inline_headers
		stats_flush_interval stats_flush_on_admin`,
	OffOnly: "enable_dispatcher_stats use_tcp_for_dns_lookups enable_worker_cpu_affinity",
	Refused: `node_context_params hds_config flags_path stats_eviction_interval watchdog watchdogs
		tracing header_prefix stats_server_version_override dns_resolution_config typed_dns_resolver_config
		fatal_actions config_sources default_config_source default_socket_interface
		certificate_provider_instances perf_tracing_file_path default_regex_engine xds_delegate_extension
		xds_config_tracker_extension listener_manager grpc_async_client_manager_config
		memory_allocator_manager`,
}

var nodeFields = config.Fields[*corev3.Node]{
	Used: `id cluster metadata dynamic_parameters locality listening_addresses client_features`,
	NoOp: map[string]string{
		// Envoy overwrites these too.
		"user_agent_name":          "the binary says what it is",
		"user_agent_version":       "the binary says what it is",
		"user_agent_build_version": "the binary says what it is",
		"extensions":               "the binary says what it has",
	},
}

var localityFields = config.Fields[*corev3.Locality]{Used: "region zone sub_zone"}

var staticFields = config.Fields[*bootstrapv3.Bootstrap_StaticResources]{
	Used: "listeners clusters secrets",
}

var dynamicFields = config.Fields[*bootstrapv3.Bootstrap_DynamicResources]{
	Used:    "lds_config cds_config ads_config",
	Refused: "lds_resources_locator cds_resources_locator",
}

var clusterManagerFields = config.Fields[*bootstrapv3.ClusterManager]{
	Used:    "upstream_bind_config",
	Refused: "local_cluster_name outlier_detection load_stats_config",
	NoOp: map[string]string{
		"enable_deferred_cluster_creation": "it spares each worker its own copy of a cluster; there are no copies",
	},
}

var deferredStatFields = config.Fields[*bootstrapv3.Bootstrap_DeferredStatOptions]{
	NoOp: map[string]string{"enable_deferred_creation_stats": "stats of a cluster are stored once used, always"},
}

var inlineHeaderFields = config.Fields[*bootstrapv3.CustomInlineHeader]{
	NoOp: map[string]string{
		"inline_header_name": "it speeds up Envoy's header map; ours finds every header alike",
		"inline_header_type": "it speeds up Envoy's header map; ours finds every header alike",
	},
}
