package server_test

import (
	"os"
	"strings"
	"testing"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"sidecar/internal/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// static is a listener l that answers from a cluster up, through the plugin if there is one.
func static(upstreamAddr, filters string) string {
	return `
static_resources:
  clusters:
  - {name: up, load_assignment: {cluster_name: up, endpoints: [{lb_endpoints: [{endpoint: {address: ` + socketAddress(upstreamAddr) + `}}]}]}}
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: up}}]}]}
          http_filters:
` + filters + `
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestRun_StartStop holds that nothing is left of a server: TestMain counts the goroutines.
func TestRun_StartStop(t *testing.T) {
	up := upstream(t, "up")
	once := func() {
		p := live(t, static(up, pluginFilter("v1")))
		if a := p.get(p.waitListener("l"), "/"); a.body != "up" || a.header.Get("x-plugin-version") != "v1" {
			t.Errorf("got %+v", a)
		}
		if err := p.close(); err != nil {
			t.Errorf("ended with %v", err)
		}
	}
	once() // what is opened once for all
	before := openFiles(t)
	for range 20 {
		once()
	}
	// The test server's side of the last connections may still be closing.
	if after := openFiles(t); after > before+3 {
		t.Errorf("%d open files after 20 runs, %d before", after, before)
	}
}

func pluginConfig(version string) string {
	return `{name: plug, configuration: {"@type": type.googleapis.com/google.protobuf.StringValue, value: ` + version +
		`}, vm_config: {runtime: envoy.wasm.runtime.v8, code: {local: {filename: ../../testdata/plugins/version/version.wasm}}}}`
}

func pluginFilter(version string) string {
	return `          - name: plug
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm, config: ` + pluginConfig(version) + "}"
}

// TestRun_PluginFails: a plugin of the bootstrap that does not start ends the process, as in Envoy.
func TestRun_PluginFails(t *testing.T) {
	got := runFails(t, func(o *server.Options) { o.ConfigYAML = adminYAML + static("127.0.0.1:1", pluginFilter("broken")) })
	if len(got) != 1 || !strings.HasPrefix(got[0], "static_resources.listeners[0]") {
		t.Errorf("got %q", got)
	}
}

// TestRun_EndWhileWarming: a listener that waits for its plugin must not hold up the end.
func TestRun_EndWhileWarming(t *testing.T) {
	p := start(t, `
dynamic_resources:
  ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: up}}]}
`+strings.Replace(static("127.0.0.1:1", ecdsFilter("{ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}")),
		"{name: up,", "{name: up, http2_protocol_options: {},", 1))
	p.wait("the listener to warm", func() bool { return strings.Contains(p.adminGet("/init_dump"), "listener l") })
	if got := p.adminGet("/ready"); !strings.Contains(got, "INITIALIZING") {
		t.Errorf("ready: %s", got)
	}
	if err := p.close(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

func ecdsFilter(source string) string {
	return `          - name: plug
            config_discovery: {config_source: ` + source + `, type_urls: ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"]}`
}

// TestRun_AdminJSON: what the admin server shows are the messages that Envoy's tools read.
func TestRun_AdminJSON(t *testing.T) {
	p := live(t, static(upstream(t, "up"), ""))
	for path, msg := range map[string]proto.Message{
		"/config_dump?include_eds": &adminv3.ConfigDump{},
		"/clusters?format=json":    &adminv3.Clusters{},
		"/listeners?format=json":   &adminv3.Listeners{},
		"/server_info":             &adminv3.ServerInfo{},
		"/memory":                  &adminv3.Memory{},
		"/init_dump":               &adminv3.UnreadyTargetsDumps{},
		"/certs":                   &adminv3.Certificates{},
		"/config_dump?resource=dynamic_active_clusters": &adminv3.ConfigDump{},
	} {
		if err := protojson.Unmarshal([]byte(p.adminGet(path)), msg); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	dump := p.adminGet("/config_dump")
	for _, want := range []string{`"user_agent_name": "envoy"`, `"envoy.filters.http.router"`, `"static_listeners"`} {
		if !strings.Contains(dump, want) {
			t.Errorf("no %s in the dump", want)
		}
	}
	// Histograms show what was flushed.
	p.get(p.waitListener("l"), "/")
}

func TestRun_Options(t *testing.T) {
	dir := t.TempDir()
	p := live(t, `
application_log_config: {log_format: {text_format: "<%v>"}}
stats_flush_on_admin: true
stats_config: {stats_matcher: {exclusion_list: {patterns: [{prefix: "cluster.up.upstream_cx_"}]}}}
layered_runtime: {layers: [{name: a, static_layer: {envoy.resource_limits.listener.l.connection_limit: 0, upstream.use_http2: 1}}]}
cluster_manager: {upstream_bind_config: {source_address: {address: 127.0.0.1, port_value: 0}}}
`+static(upstream(t, "up"), ""), func(o *server.Options) {
		o.ConfigYAML = strings.Replace(o.ConfigYAML, "admin: {", "admin: {access_log_path: "+dir+"/admin.log, ", 1)
		o.StatsTags = [][2]string{{"env", "test"}}
		o.Version = "abcdef0123/1"
	})
	if !strings.Contains(p.logs.String(), "<admin address: ") {
		t.Errorf("the format of the log: %s", p.logs.String())
	}
	if !strings.Contains(p.logs.String(), "runtime keys without effect: upstream.use_http2") {
		t.Error("no warning of a runtime key")
	}
	if got := p.stat("server.version"); got != 0xabcdef {
		t.Errorf("server.version %#x", got)
	}
	stats := p.adminGet("/stats")
	if strings.Contains(stats, "cluster.up.upstream_cx_") || !strings.Contains(stats, "cluster.up.upstream_rq_total") {
		t.Error("the stats matcher has no effect")
	}
	if !strings.Contains(stats, "server.initialization_time_ms: P0(") {
		t.Error("stats_flush_on_admin has no effect")
	}
	if got := p.adminGet("/stats/prometheus"); !strings.Contains(got, `env="test"`) {
		t.Error("no tag of the command line")
	}
	addr := p.waitListener("l")
	if _, err := get(t.Context(), noReuse(t), addr, "/"); err == nil {
		t.Error("the connection limit has no effect")
	}
	p.waitStat("listener."+strings.ReplaceAll(addr[:strings.LastIndexByte(addr, ':')], ":", "_")+"_0.downstream_cx_overflow", 1)
	if err := p.close(); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(dir + "/admin.log"); err != nil || !strings.Contains(string(b), "GET /stats HTTP/1.1") {
		t.Errorf("admin log: %q, %v", b, err)
	}
}
