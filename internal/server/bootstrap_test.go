package server_test

import (
	"strings"
	"testing"

	"sidecar/internal/config"
	"sidecar/internal/server"
)

// TestRun_BadBootstraps: everything that is wrong is said, each with its line and path; with --mode
// validate too.
func TestRun_BadBootstraps(t *testing.T) {
	const f = "--config-yaml:"
	tests := []struct {
		name, yaml string
		want       []string
	}{
		{"two things", "static_resources:\n  clusters:\n  - {name: a, lb_policy: CLUSTER_PROVIDED}\n  listeners:\n  - name: l\n", []string{
			f + "3: static_resources.clusters[0].lb_policy: ",
			f + "5: static_resources.listeners[0].address: is required",
			f + "5: static_resources.listeners[0]: error adding listener '': no filter chains specified",
		}},
		{"route to nowhere", strings.Replace(static("127.0.0.1:1", ""), "route: {cluster: up}", "route: {cluster: nope}", 1), []string{
			f + "14: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config." +
				"virtual_hosts[0].routes[0].route.cluster: route: unknown cluster 'nope'",
		}},
		{"a filter that is not there", static("127.0.0.1:1", `          - name: x
            typed_config: {"@type": type.googleapis.com/google.protobuf.Struct}`), []string{
			f + "17: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config: ",
		}},
		{"the cluster manager's source address", "cluster_manager:\n  upstream_bind_config: {source_address: {address: x, port_value: 0}}\n", []string{
			f + "2: cluster_manager.upstream_bind_config.source_address.address: malformed IP address: x",
		}},
		{"ADS without a node", "dynamic_resources:\n  cds_config: {ads: {}}\n", []string{
			"node: node 'id' and 'cluster' are required.",
		}},
		{"a cluster twice", "static_resources:\n  clusters:\n  - {name: a}\n  - {name: a}\n", []string{
			f + "4: static_resources.clusters[1].name: cluster \"a\" is there twice",
		}},
	}
	for _, tt := range tests {
		for _, mode := range []server.Mode{server.Serve, server.Validate} {
			t.Run(tt.name+" "+mode.String(), func(t *testing.T) {
				got := runFails(t, func(o *server.Options) { o.ConfigYAML, o.Mode = tt.yaml, mode })
				if len(got) != len(tt.want) {
					t.Fatalf("%d errors, want %d:\n%s", len(got), len(tt.want), strings.Join(got, "\n"))
				}
				for i := range got {
					if !strings.HasPrefix(got[i], tt.want[i]) {
						t.Errorf("error %d:\n got %s\nwant %s", i, got[i], tt.want[i])
					}
				}
			})
		}
	}
}

// TestRun_Examples: the shapes of bootstraps that Envoy's documentation shows either run or are refused
// at the field that isn't supported.
func TestRun_Examples(t *testing.T) {
	const hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	httpListener := func(extra, more string) string {
		return `  listeners:
  - name: listener_0
    address: {socket_address: {protocol: TCP, address: 127.0.0.1, port_value: 0}}
` + more + `    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": ` + hcm + `
          codec_type: AUTO
          stat_prefix: ingress_http
` + extra + `
          access_log:
          - name: envoy.access_loggers.stdout
            typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}
          route_config:
            name: local_route
            virtual_hosts:
            - name: local_service
              domains: ["*"]
              routes:
              - match: {prefix: "/"}
                route: {host_rewrite_literal: www.example.com, cluster: some_service}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`
	}
	const service = `  clusters:
  - name: some_service
    connect_timeout: 0.25s
    type: STRICT_DNS
    dns_lookup_family: V4_ONLY
    lb_policy: ROUND_ROBIN
    load_assignment: {cluster_name: some_service, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: 1}}}}]}]}
`
	tests := []struct {
		name, yaml string
		want       []string // the paths that are refused; none: it is accepted
	}{
		{"static HTTP", "static_resources:\n" + httpListener("", "") + service, nil},
		{"TCP proxy", `static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: destination, cluster: some_service}
` + service, nil},
		{"dynamic from files", `dynamic_resources:
  cds_config: {path_config_source: {path: /var/lib/envoy/cds.yaml}}
  lds_config: {path_config_source: {path: /var/lib/envoy/lds.yaml}}
`, []string{"dynamic_resources.lds_config.path_config_source", "dynamic_resources.cds_config.path_config_source"}},
		{"dynamic from a control plane", `dynamic_resources:
  ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds_cluster}}]}
  cds_config: {resource_api_version: V3, ads: {}}
  lds_config: {resource_api_version: V3, ads: {}}
static_resources:
  clusters:
  - type: STRICT_DNS
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    name: xds_cluster
    load_assignment: {cluster_name: xds_cluster, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: 1}}}}]}]}
layered_runtime: {layers: [{name: static_layer_0, static_layer: {envoy: {resource_limits: {listener: {example_listener_name: {connection_limit: 10000}}}}}}]}
`, nil},
		{"front proxy with TLS", "static_resources:\n" + httpListener("", "") + service + `    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: www.example.com}
`, nil},
		{
			"edge", `overload_manager:
  refresh_interval: 0.25s
  resource_monitors:
  - name: envoy.resource_monitors.fixed_heap
    typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig, max_heap_size_bytes: 1073741824}
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config: {"@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig, max_active_downstream_connections: 1000}
  actions:
  - name: envoy.overload_actions.stop_accepting_requests
    triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.98}}]
static_resources:
` + httpListener(`          use_remote_address: true
          normalize_path: true
          merge_slashes: true
          path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT
          common_http_protocol_options: {idle_timeout: 3600s, headers_with_underscores_action: REJECT_REQUEST}
          stream_idle_timeout: 300s
          request_timeout: 300s`, "    per_connection_buffer_limit_bytes: 32768\n") + service,
			[]string{"overload_manager.actions[0].name"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, _ := options(t, adminYAML+tt.yaml)
			o.Mode = server.Validate
			got := config.Flatten(server.Run(t.Context(), o))
			if len(got) != len(tt.want) {
				t.Fatalf("got %v", got)
			}
			for i := range got {
				if !strings.HasPrefix(got[i].Path, tt.want[i]) {
					t.Errorf("got %v, want one at %s", got[i], tt.want[i])
				}
			}
		})
	}
}
