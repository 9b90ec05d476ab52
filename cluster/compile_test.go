package cluster_test

import (
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"sidecar/cluster"
)

func TestCompileErrors(t *testing.T) {
	t.Parallel()
	const name = "name: a\n"
	const host = "load_assignment: {cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: %}}]}]}"
	at := func(address string) string { return strings.Replace(host, "%", address, 1) }
	const ext = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: " +
		"{\"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, %}}\n"
	http := func(options string) string { return strings.Replace(ext, "%", options, 1) }
	const options = `typed_extension_protocol_options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"].`
	tests := []struct {
		name, yaml string
		want       []string // lines of the error
	}{
		{"no name", "type: STATIC", []string{"name: value length must be at least 1 runes", "name: is required"}},
		{"HTTP/2 out of bounds", name + http("explicit_http_config: {http2_protocol_options: {initial_stream_window_size: 1}}"), []string{
			options + "explicit_http_config.http2_protocol_options.initial_stream_window_size: value must be inside range [65535, 2147483647]",
		}},
		{"HTTP/3", name + http("explicit_http_config: {http3_protocol_options: {}}"), []string{
			options + "explicit_http_config.http3_protocol_options: is not supported",
		}},
		{"auto", name + http("auto_config: {}"), []string{options + "auto_config: needs a transport_socket that negotiates the protocol (ALPN)"}},
		{"old fields beside the extension", name + http("explicit_http_config: {http_protocol_options: {}}") + "http_protocol_options: {}", []string{
			"http_protocol_options: must not be set beside typed_extension_protocol_options",
		}},
		{"another protocol", name + "typed_extension_protocol_options: {foo: {\"@type\": type.googleapis.com/google.protobuf.StringValue, value: x}}", []string{
			`typed_extension_protocol_options["foo"]: is not supported`,
		}},
		{"TLS", name + "transport_socket: {name: envoy.transport_sockets.tls, typed_config: " +
			"{\"@type\": type.googleapis.com/google.protobuf.StringValue, value: x}}", []string{
			"transport_socket.typed_config: transport socket google.protobuf.StringValue is not supported",
		}},
		{"TLS by name", name + "transport_socket: {name: envoy.transport_sockets.tls}", []string{
			`transport_socket.name: transport socket "envoy.transport_sockets.tls" is not supported`,
		}},
		{"subset selectors", name + "lb_subset_config: {subset_selectors: [{keys: [a, b], single_host_per_subset: true}, " +
			"{keys: [a], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [b]}, " +
			"{keys: [a, b], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [a, b]}]}", []string{
			"lb_subset_config.subset_selectors[0]: subset selector: single_host_per_subset requires exactly one key",
			"lb_subset_config.subset_selectors[1].fallback_keys_subset: must be a subset of selector keys",
			"lb_subset_config.subset_selectors[2].fallback_keys_subset: cannot be equal to keys",
		}},
		{"ring size", name + "lb_policy: RING_HASH\nring_hash_lb_config: {minimum_ring_size: 2, maximum_ring_size: 1}", []string{
			"ring_hash_lb_config: ring hash: minimum_ring_size (2) > maximum_ring_size (1)",
		}},
		{"table size", name + "lb_policy: MAGLEV\nmaglev_lb_config: {table_size: 1000}", []string{
			"maglev_lb_config.table_size: The table size of maglev must be prime number",
		}},
		{"host names in a ring", name + "lb_policy: MAGLEV\ncommon_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true}}", []string{
			"common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing: " +
				"Cannot use hostname for consistent hashing loadbalancing for a cluster that is not STRICT_DNS",
		}},
		{"no policy known", name + "load_balancing_policy: {policies: [{typed_extension_config: {name: x, typed_config: " +
			"{\"@type\": type.googleapis.com/google.protobuf.StringValue, value: x}}}]}", []string{
			"load_balancing_policy.policies: has no policy that is supported (round_robin, least_request, random, ring_hash, maglev, wrr_locality)",
		}},
		{"several at once", name + "health_checks: []\noutlier_detection: {monitors: [{name: x}]}\nlb_subset_config: {metadata_fallback_policy: FALLBACK_LIST}\nfilters: [{name: x}]", []string{
			"outlier_detection.monitors: is not supported", "outlier_detection.monitors[0].typed_config: value is required", "lb_subset_config.metadata_fallback_policy: is not supported, and can only be switched off",
			`filters[0].typed_config: network filter "x" () is not supported in a cluster`,
		}},
		{"zero connect timeout", name + "connect_timeout: 0s", []string{
			"connect_timeout: value must be greater than 0s", "connect_timeout: must be positive",
		}},
		{"name in a static cluster", name + at("{socket_address: {address: foo.com, port_value: 1}}"), []string{
			"load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: malformed IP address: foo.com. " +
				"Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'",
		}},
		{"named port", name + at("{socket_address: {address: 127.0.0.1, named_port: http}}"), []string{
			"load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.named_port: is not supported",
		}},
		{"UDP", name + at("{socket_address: {protocol: UDP, address: 127.0.0.1, port_value: 1}}"), []string{
			"load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.protocol: UDP is not supported",
		}},
		{"internal address", name + at("{envoy_internal_address: {server_listener_name: x}}"), []string{
			"load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.envoy_internal_address: is not supported",
		}},
		{"logical DNS with two endpoints", name + "type: LOGICAL_DNS\nload_assignment: {cluster_name: a, endpoints: [{}, {}]}", []string{
			"load_assignment: LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint",
		}},
		{"DNS without endpoints", name + "type: STRICT_DNS", []string{"load_assignment: is required"}},
		{"DNS back-off", name + "type: STRICT_DNS\ndns_failure_refresh_rate: {base_interval: 5s, max_interval: 1s}\n" + at("{socket_address: {address: x, port_value: 1}}"), []string{
			"dns_failure_refresh_rate: must have max_interval greater than or equal to the base_interval",
		}},
		{"EDS without its config", name + "type: EDS", []string{"eds_cluster_config: is required"}},
		{"EDS config elsewhere", name + "eds_cluster_config: {eds_config: {ads: {}}}", []string{
			"eds_cluster_config: cannot set eds_cluster_config in a non-EDS cluster",
		}},
		{"original destination with round robin", name + "type: ORIGINAL_DST", []string{
			"lb_policy: must be CLUSTER_PROVIDED for cluster type ORIGINAL_DST, not ROUND_ROBIN",
		}},
		{"cluster provided elsewhere", name + "lb_policy: CLUSTER_PROVIDED", []string{
			"lb_policy: CLUSTER_PROVIDED is for cluster type ORIGINAL_DST, not STATIC",
		}},
		{"metadata key", name + "type: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\noriginal_dst_lb_config: {metadata_key: {key: x, path: [{index: 1}]}}", []string{
			"original_dst_lb_config.metadata_key.path[0].index: is not supported",
		}},
		{"limits per host", name + "circuit_breakers: {per_host_thresholds: [{max_requests: 1}]}", []string{
			"circuit_breakers.per_host_thresholds[0].max_requests: is not supported",
		}},
		{"bad source address", name + "upstream_bind_config: {source_address: {address: nope, port_value: 0}}", []string{
			"upstream_bind_config.source_address.address: malformed IP address: nope",
		}},
		{"two source addresses of a kind", name + "upstream_bind_config: {source_address: {address: 127.0.0.1, port_value: 0}, " +
			"extra_source_addresses: [{address: {address: 127.0.0.2, port_value: 0}}]}", []string{
			"upstream_bind_config: has two source addresses of one IP family",
		}},
		{"switched on", name + "track_timeout_budgets: true", []string{
			"track_timeout_budgets: is not supported, and can only be switched off",
		}},
		{"cluster type", name + "cluster_type: {name: envoy.clusters.aggregate, typed_config: {\"@type\": type.googleapis.com/google.protobuf.StringValue, value: x}}", []string{
			`cluster_type.typed_config: cluster type "envoy.clusters.aggregate" (google.protobuf.StringValue) is not supported`,
		}},
		{"header format", name + "http_protocol_options: {header_key_format: {stateful_formatter: {name: x, typed_config: " +
			"{\"@type\": type.googleapis.com/google.protobuf.StringValue, value: x}}}}", []string{
			"http_protocol_options.header_key_format.stateful_formatter.typed_config: formatter google.protobuf.StringValue is not supported",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := cluster.Compile(parse(t, tt.yaml), cluster.Env{})
			if err == nil {
				t.Fatal("no error")
			}
			got := map[string]bool{}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				got[line] = true
			}
			want := map[string]bool{}
			for _, line := range tt.want {
				want[line] = true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestCompileTakes(t *testing.T) {
	t.Parallel()
	conf, err := cluster.Compile(parse(t, `
name: a
alt_stat_name: b
type: STATIC
connect_timeout: 1s
per_connection_buffer_limit_bytes: 32768
lb_policy: LEAST_REQUEST
least_request_lb_config: {choice_count: 3, active_request_bias: {default_value: 2}}
circuit_breakers: {thresholds: [{priority: HIGH, max_connections: 1, retry_budget: {}}]}
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    common_http_protocol_options: {idle_timeout: 3s, max_requests_per_connection: 9, max_stream_duration: 4s, max_headers_count: 5}
    explicit_http_config: {http_protocol_options: {enable_trailers: true, header_key_format: {proper_case_words: {}}}}
upstream_bind_config: {source_address: {address: 127.0.0.1, port_value: 0}, freebind: true, additional_source_addresses: [{address: "::1", port_value: 0}]}
upstream_connection_options: {tcp_keepalive: {keepalive_time: 7}}
common_lb_config: {healthy_panic_threshold: {value: 0}, locality_weighted_lb_config: {}, update_merge_window: 1s}
transport_socket: {name: raw, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}
metadata: {filter_metadata: {x: {y: [1, true]}}}
load_assignment:
  cluster_name: a
  policy: {overprovisioning_factor: 100}
  endpoints:
  - locality: {region: r}
    load_balancing_weight: 2
    lb_endpoints:
    - {load_balancing_weight: 3, metadata: {filter_metadata: {envoy.lb: {canary: true}}}, endpoint: {hostname: h, address: {pipe: {path: /p}}}}
    - {endpoint: {address: {socket_address: {address: "::1", port_value: 2}}, additional_addresses: [{address: {socket_address: {address: 127.0.0.1, port_value: 2}}}]}}
`), cluster.Env{})
	if err != nil {
		t.Fatal(err)
	}
	want := cluster.HTTPOptions{ProperCase: true, Trailers: true, MaxResponseHeaders: 5, MaxStreamDuration: 4 * time.Second}
	if diff := cmp.Diff(want, conf.HTTP); diff != "" {
		t.Fatal(diff)
	}
	if conf.ObservabilityName() != "b" || conf.BufferLimit != 32768 {
		t.Fatalf("%+v", conf)
	}
	if diff := cmp.Diff(map[string]map[string]any{"x": {"y": []any{1.0, true}}}, conf.Metadata); diff != "" {
		t.Fatal(diff)
	}
}

func TestSettingsAreShared(t *testing.T) {
	t.Parallel()
	env := cluster.Env{Intern: &cluster.Intern{}}
	compile := func(yaml string) *cluster.Config {
		c, err := cluster.Compile(parse(t, yaml), env)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b := compile(static("a", port(1))), compile(static("b", port(2)))
	if a.Settings != b.Settings {
		t.Fatal("clusters that were configured alike don't share their settings")
	}
	if c := compile(static("a", port(1)) + "connect_timeout: 1s\n"); c.Settings == a.Settings {
		t.Fatal("clusters that differ share their settings")
	}
}

func FuzzCompile(f *testing.F) {
	for _, yaml := range []string{
		"name: a", static("a", port(1)), edsCluster, "name: a\ntype: LOGICAL_DNS", "name: a\ntype: 9",
		"name: o\ntype: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED", "name: a\nlb_policy: 99", "name: a\nconnect_timeout: -1s",
		"name: a\nload_balancing_policy: {}", "name: a\nload_balancing_policy: {policies: [{}]}", "name: a\ncluster_type: {}",
		"name: a\ncircuit_breakers: {thresholds: [{priority: 7}, {}]}", "name: a\ntyped_dns_resolver_config: {}",
		"name: a\nload_assignment: {endpoints: [{lb_endpoints: [{}]}, {locality: {}, priority: 200}]}",
		"name: a\nupstream_bind_config: {}", "name: a\nupstream_connection_options: {tcp_keepalive: {}}",
		"name: a\ncommon_lb_config: {healthy_panic_threshold: {value: 101}}", "name: a\ntransport_socket: {}",
		"name: a\ntype: STRICT_DNS\ndns_lookup_family: 77\nload_assignment: {}",
		"name: a\ncluster_type: {typed_config: {\"@type\": type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster}}",
	} {
		msg := &clusterv3.Cluster{}
		unmarshal(f, yaml, msg)
		raw, err := proto.Marshal(msg)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		msg := &clusterv3.Cluster{}
		if proto.Unmarshal(raw, msg) != nil {
			return
		}
		conf, err := cluster.Compile(msg, cluster.Env{})
		if (conf == nil) == (err == nil) {
			t.Fatalf("config %v and error %v", conf, err)
		}
	})
}
