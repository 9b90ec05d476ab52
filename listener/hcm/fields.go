package hcm

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"sidecar/internal/config"
)

//nolint:gochecknoglobals // immutable tables
var (
	hcmFields = config.Fields[*hcmv3.HttpConnectionManager]{
		Used: "codec_type stat_prefix rds route_config http_filters add_user_agent " +
			"common_http_protocol_options http_protocol_options server_name " +
			"server_header_transformation scheme_header_transformation max_request_headers_kb " +
			"stream_idle_timeout request_timeout request_headers_timeout delayed_close_timeout " +
			"access_log use_remote_address xff_num_trusted_hops internal_address_config " +
			"skip_xff_append via generate_request_id preserve_external_request_id " +
			"always_set_request_id_in_response forward_client_cert_details " +
			"set_current_client_cert_details proxy_100_continue upgrade_configs " +
			"normalize_path merge_slashes path_with_escaped_slashes_action local_reply_config " +
			"strip_matching_host_port strip_any_host_port strip_trailing_host_dot " +
			"append_x_forwarded_port request_id_extension stream_error_on_invalid_http_message " +
			"drain_timeout drain_timeout_jitter http2_protocol_options stream_flush_timeout tracing",
		OffOnly: "flush_access_log_on_new_request represent_ipv4_remote_address_as_ipv4_mapped_ipv6 " +
			"append_local_overload add_proxy_protocol_connection_state " +
			"record_route_resolution_stats",
		Refused: "scoped_routes http1_safe_max_connection_duration http3_protocol_options " +
			"original_ip_detection_extensions early_header_mutation_extensions " +
			"forward_client_cert_matcher path_normalization_options proxy_status_config " +
			"typed_header_validation_config forward_proto_config access_log_flush_interval " +
			"access_log_options",
	}
	commonFields = config.Fields[*corev3.HttpProtocolOptions]{
		Used: "idle_timeout max_connection_duration max_headers_count max_stream_duration " +
			"headers_with_underscores_action max_requests_per_connection",
		Refused: "max_connection_duration_jitter",
		NoOp: map[string]string{
			"max_response_headers_kb": "only read for upstream connections",
		},
	}
	http1Fields = config.Fields[*corev3.Http1ProtocolOptions]{
		Used: "allow_absolute_url accept_http_10 default_host_for_http_10 header_key_format " +
			"enable_trailers allow_chunked_length override_stream_error_on_invalid_http_message " +
			"allow_custom_methods ignore_http_11_upgrade",
		OffOnly: "send_fully_qualified_url",
		NoOp: map[string]string{
			"use_balsa_parser": "chooses between two parsers of Envoy; ours has one",
		},
	}
	keyFormatFields = config.Fields[*corev3.Http1ProtocolOptions_HeaderKeyFormat]{
		Used: "proper_case_words stateful_formatter",
	}
	filterFields = config.Fields[*hcmv3.HttpFilter]{
		Used: "name typed_config config_discovery is_optional disabled",
	}
	upgradeFields = config.Fields[*hcmv3.HttpConnectionManager_UpgradeConfig]{
		Used: "upgrade_type filters enabled",
	}
	schemeFields = config.Fields[*corev3.SchemeHeaderTransformation]{
		Used: "scheme_to_overwrite match_upstream",
	}
	internalFields = config.Fields[*hcmv3.HttpConnectionManager_InternalAddressConfig]{
		Used: "cidr_ranges",
		NoOp: map[string]string{
			"unix_sockets": "a client on a unix socket has no address that could be internal",
		},
	}
	rdsFields       = config.Fields[*hcmv3.Rds]{Used: "config_source route_config_name"}
	requestIDFields = config.Fields[*hcmv3.RequestIDExtension]{Used: "typed_config"}
	xfccFields      = config.Fields[*hcmv3.HttpConnectionManager_SetCurrentClientCertDetails]{
		Used: "subject cert chain dns uri issuer format",
	}
	localReplyFields = config.Fields[*hcmv3.LocalReplyConfig]{Used: "mappers body_format"}
	mapperFields     = config.Fields[*hcmv3.ResponseMapper]{
		Used: "filter status_code body body_format_override headers_to_add",
	}
)
