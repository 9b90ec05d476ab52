package admin

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/log"
	"sidecar/internal/stattag"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// control records what it was asked to do.
type control struct {
	mu      sync.Mutex
	calls   []string
	healthy bool
}

func (c *control) add(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, s)
}

func (c *control) SetHealthy(healthy bool) {
	c.add(map[bool]string{true: "ok", false: "fail"}[healthy])
	c.mu.Lock()
	defer c.mu.Unlock()
	c.healthy = healthy
}

func (c *control) DrainListeners(o DrainOptions) {
	b, _ := json.Marshal(o)
	c.add("drain " + string(b))
}
func (c *control) Quit()             { c.add("quit") }
func (c *control) ReopenLogs() error { c.add("reopen"); return nil }

func (c *control) state() adminv3.ServerInfo_State {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.healthy {
		return adminv3.ServerInfo_LIVE
	}
	return adminv3.ServerInfo_DRAINING
}

type fixture struct {
	*Server
	control *control
	store   *stats.Store
}

func addr(s string) stream.Addr { return stream.IPAddr(netip.MustParseAddrPort(s)) }

func newFixture(t testing.TB, change func(*Options)) *fixture {
	t.Helper()
	f := &fixture{control: &control{healthy: true}, store: stats.New()}
	o := Options{
		Log: slog.New(slog.DiscardHandler), Logs: log.New(io.Discard),
		Stats: f.store, Tags: stattag.New(true, nil),
		State:      f.control.state,
		ServerInfo: func() *adminv3.ServerInfo { return &adminv3.ServerInfo{Version: "v"} },
		Clusters:   clusters,
		Listeners: func() []ListenerStatus {
			return []ListenerStatus{{Name: "l1", Local: addr("127.0.0.1:59049"), Additional: []stream.Addr{stream.PipeAddr("/x")}}}
		},
		Dumps:   dumps(),
		Control: f.control,
	}
	if change != nil {
		change(&o)
	}
	f.Server = New(o)
	return f
}

func clusters() []ClusterStatus {
	t := Threshold{1024, 1024, 1024, 3}
	return []ClusterStatus{
		{
			Name: "c", ObservabilityName: "alt", Default: t, High: t,
			Hosts: []HostStatus{{
				Address: addr("127.0.0.1:43419"), CxActive: 1, CxTotal: 1, RqSuccess: 3, RqTotal: 3,
				Weight: 1, Region: "r1", Zone: "z1", SuccessRate: -1, LocalOriginSuccessRate: -1,
			}},
		},
		{Name: "d", ObservabilityName: "d", AddedViaAPI: true, EDSServiceName: "svc", Default: t, High: t},
	}
}

func pack(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return a
}

func dumps() []Dump {
	secret := &tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsCertificates: []*tlsv3.TlsCertificate{{
			CertificateChain: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "public chain"}},
			PrivateKey:       &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "top secret"}},
			Password:         &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte("top secret")}},
		}},
	}}
	cluster := func(name string) *clusterv3.Cluster {
		return &clusterv3.Cluster{Name: name, TransportSocket: &corev3.TransportSocket{
			Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(secret)},
		}}
	}
	return []Dump{
		{Get: func() proto.Message {
			return &adminv3.BootstrapConfigDump{Bootstrap: &bootstrapv3.Bootstrap{Node: &corev3.Node{Id: "n1"}}}
		}},
		{Get: func() proto.Message {
			return &adminv3.ClustersConfigDump{VersionInfo: "7", StaticClusters: []*adminv3.ClustersConfigDump_StaticCluster{
				{Cluster: pack(cluster("a"))},
				{Cluster: pack(cluster("b"))},
				{Cluster: &anypb.Any{TypeUrl: "type.googleapis.com/not.Linked", Value: []byte{8, 1}}},
			}}
		}},
		{EDS: true, Get: func() proto.Message {
			return &adminv3.EndpointsConfigDump{StaticEndpointConfigs: []*adminv3.EndpointsConfigDump_StaticEndpointConfig{
				{EndpointConfig: pack(&endpointv3.ClusterLoadAssignment{ClusterName: "a"})},
			}}
		}},
	}
}

func (f *fixture) do(method, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	f.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w
}

func (f *fixture) get(t *testing.T, target string, status int) string {
	t.Helper()
	w := f.do(http.MethodGet, target)
	if w.Code != status {
		t.Errorf("GET %s: status %d, want %d", target, w.Code, status)
	}
	return w.Body.String()
}

// fill records what Envoy had recorded for the goldens below.
func (f *fixture) fill() {
	c := f.store.Scope("cluster").Sub("alt")
	h := c.Histogram("upstream_rq_time", stats.Milliseconds)
	for _, v := range []uint64{1, 42, 43} {
		h.Record(v)
	}
	c.Histogram("unused", stats.Bytes)
	c.Counter("upstream_rq_200").Add(3)
	c.Counter("upstream_rq_timeout")
	c.Gauge("upstream_rq_active").Inc()
	c.Gauge("upstream_rq_active").Dec()
	f.store.Scope("server").Gauge("live").Set(1)
	f.store.Scope("server").Gauge("state").Set(0)
	f.store.Scope("cds").Text("version_text").Set(`v"1`)
	f.store.Flush()
}

func TestStatsText(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(o *Options) { o.Rejects = func(n string) bool { return n == "cluster.alt.rejected" } })
	f.fill()
	f.store.Scope("cluster").Sub("alt").Counter("rejected").Inc()
	const (
		counters = "cluster.alt.upstream_rq_200: 3\ncluster.alt.upstream_rq_active: 0\ncluster.alt.upstream_rq_timeout: 0\n"
		time     = "cluster.alt.upstream_rq_time: P0(1.05,1.05) P25(1.05,1.05) P50(42.5,42.5) P75(43.5,43.5) P90(43.5,43.5) P95(43.5,43.5) P99(43.5,43.5) P99.5(43.5,43.5) P99.9(43.5,43.5) P100(43.5,43.5)\n"
	)
	for target, want := range map[string]string{
		"/stats?filter=^cluster":                                   counters + "cluster.alt.unused: No recorded values\n" + time,
		"/stats?filter=^cluster&usedonly":                          "cluster.alt.upstream_rq_200: 3\ncluster.alt.upstream_rq_active: 0\n" + time,
		"/stats?usedonly&filter=^(server.state|nothing)":           "server.state: 0\n",
		"/stats?filter=version_text":                               "cds.version_text: \"v&quot;1\"\n",
		"/stats?type=Gauges&filter=server.live":                    "server.live: 1\n",
		"/stats?type=Gauges&invert_filter&filter=admin|server":     "cluster.alt.upstream_rq_active: 0\n",
		"/stats?filter=alt.*rq_(200|2%2B)":                         "cluster.alt.upstream_rq_200: 3\n",
		"/stats?filter=rq_20+$":                                    "cluster.alt.upstream_rq_200: 3\n",
		"/stats?filter=alt.*rq_time$&histogram_buckets=cumulative": "cluster.alt.upstream_rq_time: B0.5(0,0) B1(1,1) B5(1,1) B10(1,1) B25(1,1) B50(3,3) B100(3,3) B250(3,3) B500(3,3) B1000(3,3) B2500(3,3) B5000(3,3) B10000(3,3) B30000(3,3) B60000(3,3) B300000(3,3) B600000(3,3) B1.8e+06(3,3) B3.6e+06(3,3)\n",
		"/stats?filter=alt.*rq_time$&histogram_buckets=disjoint":   "cluster.alt.upstream_rq_time: B0.5(0,0) B1(1,1) B5(0,0) B10(0,0) B25(0,0) B50(2,2) B100(0,0) B250(0,0) B500(0,0) B1000(0,0) B2500(0,0) B5000(0,0) B10000(0,0) B30000(0,0) B60000(0,0) B300000(0,0) B600000(0,0) B1.8e+06(0,0) B3.6e+06(0,0)\n",
		"/stats?filter=alt.*rq_time$&histogram_buckets=detailed":   "cluster.alt.upstream_rq_time:\n  totals=1,0.1:1, 42,1:1, 43,1:1\n  intervals=1,0.1:1, 42,1:1, 43,1:1\n  summary=P0(1.05,1.05) P25(1.05,1.05) P50(42.5,42.5) P75(43.5,43.5) P90(43.5,43.5) P95(43.5,43.5) P99(43.5,43.5) P99.5(43.5,43.5) P99.9(43.5,43.5) P100(43.5,43.5)\n",
	} {
		if diff := cmp.Diff(want, f.get(t, target, http.StatusOK)); diff != "" {
			t.Errorf("%s: %s", target, diff)
		}
	}
	for target, want := range map[string]string{
		"/stats?filter=(":                              "Invalid re2 regex: missing ): (",
		"/stats?type=Foo":                              "invalid &type= param",
		"/stats?format=foo":                            "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n",
		"/stats?histogram_buckets=foo":                 "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n",
		"/stats/prometheus?histogram_buckets=detailed": "unsupported prometheus histogram bucket mode",
	} {
		if diff := cmp.Diff(want, f.get(t, target, http.StatusBadRequest)); diff != "" {
			t.Errorf("%s: %s", target, diff)
		}
	}
}

func TestStatsJSON(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.fill()
	const (
		value = `{"cumulative":43.5,"interval":43.5}`
		times = `{"cumulative":1.05,"interval":1.05},{"cumulative":1.05,"interval":1.05},{"cumulative":42.5,"interval":42.5},` +
			value + "," + value + "," + value + "," + value + "," + value + "," + value + "," + value
		bins = `[{"lower_bound":1,"width":0.1,"count":1},{"lower_bound":42,"width":1,"count":1},{"lower_bound":43,"width":1,"count":1}]`
	)
	nulls := strings.Repeat(`,{"cumulative":null,"interval":null}`, 10)[1:]
	for target, want := range map[string]string{
		"/stats?format=json&filter=server.live|version_text":            `{"stats":[{"name":"cds.version_text","value":"v\"1"},{"name":"server.live","value":1}]}`,
		"/stats?format=json&filter=alt.(unused|.*time)":                 `{"stats":[{"name":"cluster.alt.upstream_rq_timeout","value":0},{"histograms":{"supported_quantiles":[0,25,50,75,90,95,99,99.5,99.9,100],"computed_quantiles":[{"name":"cluster.alt.unused","values":[` + nulls + `]},{"name":"cluster.alt.upstream_rq_time","values":[` + times + `]}]}}]}`,
		"/stats?format=json&filter=rq_time$&histogram_buckets=detailed": `{"stats":[{"histograms":{"supported_percentiles":[0,25,50,75,90,95,99,99.5,99.9,100],"details":[{"name":"cluster.alt.upstream_rq_time","totals":` + bins + `,"intervals":` + bins + `,"percentiles":[` + times + `]}]}}]}`,
	} {
		// Texts come before counters here; the value of Envoy's order is in the goldens of
		// TestStatsText.
		got := f.get(t, target, http.StatusOK)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", target, diff)
		}
		if !json.Valid([]byte(got)) {
			t.Errorf("%s is not JSON", target)
		}
	}
	got := f.get(t, "/stats?format=json&filter=rq_time$&histogram_buckets=disjoint", http.StatusOK)
	for _, want := range []string{`{"upper_bound":50,"interval":2,"cumulative":2}`, `{"upper_bound":3e+05,`, `{"upper_bound":1800000,`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
}

func TestPrometheus(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.fill()
	wasm := f.store.Scope("wasmcustom").Counter("istio_requests_total")
	wasm.Add(2)
	got := f.get(t, "/stats/prometheus?usedonly&filter=alt|server.live|wasm|version", http.StatusOK)
	want := `# TYPE envoy_cluster_upstream_rq counter
envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="alt"} 3
# TYPE istio_requests_total counter
istio_requests_total{} 2
# TYPE envoy_cluster_upstream_rq_active gauge
envoy_cluster_upstream_rq_active{envoy_cluster_name="alt"} 0
# TYPE envoy_server_live gauge
envoy_server_live{} 1
# TYPE envoy_cluster_upstream_rq_time histogram
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="alt",le="0.5"} 0
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="alt",le="1"} 1
`
	if !strings.HasPrefix(got, want) {
		t.Error(cmp.Diff(want, got))
	}
	want = `envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="alt",le="3600000"} 3
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="alt",le="+Inf"} 3
envoy_cluster_upstream_rq_time_sum{envoy_cluster_name="alt"} 87.035989568241092229072819463909
envoy_cluster_upstream_rq_time_count{envoy_cluster_name="alt"} 3
`
	if !strings.HasSuffix(got, want) {
		t.Error(cmp.Diff(want, got))
	}
	got = f.get(t, "/stats?format=prometheus&text_readouts&filter=version", http.StatusOK)
	want = "# TYPE envoy_cds_version_text gauge\nenvoy_cds_version_text{text_value=\"v\\\"1\"} 0\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = f.get(t, "/stats/prometheus?histogram_buckets=summary&filter=rq_time$|unused", http.StatusOK)
	for _, want := range []string{
		"# TYPE envoy_cluster_upstream_rq_time summary\n",
		"envoy_cluster_upstream_rq_time{envoy_cluster_name=\"alt\",quantile=\"0\"} 1.0500000000000000444089209850063\n",
		"envoy_cluster_upstream_rq_time{envoy_cluster_name=\"alt\",quantile=\"0.999\"} 43.5\n",
		"envoy_cluster_unused{envoy_cluster_name=\"alt\",quantile=\"1\"} nan\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
}

func TestConfigDump(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	all := f.get(t, "/config_dump?include_eds", http.StatusOK)
	if strings.Contains(all, "top secret") || strings.Contains(all, "dG9wIHNlY3JldA") {
		t.Error("a secret is shown")
	}
	for _, want := range []string{`"public chain"`, `"inline_string": "[redacted]"`, `"id": "n1"`, "EndpointsConfigDump", "not.Linked"} {
		if !strings.Contains(all, want) {
			t.Errorf("%s is not in %s", want, all)
		}
	}
	if strings.Contains(f.get(t, "/config_dump", http.StatusOK), "EndpointsConfigDump") {
		t.Error("endpoints without include_eds")
	}
	want := `{
 "configs": [
  {
   "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster",
   "cluster": {
    "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "name": "b"
   }
  }
 ]
}
`
	if diff := cmp.Diff(want, f.get(t, "/config_dump?resource=static_clusters&mask=cluster.name&name_regex=b|c", http.StatusOK)); diff != "" {
		t.Error(diff)
	}
	got := f.get(t, "/config_dump?mask=bootstrap.node", http.StatusOK)
	if !strings.Contains(got, "n1") || strings.Contains(got, "Clusters") {
		t.Error(got)
	}
	for target, want := range map[string]struct {
		status int
		body   string
	}{
		"/config_dump?resource=foo":                          {404, "foo not found in config dump"},
		"/config_dump?resource=static_endpoint_configs":      {404, "static_endpoint_configs not found in config dump"},
		"/config_dump?resource=version_info":                 {400, "version_info is not a repeated field. Use ?mask=version_info to get only this field"},
		"/config_dump?mask=clusters":                         {400, "FieldMask clusters could not be successfully applied to any configs."},
		"/config_dump?name_regex=(":                          {400, "INVALID_ARGUMENT: Error while parsing name_regex from (: missing ): ("},
		"/config_dump?resource=static_clusters&mask=nothing": {400, "FieldMask nothing could not be successfully used."},
	} {
		if diff := cmp.Diff(want.body, f.get(t, target, want.status)); diff != "" {
			t.Errorf("%s: %s", target, diff)
		}
	}
}

func TestClustersAndListeners(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	want := `c::observability_name::alt
c::default_priority::max_connections::1024
c::default_priority::max_pending_requests::1024
c::default_priority::max_requests::1024
c::default_priority::max_retries::3
c::high_priority::max_connections::1024
c::high_priority::max_pending_requests::1024
c::high_priority::max_requests::1024
c::high_priority::max_retries::3
c::added_via_api::false
c::127.0.0.1:43419::cx_active::1
c::127.0.0.1:43419::cx_connect_fail::0
c::127.0.0.1:43419::cx_total::1
c::127.0.0.1:43419::rq_active::0
c::127.0.0.1:43419::rq_error::0
c::127.0.0.1:43419::rq_pending_active::0
c::127.0.0.1:43419::rq_success::3
c::127.0.0.1:43419::rq_timeout::0
c::127.0.0.1:43419::rq_total::3
c::127.0.0.1:43419::hostname::
c::127.0.0.1:43419::health_flags::healthy
c::127.0.0.1:43419::weight::1
c::127.0.0.1:43419::region::r1
c::127.0.0.1:43419::zone::z1
c::127.0.0.1:43419::sub_zone::
c::127.0.0.1:43419::canary::false
c::127.0.0.1:43419::priority::0
c::127.0.0.1:43419::success_rate::-1
c::127.0.0.1:43419::local_origin_success_rate::-1
`
	if diff := cmp.Diff(want, f.get(t, "/clusters?filter=^c$", http.StatusOK)); diff != "" {
		t.Error(diff)
	}
	if got := f.get(t, "/clusters", http.StatusOK); !strings.Contains(got, "d::added_via_api::true\nd::eds_service_name::svc\n") {
		t.Error(got)
	}
	var parsed struct {
		Statuses []struct {
			Name  string `json:"name"`
			Hosts []struct {
				Weight int                 `json:"weight"`
				Stats  []map[string]string `json:"stats"`
				Health map[string]any      `json:"health_status"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := json.Unmarshal([]byte(f.get(t, "/clusters?format=json", http.StatusOK)), &parsed); err != nil {
		t.Fatal(err)
	}
	h := parsed.Statuses[0].Hosts[0]
	if diff := cmp.Diff(map[string]string{"name": "cx_total", "value": "1"}, h.Stats[1]); diff != "" || h.Health["eds_health_status"] != "HEALTHY" {
		t.Error(diff, h)
	}
	if got := f.get(t, "/listeners", http.StatusOK); got != "l1::127.0.0.1:59049\nl1::/x\n" {
		t.Error(got)
	}
	if got := f.get(t, "/listeners?format=json", http.StatusOK); !strings.Contains(got, "   \"name\": \"l1\",\n   \"local_address\": {\n    \"socket_address\": {\n     \"address\": \"127.0.0.1\",\n     \"port_value\": 59049\n") {
		t.Error(got)
	}
	if got := (&Health{FailedActive: true, FailedEDS: true}).flags(); got != "/failed_active_hc/failed_eds_health" {
		t.Error(got)
	}
}

func TestControl(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	f.store.Root().Counter("x").Inc()
	if got := f.get(t, "/ready", http.StatusOK); got != "LIVE\n" {
		t.Error(got)
	}
	for _, target := range []string{
		"/healthcheck/fail", "/drain_listeners?inboundonly&graceful", "/drain_listeners?skip_exit", "/quitquitquit",
		"/reopen_logs", "/reset_counters",
	} {
		if w := f.do(http.MethodPost, target); w.Code != http.StatusOK || w.Body.String() != "OK\n" {
			t.Error(target, w.Code, w.Body)
		}
		w := f.do(http.MethodGet, target)
		if w.Code != http.StatusMethodNotAllowed || w.Body.String() != "Method GET not allowed, POST required." {
			t.Error("GET", target, w.Code, w.Body)
		}
	}
	if got := f.get(t, "/ready", http.StatusServiceUnavailable); got != "DRAINING\n" {
		t.Error(got)
	}
	if got := f.get(t, "/server_info", http.StatusOK); !strings.Contains(got, `"state": "DRAINING"`) {
		t.Error(got)
	}
	want := []string{
		"fail", `drain {"InboundOnly":true,"Graceful":true,"SkipExit":false}`,
		`drain {"InboundOnly":false,"Graceful":false,"SkipExit":true}`, "quit", "reopen",
	}
	if diff := cmp.Diff(want, f.control.calls); diff != "" {
		t.Error(diff)
	}
	if got := f.get(t, "/stats?filter=^x$", http.StatusOK); got != "x: 0\n" {
		t.Error(got)
	}
}

func TestSmallEndpoints(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	for _, tt := range []struct {
		method, target string
		status         int
		want           string
	}{
		{"GET", "/hot_restart_version", 200, "disabled"},
		{"GET", "/contention", 200, "Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing."},
		{"GET", "/init_dump", 200, "{}\n"},
		{"GET", "/certs", 200, "{\n \"certificates\": []\n}\n"},
		{"GET", "/runtime", 200, "{\n \"entries\": {},\n \"layers\": []\n}\n"},
		{"POST", "/runtime_modify", 400, "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n       or send the parameters as form values\nuse an empty value to remove a previously added override"},
		{"POST", "/runtime_modify?a=b", 503, "No admin layer specified"},
		{"POST", "/cpuprofiler", 400, "?enable=<y|n>\n"},
		{"POST", "/cpuprofiler?enable=y", 500, "failure to start the profiler"},
		{"POST", "/cpuprofiler?enable=n", 200, "OK\n"},
		{"POST", "/heapprofiler?enable=y", 501, "The current build does not support heap profiler"},
		{"PUT", "/reset_counters", 405, "Method PUT not allowed, POST required."},
	} {
		w := f.do(tt.method, tt.target)
		if diff := cmp.Diff(tt.want, w.Body.String()); diff != "" || w.Code != tt.status {
			t.Error(tt.target, w.Code, diff)
		}
	}
	help := f.get(t, "/help", http.StatusOK)
	if !strings.HasPrefix(help, "admin commands are:\n  /: Admin home page\n") ||
		!strings.Contains(help, "  /quitquitquit (POST): exit the server\n") {
		t.Error(help)
	}
	if diff := cmp.Diff("invalid path. "+help, f.get(t, "/nope", http.StatusNotFound)); diff != "" {
		t.Error(diff)
	}
	var memory map[string]string
	if err := json.Unmarshal([]byte(f.get(t, "/memory", http.StatusOK)), &memory); err != nil || memory["allocated"] == "0" || len(memory) != 6 {
		t.Error(memory, err)
	}
	if got := f.get(t, "/", http.StatusOK); !strings.Contains(got, "<form action='quitquitquit' method='post'>") {
		t.Error(got)
	}
}

func TestLogging(t *testing.T) {
	t.Parallel()
	f := newFixture(t, nil)
	post := func(target string, status int, want string) {
		t.Helper()
		w := f.do(http.MethodPost, target)
		if w.Code != status || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s, want %s", target, w.Code, w.Body, want)
		}
	}
	post("/logging", 200, "active loggers:\n  a2a: info\n")
	post("/logging?level=debug", 200, "  a2a: debug\n")
	post("/logging?http=trace", 200, "  http: trace\n")
	post("/logging?paths=http:error,router:critical", 200, "  http: error\n")
	post("/logging?paths=", 200, "active loggers:\n")
	post("/logging?paths=http", 400, "error: empty logger name or empty logger level\n")
	post("/logging?group=http:info", 400, "error: group parameter requires fine-grain logging to be enabled\n")
	post("/logging?level=foo", 400, "error: unknown logger level\n\nusage: /logging")
	post("/logging?nope=debug", 400, "error: unknown logger name\n")
	post("/logging?paths=http:off,nope:info", 400, "  http: error\n") // nothing was changed
	post("/logging?level=info&http=info", 400, "error: invalid number of parameters\n")
}

type layered struct{ set map[string]string }

func (l *layered) Layers() []string { return []string{"static", "admin"} }
func (l *layered) Entries() []RuntimeEntry {
	return []RuntimeEntry{{"b", []string{"", "2"}, "2"}, {"a", []string{"1", ""}, "1"}}
}
func (l *layered) Modify(v map[string]string) error { l.set = v; return nil }

func TestRuntime(t *testing.T) {
	t.Parallel()
	l := &layered{}
	f := newFixture(t, func(o *Options) { o.Runtime = l })
	var got struct {
		Entries map[string]struct {
			Final  string   `json:"final_value"`
			Values []string `json:"layer_values"`
		} `json:"entries"`
		Layers []string `json:"layers"`
	}
	if err := json.Unmarshal([]byte(f.get(t, "/runtime", http.StatusOK)), &got); err != nil {
		t.Fatal(err)
	}
	if got.Entries["b"].Final != "2" || len(got.Entries["a"].Values) != 2 || len(got.Layers) != 2 {
		t.Error(got)
	}
	if w := f.do(http.MethodPost, "/runtime_modify?x=1&y="); w.Code != 200 {
		t.Error(w.Code)
	}
	if diff := cmp.Diff(map[string]string{"x": "1", "y": ""}, l.set); diff != "" {
		t.Error(diff)
	}
}

type accessLog struct {
	mu    sync.Mutex
	lines []string
}

func (a *accessLog) Log(in *stream.Info) {
	path, _ := in.Request.Get(":path")
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lines = append(a.lines, path+" "+http.StatusText(in.Status))
}

func TestServes(t *testing.T) {
	t.Parallel()
	al := &accessLog{}
	f := newFixture(t, func(o *Options) { o.AccessLogs = []AccessLog{al} })
	dir := t.TempDir()
	for name, pipe := range map[string]string{"tcp": "", "unix": filepath.Join(dir, "admin.sock")} {
		l, err := Listen(t.Context(), "127.0.0.1:0", pipe, 0o600)
		if err != nil {
			t.Fatal(name, err)
		}
		s := New(f.options)
		s.Start(l, func(err error) { t.Error(err) })
		tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, l.Addr().Network(), l.Addr().String())
		}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/ready", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: tr}).Do(req)
		if err != nil {
			t.Fatal(name, err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != "LIVE\n" || len(resp.TransferEncoding) != 1 {
			t.Errorf("%s: %q %v", name, body, resp.TransferEncoding)
		}
		for key, want := range map[string]string{
			"content-type": typeText, "cache-control": "no-cache, max-age=0",
			"x-content-type-options": "nosniff", "server": "envoy",
		} {
			if got := resp.Header.Get(key); got != want {
				t.Errorf("%s: %s: %q", name, key, got)
			}
		}
		path := filepath.Join(dir, "address-"+name)
		if err := WriteAddress(path, l); err != nil {
			t.Error(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != l.Addr().String() {
			t.Errorf("%s %v", b, err)
		}
		if info, err := os.Stat(pipe); pipe != "" && (err != nil || info.Mode().Perm() != 0o600) {
			t.Error("mode", err)
		}
		tr.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
	if diff := cmp.Diff([]string{"/ready OK", "/ready OK"}, al.lines); diff != "" {
		t.Error(diff)
	}
	if err := WriteAddress(filepath.Join(dir, "no", "such"), nil); err == nil {
		t.Error("no error for a directory that isn't there")
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: pipe})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), "", pipe, 0); err == nil {
		t.Error("took a socket that is in use")
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	again, err := Listen(t.Context(), "", pipe, 0)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"/stats?filter=(", "/stats?filter=%zz", "/stats?usedonly&&=&filter", "/stats?filter=a{1000}{1000}",
		"/stats?format=json&histogram_buckets=detailed", "/config_dump?resource=static_clusters&mask=,,.a..b",
		"/config_dump?mask=bootstrap.node.id.x", "/config_dump?name_regex=[", "/config_dump?resource=@type",
		"/clusters?filter=\\", "/clusters?format=json&filter=.", "/logging?paths=:,:", "/logging?=", "/logging?paths=a",
		"/runtime_modify?=&a", "/drain_listeners?graceful=1", "/init_dump?mask=x", "/stats/prometheus?filter=^$", "/%00", "//",
	} {
		f.Add(s)
	}
	fx := newFixture(f, nil)
	fx.fill()
	f.Fuzz(func(t *testing.T, target string) {
		path, rawQuery, _ := strings.Cut(target, "?")
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			r := httptest.NewRequest(method, "/", nil)
			r.URL.Path, r.URL.RawQuery = path, rawQuery
			w := httptest.NewRecorder()
			fx.ServeHTTP(w, r)
			if ct := w.Header()["Content-Type"]; len(ct) == 1 && ct[0] == typeJSON && !json.Valid(w.Body.Bytes()) {
				t.Errorf("%s %s: not JSON: %s", method, target, w.Body)
			}
		}
	})
}
