package stattag

import (
	"regexp"
	"strings"
)

// Pieces of the patterns below.
const (
	token   = `[^.]+`
	address = `(?:\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[[a-fA-F_\d]+\])_\d+`
	word    = `[\w-]+`
	dotted  = `[\w\-.]+`
	owner   = `^(?:listener|cluster)\..*?`
)

// defaultExtractors are Envoy 1.40's default tags. Their patterns are part of the contract:
// dashboards are built on the metrics that come out of them.
func defaultExtractors() []extractor {
	return append(patternExtractors(), tokenExtractors()...)
}

func pattern(name, need, regex string) extractor {
	return extractor{name: "envoy." + name, need: need, regex: regexp.MustCompile(regex)}
}

func patternExtractors() []extractor {
	listener := pattern("listener_address", "", `^listener\.((`+address+`|`+token+`)\.)`)
	listener.except = "admin"
	rbac := pattern("rbac_http_prefix", ".rbac.", `^http\.`+token+`\.rbac\.((`+token+`)\.).*?`)
	rbac.except = "policy"
	return []extractor{
		pattern("response_code", "_rq_", `_rq(_(\d{3}))$`),
		pattern("response_code_class", "_rq_", `_rq_((\d))xx$`),
		pattern("ssl_cipher", ".ssl.ciphers.", `^listener\..*?\.ssl\.ciphers(\.(`+word+`))$`),
		pattern("cipher_suite", ".ssl.ciphers.", `^cluster\.`+token+`\.ssl\.ciphers(\.(`+word+`))$`),
		pattern("ssl_curve", ".ssl.curves.", owner+`\.ssl\.curves(\.(`+word+`))$`),
		pattern("ssl_sigalg", ".ssl.sigalgs.", owner+`\.ssl\.sigalgs(\.(`+word+`))$`),
		pattern("ssl_version", ".ssl.versions.", owner+`\.ssl\.versions(\.(TLSv\d\.\d))$`),
		pattern("tls_certificate", ".ssl.certificate.", owner+`\.ssl\.certificate\.((`+token+`)\.).*$`),
		pattern("http_conn_manager_prefix", ".http.", `^listener\..*?\.http\.((`+token+`)\.)`),
		pattern("worker_id", ".worker_",
			`^(?:listener\.(?:`+address+`|`+token+`)|server|listener_manager|thread_local_cluster_manager)\.worker_((\d+)\.)`),
		listener,
		pattern("rds_route_config", ".rds.", `^http\.`+token+`\.rds\.((`+dotted+`)\.)\w+?$`),
		pattern("scoped_rds_config", ".scoped_rds.", `^http\.`+token+`\.scoped_rds\.((`+dotted+`)\.)\w+?$`),
		pattern("rbac_policy_name", ".rbac.",
			`^http\.`+token+`\.rbac\.(?:`+token+`\.)?policy\.((`+token+`)\.)(allowed|shadow_allowed|denied|shadow_denied)$`),
		rbac,
		pattern("health_check_name", ".health_check.name.",
			`^cluster\.`+token+`\.health_check(\.name\.(`+token+`))\..+`),
		pattern("proxy_protocol_version", "proxy_proto.", `^proxy_proto\.((?:`+token+`\.)?versions\.v(\d)\.)\w+$`),
		pattern("proxy_protocol_prefix", "proxy_proto.", `^proxy_proto\.((`+token+`)\.).+$`),
		pattern("xds_resource_name", "sds.", `^sds\.((`+token+`)\.).+`),
	}
}

func tokenExtractors() []extractor {
	var out []extractor
	// The order is that of the labels: the special ones before the general ones.
	for _, t := range [...][2]string{
		{"mongo_callsite", "mongo.*.collection.*.callsite.$.query.**"},
		{"mongo_collection", "mongo.*.collection.$.**.query.*"},
		{"mongo_cmd", "mongo.*.cmd.$.**"},
		{"grpc_bridge_method", "cluster.*.grpc.*.$.**"},
		{"http_user_agent", "http.*.user_agent.$.**"},
		{"virtual_cluster", "vhost.*.vcluster.$.**"},
		{"fault_downstream_cluster", "http.*.fault.$.**"},
		{"grpc_bridge_service", "cluster.*.grpc.$.**"},
		{"tcp_prefix", "tcp.$.**"},
		{"udp_prefix", "udp.$.**"},
		{"clientssl_prefix", "auth.clientssl.$.**"},
		{"ratelimit_prefix", "ratelimit.$.**"},
		{"cluster_name", "cluster.$.**"},
		{"ext_authz_prefix", "cluster.*.ext_authz.$.**"},
		{"ext_authz_prefix", "http.*.ext_authz.$.**"},
		{"http_conn_manager_prefix", "http.$.**"},
		{"virtual_host", "vhost.$.**"},
		{"mongo_prefix", "mongo.$.**"},
		{"route", "vhost.*.route.$.**"},
		{"thrift_prefix", "thrift.$.**"},
		{"redis_prefix", "redis.$.**"},
		{"local_http_ratelimit_prefix", "$.http_local_rate_limit.**"},
		{"local_network_ratelimit_prefix", "local_rate_limit.$.**"},
		{"local_listener_ratelimit_prefix", "listener_local_ratelimit.$.**"},
		{"dns_filter_prefix", "dns_filter.$.**"},
		{"connection_limit_prefix", "connection_limit.$.**"},
		{"rbac_prefix", "$.rbac.**"},
		{"google_grpc_client_prefix", "grpc.$.**"},
	} {
		out = append(out, extractor{name: "envoy." + t[0], tokens: strings.Split(t[1], ".")})
	}
	return out
}
