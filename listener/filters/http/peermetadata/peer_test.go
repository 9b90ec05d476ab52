package peermetadata

import (
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	"sidecar/api/stats"
	"sidecar/internal/config/configtest"
	"sidecar/internal/workload"
	"sidecar/listener/filters/http/filtertest"
)

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, fields, discoveryFields, propagationFields, headersFields)
}

const (
	inbound  = "{downstream_discovery: [{istio_headers: {}}], downstream_propagation: [{istio_headers: {}}]}"
	outbound = "{upstream_discovery: [{istio_headers: {}}], upstream_propagation: [{istio_headers: {skip_external_clusters: true}}]}"
)

func env(t *testing.T) Env {
	t.Helper()
	node, err := structpb.NewStruct(map[string]any{"WORKLOAD_NAME": "me"})
	if err != nil {
		t.Fatal(err)
	}
	return Env{NodeID: "my-id", Node: node, ClusterMetadata: func(name string) map[string]map[string]any {
		switch name {
		case "external":
			return map[string]map[string]any{"istio": {"external": true}}
		case "off":
			return map[string]map[string]any{"istio": {"disable_mx": true}}
		}
		return nil
	}}
}

func peer() string { return (&workload.Workload{Name: "they"}).Header() }

// TestInbound answers only who has introduced itself, and keeps the introduction from the application.
func TestInbound(t *testing.T) {
	t.Parallel()
	me := (&workload.Workload{Name: "me"}).Header()
	for _, tc := range []struct {
		name    string
		request []string
		answer  string
		known   bool
	}{
		{"nobody", nil, ":status: 200\n", false},
		{
			"a peer",
			[]string{"x-envoy-peer-metadata-id: i", "x-envoy-peer-metadata: " + peer()},
			":status: 200\nx-envoy-peer-metadata-id: my-id\nx-envoy-peer-metadata: " + me + "\n", true,
		},
		{
			"an id", []string{"x-envoy-peer-metadata-id: i"}, ":status: 200\nx-envoy-peer-metadata-id: my-id\n", false,
		},
		{
			"no message", []string{"x-envoy-peer-metadata: !"}, ":status: 200\nx-envoy-peer-metadata: " + me + "\n", false,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			factory, err := filtertest.Compile(t, Entry(env(t)), stats.New(), inbound)
			if err != nil {
				t.Fatal(err)
			}
			s := filtertest.NewStream()
			f := factory.NewFilter(s)
			h := filtertest.Fields(append([]string{":path: /"}, tc.request...)...)
			s.Request(f, h, nil, nil)
			if got := filtertest.Text(h); got != ":path: /\n" {
				t.Errorf("the application gets %s", got)
			}
			w := workload.Of(s.Record.FilterState, workload.Downstream)
			if (w != nil) != tc.known || tc.known && w.Name != "they" {
				t.Errorf("peer %+v", w)
			}
			h = filtertest.Fields(":status: 200")
			s.Response(f, h, nil, nil)
			if got := filtertest.Text(h); got != tc.answer {
				t.Errorf("answer %s", got)
			}
			s.Destroy(f)
		})
	}
}

func TestOutbound(t *testing.T) {
	t.Parallel()
	for cluster, told := range map[string]bool{
		"c": true, "external": false, "off": false, "PassthroughCluster": false,
	} {
		factory, err := filtertest.Compile(t, Entry(env(t)), stats.New(), outbound)
		if err != nil {
			t.Fatal(err)
		}
		s := filtertest.NewStream()
		s.Cluster = cluster
		f := factory.NewFilter(s)
		h := filtertest.Fields(":path: /")
		s.Request(f, h, nil, nil)
		if _, ok := h.Get("x-envoy-peer-metadata"); ok != told {
			t.Errorf("%s: told %v", cluster, ok)
		}
		h = filtertest.Fields(":status: 200", "x-envoy-peer-metadata: "+peer(), "x-envoy-peer-metadata-id: i")
		s.Response(f, h, nil, nil)
		if got := filtertest.Text(h); got != ":status: 200\n" {
			t.Errorf("%s: the application gets %s", cluster, got)
		}
		if w := workload.Of(s.Record.FilterState, workload.Upstream); w == nil || w.Name != "they" {
			t.Errorf("%s: peer %+v", cluster, w)
		}
		s.Destroy(f)
	}
}
