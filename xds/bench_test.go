package xds

import (
	"fmt"
	"runtime"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"sidecar/internal/config/source"
)

// accepting takes everything and keeps nothing.
type accepting struct{ n int }

func (a *accepting) Apply(u *source.Update) {
	a.n += len(u.Resources)
	for _, d := range u.Resources {
		d.Done(nil)
	}
}

func (*accepting) Unavailable(error) {}

func benchFeed(tb testing.TB) (*feed, *accepting) {
	tb.Helper()
	c := New(Config{})
	f := newFeed(c, kindOf(source.ClusterType))
	f.port = &silent{}
	w := &accepting{}
	f.all = []*subscription{{c: c, feed: f, wildcard: true, spec: source.Spec{Watcher: w}}}
	return f, w
}

func benchCluster(i int) *clusterv3.Cluster {
	fields := map[string]*structpb.Value{}
	for j := range 5 {
		fields[fmt.Sprintf("key-%d", j)] = structpb.NewStringValue("value")
	}
	return &clusterv3.Cluster{
		Name:        fmt.Sprintf("outbound|80||service-%d.default.svc.cluster.local", i),
		AltStatName: fmt.Sprintf("outbound|80||service-%d.default.svc.cluster.local;", i),
		Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			"istio": {Fields: fields},
		}},
	}
}

func benchResponse(tb testing.TB, n int) *response {
	tb.Helper()
	resp := &response{version: "1", sotw: true}
	k := kindOf(source.ClusterType)
	for i := range n {
		raw, err := proto.Marshal(benchCluster(i)) // maps in random order
		if err != nil {
			tb.Fatal(err)
		}
		it := item{name: k.nameOf(raw), version: "1", raw: raw, wire: wireDigest(raw)}
		resp.items = append(resp.items, it)
	}
	return resp
}

func push(f *feed, resp *response) {
	f.apply(resp)
	for g := f.c.take(); g != nil; g = f.c.take() {
		g()
	}
}

func BenchmarkPushSameBytes(b *testing.B) {
	f, w := benchFeed(b)
	resp := benchResponse(b, 1000)
	push(f, resp)
	b.ReportAllocs()
	for b.Loop() {
		push(f, resp)
	}
	if w.n != 1000 {
		b.Fatalf("%d deliveries", w.n)
	}
}

func BenchmarkPushSameMeaning(b *testing.B) {
	f, w := benchFeed(b)
	push(f, benchResponse(b, 1000))
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		resp := benchResponse(b, 1000)
		b.StartTimer()
		push(f, resp)
	}
	if w.n != 1000 {
		b.Fatalf("%d deliveries", w.n)
	}
}

// TestSize_Resource bounds what the client itself holds for a resource beside its bytes.
func TestSize_Resource(t *testing.T) {
	const n, limit = 1000, 700
	f, _ := benchFeed(t)
	var before, after runtime.MemStats
	resp := benchResponse(t, n)
	runtime.GC()
	runtime.ReadMemStats(&before)
	push(f, resp)
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(resp)
	runtime.KeepAlive(f)
	per := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n
	t.Logf("%d bytes a resource", per)
	if per > limit {
		t.Fatalf("%d bytes a resource, at most %d", per, limit)
	}
}
