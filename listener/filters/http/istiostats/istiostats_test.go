package istiostats

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"sidecar/api/filter"
	"sidecar/api/header"
	statspb "sidecar/api/sidecar/istio/stats"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/config/configtest"
	"sidecar/internal/workload"
	"sidecar/listener/filters/http/filtertest"
)

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, fields, metricFields)
}

func env(t testing.TB, store *stats.Store) Env {
	t.Helper()
	n, err := structpb.NewStruct(map[string]any{
		"WORKLOAD_NAME": "app", "NAMESPACE": "ns", "CLUSTER_ID": "k",
		"LABELS": map[string]any{"app": "app", "version": "v1", "service.istio.io/canonical-name": "app"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return Env{NodeID: "id", Node: n, Store: store, Version: "1.31"}
}

func build(t testing.TB, store *stats.Store, direction int32, yaml string) (*Config, error) {
	t.Helper()
	m := &statspb.PluginConfig{}
	if _, err := config.Parse("stats", config.YAML, []byte(yaml), m, config.RejectUnknown); err != nil {
		t.Fatal(err)
	}
	return compile(m, direction, env(t, store))
}

func request() *stream.Info {
	i := &stream.Info{}
	i.Reset(time.Time{}, &stream.ConnInfo{})
	i.Complete = 12 * time.Millisecond
	i.Status, i.Request, i.Response = 200, filtertest.Fields(":authority: web.ns", ":path: /p", "x-a: b"), &header.Map{}
	i.Cluster = "outbound|80||web.ns.svc"
	i.ClusterMetadata = map[string]map[string]any{"istio": {"services": []any{map[string]any{"host": "web.ns.svc", "name": "web", "namespace": "ns"}}}}
	i.FilterState = map[string]stream.FilterObject{workload.Upstream: {Value: &workload.Workload{Name: "web", Namespace: "ns2"}}}
	i.DownstreamWire = stream.Traffic{WireReceived: 100, WireSent: 200}
	return i
}

// names lists the used stats of a metric.
func names(s *stats.Store, metric string) (out []string) {
	s.Each(true, func(p *stats.Sample) {
		if base, _ := p.Base(); base == "istiocustom.istio_"+metric {
			out = append(out, strings.TrimPrefix(string(p.Name), base+"."))
		}
	})
	return out
}

const source = "reporter.source.source_workload.app.source_canonical_service.app.source_canonical_revision.v1." +
	"source_workload_namespace.ns.source_principal.unknown.source_app.app.source_version.v1.source_cluster.k."

func TestHTTP(t *testing.T) {
	t.Parallel()
	store := stats.New()
	c, err := build(t, store, 2, "{}")
	if err != nil {
		t.Fatal(err)
	}
	(&HTTP{c}).OnLog(nil, request())
	want := source + "destination_workload.web.destination_workload_namespace.ns2.destination_principal.unknown." +
		"destination_app.unknown.destination_version.unknown.destination_service.web.ns.svc.destination_canonical_service.unknown." +
		"destination_canonical_revision.latest.destination_service_name.web.destination_service_namespace.ns.destination_cluster.unknown." +
		"request_protocol.http.response_flags.-.connection_security_policy.unknown.response_code.200.grpc_response_status."
	for _, metric := range []string{"requests_total", "request_duration_milliseconds", "request_bytes", "response_bytes"} {
		if got := names(store, metric); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q", metric, got)
		}
	}
	if got := names(store, "build"); len(got) != 1 || got[0] != "component.proxy.tag.1.31" {
		t.Errorf("%q", got)
	}
	store2 := stats.New()
	in, err := build(t, store2, 1, "{}")
	if err != nil {
		t.Fatal(err)
	}
	i := request()
	i.Conn.TLS = &stream.TLSInfo{PeerPresented: true, Peer: stream.CertInfo{URISAN: []string{"spiffe://p"}}}
	i.Request.Add("content-type", "application/grpc")
	i.ResponseTrailers = filtertest.Fields("grpc-status: 5")
	(&HTTP{in}).OnLog(nil, i)
	got := strings.Join(names(store2, "requests_total"), " ")
	for _, w := range []string{
		"reporter.destination.", "source_principal.spiffe://p.", "connection_security_policy.mutual_tls", "request_protocol.grpc",
		"grpc_response_status.5", "destination_workload.app.",
	} {
		if !strings.Contains(got, w) {
			t.Errorf("no %s in %s", w, got)
		}
	}
}

func TestOverrides(t *testing.T) {
	t.Parallel()
	store := stats.New()
	c, err := build(t, store, 2, `{metrics: [
	  {tags_to_remove: [source_app, destination_version], dimensions: {a: "'x'", b: "request.headers['x-a']", request_protocol: "request.method", c: nothing}},
	  {name: requests_total, dimensions: {n: "node.metadata['WORKLOAD_NAME']"}},
	  {name: request_bytes, drop: true}]}`)
	if err != nil {
		t.Fatal(err)
	}
	(&HTTP{c}).OnLog(nil, request())
	got := strings.Join(names(store, "requests_total"), " ")
	if strings.Contains(got, "source_app") || !strings.Contains(got, ".request_protocol.unknown.") || !strings.HasSuffix(got, ".a.x.b.b.c.unknown.n.app") {
		t.Error(got)
	}
	if got := strings.Join(names(store, "response_bytes"), " "); strings.Contains(got, ".n.app") || !strings.Contains(got, ".a.x") {
		t.Error(got)
	}
	if got := names(store, "request_bytes"); len(got) != 0 {
		t.Error(got)
	}
	if _, err := build(t, store, 2, `{metrics: [{dimensions: {a: "request.size > 5"}}]}`); err == nil ||
		!strings.Contains(err.Error(), `metrics[0].dimensions["a"]: the expression`) {
		t.Errorf("%v", err)
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	store := stats.New()
	c, err := build(t, store, 2, "{}")
	if err != nil {
		t.Fatal(err)
	}
	slot := &workload.Slot{}
	upstream := &stream.ConnInfo{FilterState: map[string]stream.FilterObject{workload.Upstream: {Value: slot}}}
	info := request()
	info.Request, info.FilterState, info.Upstream.Conn = nil, nil, upstream
	rx := uint64(10)
	f, _ := (&Network{c}).NewNetworkFilter(&filter.Connection{Info: info.Conn, Moved: func() (uint64, uint64) { return rx, 7 }}).(*connection)
	f.OnNewConnection(nil)
	f.OnUpstreamKnown(info)
	f.report(false)
	if got := names(store, "tcp_connections_opened_total"); len(got) != 0 {
		t.Errorf("reported before the peer is known: %q", got)
	}
	slot.Settle(&workload.Workload{Name: "db"})
	f.report(false)
	rx = 15
	f.OnConnectionEnd(info)
	for metric, want := range map[string]uint64{
		"tcp_connections_opened_total": 1, "tcp_connections_closed_total": 1, "tcp_received_bytes_total": 15, "tcp_sent_bytes_total": 7,
	} {
		n := uint64(0)
		store.Each(true, func(p *stats.Sample) {
			if base, _ := p.Base(); base == "istiocustom.istio_"+metric {
				n += p.Counter()
				if !strings.Contains(string(p.Name), ".destination_workload.db.") || strings.Contains(string(p.Name), "response_code") {
					t.Errorf("%s", p.Name)
				}
			}
		})
		if n != want {
			t.Errorf("%s: %d", metric, n)
		}
	}
}

func TestAllocs(t *testing.T) {
	store := stats.New()
	c, err := build(t, store, 2, "{}")
	if err != nil {
		t.Fatal(err)
	}
	h, i := &HTTP{c}, request()
	if n := testing.AllocsPerRun(100, func() { h.OnLog(nil, i) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	store := stats.New()
	c, err := build(t, store, 2, "{rotation_interval: 0.000000001s, graceful_deletion_interval: 1s}")
	if err != nil {
		t.Fatal(err)
	}
	c.ticker.grace = 0
	h := &HTTP{c}
	h.OnLog(nil, request())
	other := request()
	other.Status = 500
	for range 5 {
		h.OnLog(nil, other)
	}
	if got := names(store, "requests_total"); len(got) != 1 || !strings.Contains(got[0], "response_code.500") {
		t.Errorf("%q", got)
	}
}
