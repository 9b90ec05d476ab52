package source

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"sidecar/internal/config"
)

var configSourceFields = config.Fields[*corev3.ConfigSource]{
	Used: "path path_config_source api_config_source ads initial_fetch_timeout resource_api_version",
	// self is refused in Compile, in Envoy's words.
	Refused: "authorities self",
}

var pathFields = config.Fields[*corev3.PathConfigSource]{
	Used: "path watched_directory",
	// A file that is replaced is seen by its directory; one on a file system that tells nothing of
	// changes would have to be read again and again.
	Refused: "poll_interval",
}

var watchedDirectoryFields = config.Fields[*corev3.WatchedDirectory]{
	Used: "path",
	NoOp: map[string]string{
		"watch_modify": "files written in place are always noticed",
	},
}

var adsFields = config.Fields[*corev3.AggregatedConfigSource]{}

var apiFields = config.Fields[*corev3.ApiConfigSource]{
	Used: `api_type transport_api_version grpc_services rate_limit_settings
		set_node_on_first_message_only`,
	Refused: "cluster_names config_validators",
	NoOp: map[string]string{
		"refresh_delay":   "it is for REST; Envoy ignores it on a stream too",
		"request_timeout": "it is for REST; Envoy ignores it on a stream too",
	},
}

var rateLimitFields = config.Fields[*corev3.RateLimitSettings]{Used: "max_tokens fill_rate"}

var serviceFields = config.Fields[*corev3.GrpcService]{
	Used: "envoy_grpc google_grpc initial_metadata retry_policy",
	NoOp: map[string]string{"timeout": "it bounds single calls; Envoy's streams have no end either"},
}

var headerValueFields = config.Fields[*corev3.HeaderValue]{
	Used:    "key value",
	Refused: "raw_value",
}

var envoyGRPCFields = config.Fields[*corev3.GrpcService_EnvoyGrpc]{
	Used: "cluster_name authority retry_policy max_receive_message_length",
	NoOp: map[string]string{"skip_envoy_headers": "no x-envoy headers are added to these streams"},
}

var googleGRPCFields = config.Fields[*corev3.GrpcService_GoogleGrpc]{
	Used: "target_uri channel_credentials stat_prefix",
	Refused: `channel_credentials_plugin call_credentials call_credentials_plugin
		credentials_factory_name config per_stream_buffer_limit_bytes channel_args`,
}

var channelCredentialsFields = config.Fields[*corev3.GrpcService_GoogleGrpc_ChannelCredentials]{
	Used:    "local_credentials",
	Refused: "ssl_credentials google_default",
}

var localCredentialsFields = config.Fields[*corev3.GrpcService_GoogleGrpc_GoogleLocalCredentials]{}

var retryFields = config.Fields[*corev3.RetryPolicy]{
	Used: "retry_back_off",
	NoOp: map[string]string{
		"num_retries":                       "a stream is opened again for ever, as in Envoy",
		"retry_on":                          "a stream is opened again whatever ended it",
		"retry_priority":                    "only for requests of the router",
		"retry_host_predicate":              "only for requests of the router",
		"host_selection_retry_max_attempts": "only for requests of the router",
	},
}

var backOffFields = config.Fields[*corev3.BackoffStrategy]{Used: "base_interval max_interval"}

// checkFields reports the fields that nobody reads.
func checkFields(cs *corev3.ConfigSource, p *config.Path, errs *config.Errors) {
	if cs.GetSelf() == nil { // Compile has its own words for it
		configSourceFields.Check(p, cs, errs)
	}
	path := p.Field("path_config_source")
	pathFields.Check(path, cs.GetPathConfigSource(), errs)
	watchedDirectoryFields.Check(path.Field("watched_directory"),
		cs.GetPathConfigSource().GetWatchedDirectory(), errs)
	adsFields.Check(p.Field("ads"), cs.GetAds(), errs)
}

// checkAPIFields reports the fields of a stream's config that nobody reads.
func checkAPIFields(api *corev3.ApiConfigSource, p *config.Path, errs *config.Errors) {
	apiFields.Check(p, api, errs)
	rateLimitFields.Check(p.Field("rate_limit_settings"), api.GetRateLimitSettings(), errs)
	for i, s := range api.GetGrpcServices() {
		at := p.Field("grpc_services").Index(i)
		serviceFields.Check(at, s, errs)
		retryFields.Check(at.Field("retry_policy"), s.GetRetryPolicy(), errs)
		for j, h := range s.GetInitialMetadata() {
			headerValueFields.Check(at.Field("initial_metadata").Index(j), h, errs)
		}
		envoy, google := s.GetEnvoyGrpc(), s.GetGoogleGrpc()
		envoyGRPCFields.Check(at.Field("envoy_grpc"), envoy, errs)
		retryFields.Check(at.Field("envoy_grpc.retry_policy"), envoy.GetRetryPolicy(), errs)
		backOffFields.Check(at.Field("envoy_grpc.retry_policy.retry_back_off"),
			envoy.GetRetryPolicy().GetRetryBackOff(), errs)
		at = at.Field("google_grpc")
		googleGRPCFields.Check(at, google, errs)
		channelCredentialsFields.Check(at.Field("channel_credentials"),
			google.GetChannelCredentials(), errs)
		localCredentialsFields.Check(at.Field("channel_credentials.local_credentials"),
			google.GetChannelCredentials().GetLocalCredentials(), errs)
	}
}
