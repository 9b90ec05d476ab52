package bootstrap

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"sidecar/internal/config"
	"sidecar/internal/config/configtest"
	"sidecar/internal/config/source"
)

func TestFieldsAreAccountedFor(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, configtest.Elsewhere{
		"envoy.config.listener.v3.Listener",                // listener
		"envoy.config.cluster.v3.Cluster",                  // cluster
		"envoy.config.core.v3.BindConfig",                  // cluster
		"envoy.config.core.v3.ConfigSource",                // internal/config/source
		"envoy.config.core.v3.ApiConfigSource",             // internal/config/source
		"envoy.type.matcher.v3.StringMatcher",              // internal/match
		"envoy.config.accesslog.v3.AccessLog",              // listener/accesslog
		"envoy.config.metrics.v3.StatsSink",                // internal/server
		"envoy.extensions.transport_sockets.tls.v3.Secret", // internal/tlsctx
	},
		bootstrapFields, nodeFields, localityFields, staticFields, dynamicFields, clusterManagerFields,
		deferredStatFields, inlineHeaderFields, adminFields, addressFields, socketAddressFields, pipeFields,
		runtimeFields, layerFields, adminLayerFields, statsFields, tagFields, statsMatcherFields,
		listMatcherFields, logConfigFields, logFormatFields,
		overloadFields, monitorFields, actionFields, triggerFields, thresholdFields, heapFields,
		connectionsFields, extensionFields, internalListenerFields)
}

func load(t *testing.T, yaml string) (*Bootstrap, []error) {
	t.Helper()
	b, warnings, err := Load(Input{YAML: yaml})
	if err != nil {
		t.Fatal(err)
	}
	return b, warnings
}

// agent has the shapes of what Istio's agent writes.
const agent = `
application_log_config: {log_format: {text_format: "%l %v"}}
node: {id: id, cluster: c, locality: {}, metadata: {CLUSTER_ID: Kubernetes, LABELS: {app: a}}}
layered_runtime:
  layers:
  - name: global config
    static_layer:
      "envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst": true
      re2.max_program_size.error_level: "32768"
      a: {b: 7, share: {numerator: 5, denominator: TEN_THOUSAND}}
  - name: admin
    admin_layer: {}
bootstrap_extensions:
- name: envoy.bootstrap.internal_listener
  typed_config:
    "@type": type.googleapis.com/udpa.type.v1.TypedStruct
    type_url: type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener
    value: {buffer_size_kb: 64}
stats_config:
  use_all_default_tags: false
  stats_tags:
  - {tag_name: cluster_name, regex: '^cluster(\.(.+);)'}
  - {tag_name: l, regex: '^listener(?=\.).*?\.http\.((([_[:digit:]]*))\.)'}
  - {tag_name: f, fixed_value: v}
  - {tag_name: envoy.response_code}
  stats_matcher:
    inclusion_list: {patterns: [{prefix: "reporter="}, {suffix: rbac.allowed}, {safe_regex: {regex: 'vhost\..*\.route'}}]}
admin:
  profile_path: /x
  address: {socket_address: {address: 127.0.0.1, port_value: 15000}}
dynamic_resources:
  lds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}
  ads_config:
    api_type: DELTA_GRPC
    set_node_on_first_message_only: true
    transport_api_version: V3
    grpc_services: [{envoy_grpc: {cluster_name: xds-grpc}}]
static_resources:
  clusters:
  - {name: xds-grpc, type: STATIC, connect_timeout: 1s}
overload_manager:
  resource_monitors:
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
      max_active_downstream_connections: 2147483647
  - name: envoy.resource_monitors.fixed_heap
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig
      max_heap_size_bytes: 1000
  actions:
  - {name: envoy.overload_actions.stop_accepting_connections, triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.95}}]}
deferred_stat_options: {enable_deferred_creation_stats: true}
`

func TestLoad_Agent(t *testing.T) {
	t.Parallel()
	b, warnings := load(t, agent)
	if len(warnings) != 0 {
		t.Errorf("warnings: %v", warnings)
	}
	if b.Node.GetId() != "id" || b.Node.GetMetadata().GetFields()["CLUSTER_ID"].GetStringValue() != "Kubernetes" {
		t.Errorf("node: %v", b.Node)
	}
	if len(b.Clusters) != 1 || len(b.Listeners) != 0 || b.CDS != nil || b.LDS.Kind != source.KindADS || !b.ADS.Delta {
		t.Errorf("resources: %+v", b)
	}
	wantRuntime := []RuntimeLayer{
		{Name: "global config", Values: map[string]RuntimeValue{
			"envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst": {Text: "true", Bool: true, IsBool: true},
			"re2.max_program_size.error_level": {Text: "32768", Number: 32768, IsNumber: true},
			"a.b":                              {Text: "7", Number: 7, IsNumber: true},
			"a.share": {
				Text: `{"denominator":"TEN_THOUSAND","numerator":5}`, IsFraction: true,
				Fraction: config.Fraction{Numerator: 5, Denominator: 10_000},
			},
		}},
		{Name: "admin", Admin: true, Values: map[string]RuntimeValue{}},
	}
	if diff := cmp.Diff(wantRuntime, b.Runtime); diff != "" {
		t.Error(diff)
	}
	wantOverload := Overload{MaxDownstreamConnections: 1<<31 - 1, MaxHeapBytes: 1000, RefreshInterval: time.Second, StopAccepting: 0.95}
	if diff := cmp.Diff(wantOverload, b.Overload); diff != "" {
		t.Error(diff)
	}
	if b.Admin.Address.String() != "127.0.0.1:15000" || b.LogFormat != "%l %v" {
		t.Errorf("admin %v, log %q", b.Admin, b.LogFormat)
	}
	if tags := b.Stats.Tags; b.Stats.UseAllDefaultTags || len(tags) != 4 || tags[2].Fixed != "v" || tags[3].Regex != nil {
		t.Errorf("tags: %v", tags)
	}
	for name, rejected := range map[string]bool{
		"reporter=x": false, "a.rbac.allowed": false, "vhost.a.route": false, "vhost.a.route.b": true, "other": true,
	} {
		if b.Stats.Matcher.Rejects(name) != rejected {
			t.Errorf("%s: rejected %v", name, !rejected)
		}
	}
	var kept bootstrapv3.Bootstrap
	if err := proto.Unmarshal(b.Bytes, &kept); err != nil || kept.GetStaticResources().GetClusters()[0].GetName() != "xds-grpc" {
		t.Errorf("bytes: %v", err)
	}
	b.Drop()
	if b.Clusters != nil {
		t.Error("the clusters are kept")
	}
}

func TestLoad_FileAndFlags(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "b.yaml")
	if err := os.WriteFile(path, []byte("node: {id: a, cluster: b, locality: {region: r}}\nadmin:\n  socket_options: [{name: 1, int_value: 1}]\n"+
		"static_resources:\n  clusters:\n  - name: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in := Input{Path: path, YAML: "{static_resources: {clusters: [{name: z}]}, node: {cluster: d}}", ServiceNode: "n", ServiceZone: "z"}
	b, _, err := Load(in)
	if want := path + ":3: admin.socket_options: is not supported"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if b.Node.GetId() != "n" || b.Node.GetCluster() != "d" || b.Node.GetLocality().GetZone() != "z" || b.Node.GetLocality().GetRegion() != "r" {
		t.Errorf("node: %v", b.Node)
	}
	if len(b.Clusters) != 2 || b.Clusters[1].GetName() != "z" {
		t.Errorf("clusters: %v", b.Clusters)
	}
	if b.Admin != nil {
		t.Errorf("admin: %v", b.Admin)
	}
	var errs config.Errors
	errs.Add(ClusterPath(0).Field("lb_policy"), "is odd")
	if got, want := in.Locate(errs.Err()).Error(), path+":6: static_resources.clusters[0].lb_policy: is odd"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestLoad_Errors(t *testing.T) {
	t.Parallel()
	const f = "--config-yaml:1: "
	tests := []struct {
		name, yaml string
		want       []string
	}{
		{"nothing", "", []string{"at least one of --config-path and --config-yaml is needed"}},
		{
			"all kinds at once", "{nope: 1, watchdog: {}, stats_sinks: [], header_prefix: x, admin: {address: {socket_address: {address: localhost, port_value: 70000}}}, static_resources: {clusters: [{}]}, certificate_provider_instances: {}}",
			[]string{
				f + "nope: unknown field of envoy.config.bootstrap.v3.Bootstrap",
				f + "watchdog: is not supported",
				f + "header_prefix: is not supported",
				f + "static_resources.clusters[0].name: value length must be at least 1 runes",
				f + "admin.address.socket_address.port_value: value must be less than or equal to 65535",
				f + "admin.address.socket_address.address: malformed IP address: localhost",
			},
		},
		{
			"switches", "{enable_dispatcher_stats: false, use_tcp_for_dns_lookups: true}",
			[]string{f + "use_tcp_for_dns_lookups: is not supported, and can only be switched off"},
		},
		{
			"runtime", "{layered_runtime: {layers: [{name: a, static_layer: {x: [1]}}, {name: a, disk_layer: {symlink_root: x}}, {name: b, admin_layer: {}}, {name: c, admin_layer: {}}]}}",
			[]string{
				f + "layered_runtime.layers[0].static_layer.x: Invalid runtime entry value for x",
				f + "layered_runtime.layers[1].disk_layer: is not supported",
				f + "layered_runtime.layers[1].name: Duplicate layer name: a",
				f + "layered_runtime.layers[3].admin_layer: Too many admin layers specified in LayeredRuntime, at most one may be specified",
			},
		},
		{
			"node", "{dynamic_resources: {lds_config: {ads: {}}}}",
			[]string{"node: node 'id' and 'cluster' are required."},
		},
		{
			"tags", "{stats_config: {stats_tags: [{tag_name: a, regex: '('}, {tag_name: b, regex: '(?!x)'}, {tag_name: c}], histogram_bucket_settings: [{match: {prefix: x}, buckets: [1]}]}}",
			[]string{
				f + "stats_config.histogram_bucket_settings: is not supported",
				f + "stats_config.stats_tags[0].regex: Invalid regex '('",
				f + "stats_config.stats_tags[1].regex: Invalid regex '(?!x)'",
				f + "stats_config.stats_tags[2]: No regex specified for tag specifier and no default regex for name: 'c'",
			},
		},
		{
			"matcher", "{stats_config: {stats_matcher: {exclusion_list: {patterns: [{safe_regex: {regex: '('}}]}}}}",
			[]string{f + "stats_config.stats_matcher.exclusion_list.patterns[0].safe_regex.regex: invalid regex '('"},
		},
		{
			"extension", "{bootstrap_extensions: [{name: x, typed_config: {'@type': type.googleapis.com/envoy.config.core.v3.Node}}, {name: z, typed_config: {'@type': a/b.C}}]}",
			[]string{
				f + `bootstrap_extensions[1].typed_config: no extension takes the type "a/b.C"`,
				f + `bootstrap_extensions[0].typed_config: no extension takes the type "type.googleapis.com/envoy.config.core.v3.Node"`,
			},
		},
		{
			"overload", "{overload_manager: {resource_monitors: [{name: x, typed_config: {'@type': type.googleapis.com/envoy.config.core.v3.Node}}], loadshed_points: [{name: x, triggers: [{name: x, threshold: {value: 1}}]}], actions: [{name: envoy.overload_actions.shrink_heap, triggers: [{name: z, threshold: {value: 1}}]}]}}",
			[]string{
				f + "overload_manager.loadshed_points: is not supported",
				f + `overload_manager.resource_monitors[0].typed_config: no extension takes the type "type.googleapis.com/envoy.config.core.v3.Node"`,
				f + "overload_manager.actions[0].triggers[0].name: must be envoy.resource_monitors.fixed_heap, which has to be configured, not z",
				f + "overload_manager.actions[0].name: envoy.overload_actions.shrink_heap is not supported",
			},
		},
		{
			"log format", "{application_log_config: {log_format: {json_format: {a: '%v', b: '%%v %j'}}}}",
			[]string{f + "application_log_config.log_format.json_format: Usage of %v is unavailable for JSON log formats"},
		},
		{
			"names", "{static_resources: {clusters: [{name: a}, {name: a}]}}",
			[]string{f + `static_resources.clusters[1].name: cluster "a" is there twice`},
		},
		{
			"admin", "{admin: {address: {envoy_internal_address: {server_listener_name: x}}}}",
			[]string{f + "admin.address.envoy_internal_address: is not supported"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b, _, err := Load(Input{YAML: tt.yaml})
			if b == nil {
				t.Error("nothing to go on with")
			}
			got := config.Flatten(err)
			if len(got) != len(tt.want) {
				t.Fatalf("%d errors, want %d:\n%v", len(got), len(tt.want), err)
			}
			for i := range got {
				if !strings.HasPrefix(got[i].Error(), tt.want[i]) {
					t.Errorf("error %d:\n got %s\nwant %s", i, got[i], tt.want[i])
				}
			}
		})
	}
}

func TestLoad_LogFormat(t *testing.T) {
	t.Parallel()
	b, _ := load(t, `{application_log_config: {log_format: {json_format: {time: "%Y", msg: "<%j>", in: {level: "%l"}}}}}`)
	if want := `{"in":{"level":"%l"},"msg":"<%j>","time":"%Y"}`; b.LogFormat != want {
		t.Errorf("got %s", b.LogFormat)
	}
	_, _, err := Load(Input{YAML: `{application_log_config: {log_format: {text_format: "%v"}}}`, LogFormatSet: true})
	want := "--config-yaml:1: application_log_config.log_format: Only one of ApplicationLogConfig.log_format or CLI option --log-format can be specified."
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestLoad_Admin(t *testing.T) {
	t.Parallel()
	if b, _ := load(t, "{admin: {}}"); b.Admin != nil {
		t.Error("an admin server without an address")
	}
	b, _ := load(t, "{admin: {address: {pipe: {path: /x, mode: 384}}, access_log_path: /dev/null, ignore_global_conn_limit: true}}")
	got := b.Admin
	if got.Pipe != "/x" || got.PipeMode != 0o600 || got.AccessLogPath != "/dev/null" || !got.IgnoreGlobalConnLimit {
		t.Errorf("got %+v", got)
	}
}

func TestDropLookahead(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`a(?=\.)b`:           "ab",
		`(?=[)]x(y))b(?=c)`:  "b",
		`a(?=(b`:             `a(?=(b`,
		`no`:                 "no",
		`a(?=\))b(?=[\]])c$`: "abc$",
	} {
		if got, _ := dropLookahead(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// TestTagRegex_Lookahead: the tag of Istio's agent is the one that std::regex finds.
func TestTagRegex_Lookahead(t *testing.T) {
	t.Parallel()
	var errs config.Errors
	re, warning := tagRegex(nil, `^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)`, &errs)
	if warning != nil || errs.Err() != nil {
		t.Fatal(warning, errs.Err())
	}
	for name, want := range map[string]string{
		"listener.0.0.0.0_80.http.0.0.0.0_80.downstream_rq_2xx": "0.0.0.0_80",
		"listener.http.1.2.x":      "1.2",
		"listeners.a.http.1.2.x":   "",
		"listener_manager.http.1.": "",
		"a.listener.b.http.1.":     "",
	} {
		got := ""
		if m := re.FindStringSubmatch(name); m != nil {
			got = m[2]
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(agent)
	f.Add("{layered_runtime: {layers: [{name: a, static_layer: {x: {numerator: 1e300}}}]}}")
	f.Add("{stats_config: {stats_tags: [{tag_name: a, regex: '(?=(?=a)[b)])'}]}}")
	f.Fuzz(func(t *testing.T, yaml string) {
		b, _, err := Load(Input{YAML: yaml})
		if b == nil {
			t.Fatal("nil")
		}
		if err == nil && len(b.Bytes) == 0 && len(b.Clusters) > 0 {
			t.Fatal("no bytes")
		}
	})
}
