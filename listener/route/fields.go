package route

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"sidecar/internal/config"
)

// What becomes of each field.

const (
	onlyTracing   = "only read by tracers, which the connection manager refuses"
	onlyRateLimit = "only read by the rate limit filters, which are refused"
)

var configurationFields = config.Fields[*routev3.RouteConfiguration]{
	Used: `name virtual_hosts internal_only_headers response_headers_to_add response_headers_to_remove
		request_headers_to_add request_headers_to_remove most_specific_header_mutations_wins
		validate_clusters max_direct_response_body_size_bytes request_mirror_policies
		ignore_port_in_host_matching ignore_path_parameters_in_path_matching typed_per_filter_config
		metadata`,
	Refused: "vhds cluster_specifier_plugins vhost_header route_specifiers",
}

var virtualHostFields = config.Fields[*routev3.VirtualHost]{
	Used: `name domains routes require_tls virtual_clusters request_headers_to_add
		request_headers_to_remove response_headers_to_add response_headers_to_remove
		typed_per_filter_config include_request_attempt_count include_attempt_count_in_response
		retry_policy include_is_timeout_retry_header per_request_buffer_limit_bytes
		request_body_buffer_limit request_mirror_policies metadata`,
	Refused: "matcher cors retry_policy_typed_config hedge_policy route_specifiers",
	NoOp:    map[string]string{"rate_limits": onlyRateLimit},
}

var virtualClusterFields = config.Fields[*routev3.VirtualCluster]{Used: "headers name"}

var routeFields = config.Fields[*routev3.Route]{
	Used: `name match route redirect direct_response non_forwarding_action metadata
		typed_per_filter_config request_headers_to_add request_headers_to_remove
		response_headers_to_add response_headers_to_remove per_request_buffer_limit_bytes stat_prefix
		request_body_buffer_limit decorator`,
	Refused: "filter_action route_specifiers",
	NoOp:    map[string]string{"tracing": onlyTracing},
}

var decoratorFields = config.Fields[*routev3.Decorator]{Used: "operation propagate"}

var matchFields = config.Fields[*routev3.RouteMatch]{
	Used: `prefix path safe_regex connect_matcher path_separated_prefix case_sensitive
		runtime_fraction headers query_parameters cookies grpc tls_context dynamic_metadata
		filter_state`,
	Refused: "path_match_policy",
}

var tlsMatchFields = config.Fields[*routev3.RouteMatch_TlsContextMatchOptions]{
	Used: "presented validated",
}

var actionFields = config.Fields[*routev3.RouteAction]{
	Used: `cluster cluster_header weighted_clusters cluster_not_found_response_code prefix_rewrite
		regex_rewrite host_rewrite_literal auto_host_rewrite host_rewrite_header
		host_rewrite_path_regex path_rewrite host_rewrite append_x_forwarded_host timeout idle_timeout retry_policy
		request_mirror_policies priority max_grpc_timeout grpc_timeout_offset
		upgrade_configs max_stream_duration hash_policy metadata_match flush_timeout`,
	OffOnly: "internal_redirect_action",
	Refused: `cluster_specifier_plugin inline_cluster_specifier_plugin path_rewrite_policy
		early_data_policy retry_policy_typed_config cors internal_redirect_policy
		hedge_policy`,
	NoOp: map[string]string{
		"rate_limits":            onlyRateLimit,
		"include_vh_rate_limits": onlyRateLimit,
		"max_internal_redirects": "deprecated; only read with internal_redirect_action, which is refused",
	},
}

var upgradeFields = config.Fields[*routev3.RouteAction_UpgradeConfig]{
	Used: "upgrade_type enabled connect_config",
}

var connectFields = config.Fields[*routev3.RouteAction_UpgradeConfig_ConnectConfig]{
	Used: "allow_post", Refused: "proxy_protocol_config",
}

var durationFields = config.Fields[*routev3.RouteAction_MaxStreamDuration]{
	Used: "max_stream_duration grpc_timeout_header_max grpc_timeout_header_offset",
}

var mirrorFields = config.Fields[*routev3.RouteAction_RequestMirrorPolicy]{
	Used: `cluster cluster_header runtime_fraction disable_shadow_host_suffix_append
		host_rewrite_literal`,
	Refused: "request_headers_mutations",
	NoOp:    map[string]string{"trace_sampled": onlyTracing},
}

var weightedFields = config.Fields[*routev3.WeightedCluster]{
	Used:    "clusters header_name",
	OffOnly: "use_hash_policy",
	Refused: "runtime_key_prefix",
	NoOp:    map[string]string{"total_weight": "deprecated; the sum of the weights counts, as in Envoy"},
}

var clusterWeightFields = config.Fields[*routev3.WeightedCluster_ClusterWeight]{
	Used: `name cluster_header weight request_headers_to_add request_headers_to_remove
		response_headers_to_add response_headers_to_remove typed_per_filter_config
		host_rewrite_literal metadata_match`,
}

var redirectFields = config.Fields[*routev3.RedirectAction]{
	Used: `https_redirect scheme_redirect host_redirect port_redirect path_redirect prefix_rewrite
		regex_rewrite path_rewrite response_code strip_query`,
}

var directResponseFields = config.Fields[*routev3.DirectResponseAction]{
	Used: "status body body_format",
}

var retryFields = config.Fields[*routev3.RetryPolicy]{
	Used: `retry_on num_retries per_try_timeout per_try_idle_timeout retry_priority
		retry_host_predicate host_selection_retry_max_attempts retriable_status_codes retry_back_off
		rate_limited_retry_back_off retriable_headers retriable_request_headers`,
	OffOnly: "refresh_cluster_on_retry",
	Refused: "retry_options_predicates",
}

var (
	retryPriorityFields  = config.Fields[*routev3.RetryPolicy_RetryPriority]{Used: "name typed_config"}
	retryPredicateFields = config.Fields[*routev3.RetryPolicy_RetryHostPredicate]{Used: "name typed_config"}
	backOffFields        = config.Fields[*routev3.RetryPolicy_RetryBackOff]{Used: "base_interval max_interval"}
	limitedBackOffFields = config.Fields[*routev3.RetryPolicy_RateLimitedRetryBackOff]{
		Used: "reset_headers max_interval",
	}
	resetHeaderFields = config.Fields[*routev3.RetryPolicy_ResetHeader]{Used: "name format"}
)

var metadataFields = config.Fields[*corev3.Metadata]{
	Used: "filter_metadata",
	NoOp: map[string]string{
		"typed_filter_metadata": "only read by extensions that register a type for it; there are none",
	},
}

var perRouteFields = config.Fields[*routev3.FilterConfig]{Used: "config is_optional disabled"}
