package xds_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	"sidecar/api/stats"
	"sidecar/internal/config/source"
	"sidecar/xds"
	"sidecar/xds/transport"
	"sidecar/xds/xdstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// seen is one call of a watcher, in a form that is easy to compare.
type seen struct {
	resources map[string]string // name to detail
	removed   []string
	err       error // of Unavailable
}

// watcher records what it is given. A resource whose detail starts with "bad" is rejected, one that
// starts with "slow" is answered only by release.
type watcher struct {
	calls  chan seen
	detail func(*source.Delivery) string

	mu   sync.Mutex
	slow map[string]*source.Delivery // by detail
}

func newWatcher() *watcher {
	return &watcher{calls: make(chan seen, 1000), detail: detail, slow: map[string]*source.Delivery{}}
}

// detail is a field of each kind of resource that tests put a text in.
func detail(d *source.Delivery) string {
	switch m := d.Message.(type) {
	case *listenerv3.Listener:
		return m.GetStatPrefix()
	case *clusterv3.Cluster:
		return m.GetAltStatName()
	case *routev3.RouteConfiguration:
		return strings.Join(m.GetInternalOnlyHeaders(), ",")
	case *endpointv3.ClusterLoadAssignment:
		return fmt.Sprint(m.GetPolicy().GetOverprovisioningFactor().GetValue())
	}
	return fmt.Sprintf("%T", d.Message)
}

func (w *watcher) Apply(u *source.Update) {
	s := seen{resources: map[string]string{}, removed: u.Removed}
	for _, d := range u.Resources {
		text := w.detail(d)
		s.resources[d.Name] = text
		switch {
		case strings.HasPrefix(text, "bad"):
			d.Done(errors.New("field.path: is " + text))
		case strings.HasPrefix(text, "panic"):
			panic(text)
		case strings.HasPrefix(text, "slow"):
			w.mu.Lock()
			w.slow[text] = d
			w.mu.Unlock()
		default:
			d.Done(nil)
		}
	}
	w.calls <- s
}

func (w *watcher) Unavailable(err error) { w.calls <- seen{err: err} }

func (w *watcher) release(text string, err error) {
	w.mu.Lock()
	d := w.slow[text]
	w.mu.Unlock()
	d.Done(err)
}

func (w *watcher) next(ctx context.Context, t *testing.T) seen {
	t.Helper()
	select {
	case s := <-w.calls:
		return s
	case <-ctx.Done():
		t.Fatal("the watcher was not called")
		return seen{}
	}
}

// want checks the next call: resources as "name=detail", removed ones as "-name".
func (w *watcher) want(ctx context.Context, t *testing.T, want ...string) {
	t.Helper()
	s := w.next(ctx, t)
	n := 0
	for _, item := range want {
		if name, ok := strings.CutPrefix(item, "-"); ok {
			if !contains(s.removed, name) {
				t.Fatalf("got %+v, want %q removed", s, name)
			}
			continue
		}
		n++
		name, text, _ := strings.Cut(item, "=")
		if got, ok := s.resources[name]; !ok || got != text {
			t.Fatalf("got %+v, want %q", s, item)
		}
	}
	if s.err != nil || len(s.resources) != n || len(s.removed) != len(want)-n {
		t.Fatalf("got %+v, want %q", s, want)
	}
}

// quiet checks that no call is waiting.
func (w *watcher) quiet(t *testing.T) {
	t.Helper()
	select {
	case s := <-w.calls:
		t.Fatalf("unexpected call %+v", s)
	default:
	}
}

func contains(list []string, s string) bool {
	return slices.Contains(list, s)
}

func adsConfig(delta bool) *source.GRPC {
	return &source.GRPC{
		Delta: delta, Cluster: "xds_cluster", Authority: "xds_cluster",
		SetNodeOnFirstMessageOnly: true,
		BackOffBase:               10 * time.Millisecond, BackOffMax: 50 * time.Millisecond,
	}
}

func listener(name, text string) *listenerv3.Listener {
	return &listenerv3.Listener{Name: name, StatPrefix: text}
}

func cluster(name, text string) *clusterv3.Cluster {
	return &clusterv3.Cluster{Name: name, AltStatName: text}
}

func route(name string, text ...string) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{Name: name, InternalOnlyHeaders: text}
}

// rig is a client with a management server.
type rig struct {
	t      *testing.T
	ctx    context.Context
	srv    *xdstest.Server
	client *xds.Client
	stats  *stats.Store
	delta  bool
}

func newRig(t *testing.T, delta bool) *rig {
	t.Helper()
	r := &rig{t: t, ctx: testContext(t), srv: xdstest.New(t), stats: stats.New(), delta: delta}
	r.client = newClient(t, r.srv, delta, r.stats)
	return r
}

func newClient(t *testing.T, d transport.Dialer, delta bool, store *stats.Store) *xds.Client {
	t.Helper()
	c := xds.New(xds.Config{
		Node: xds.Node(&corev3.Node{Id: "node", Cluster: "here"}, []*corev3.Extension{{Name: "x"}}),
		ADS:  adsConfig(delta), Dialer: d, Stats: store.Root(),
		Log: slog.New(slog.DiscardHandler),
	})
	c.Start()
	t.Cleanup(c.Close)
	return c
}

func (r *rig) subscribe(url string, names ...string) (*watcher, *source.Stats, source.Subscription) {
	w, st := newWatcher(), &source.Stats{}
	sub := r.client.Subscribe(source.Spec{
		TypeURL: url, Names: names, Source: source.ADS(), Watcher: w, Stats: st,
	})
	return w, st, sub
}

func (r *rig) ack(url, version string) {
	r.t.Helper()
	if err := r.srv.WaitACK(r.ctx, url, version); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) nack(url, part string) xdstest.Event {
	r.t.Helper()
	e, err := r.srv.WaitNACK(r.ctx, url, part)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

func bothProtocols(t *testing.T, f func(t *testing.T, delta bool)) {
	for _, delta := range []bool{false, true} {
		name := "sotw"
		if delta {
			name = "delta"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, delta)
		})
	}
}

var _ transport.Dialer = dialFunc(nil)

type dialFunc func(context.Context, string) (net.Conn, error)

func (f dialFunc) DialCluster(ctx context.Context, name string) (net.Conn, error) {
	return f(ctx, name)
}

func seconds(n int64) *durationpb.Duration { return &durationpb.Duration{Seconds: n} }

var errBroken = errors.New("broken")

func newClientWithoutADS(t *testing.T) *xds.Client {
	t.Helper()
	c := xds.New(xds.Config{})
	c.Start()
	t.Cleanup(c.Close)
	return c
}

// waitFor yields until the condition holds: for counters, which tell nobody.
func waitFor(t *testing.T, ctx context.Context, cond func() bool) {
	t.Helper()
	for !cond() {
		if ctx.Err() != nil {
			t.Fatal("the condition did not come true")
		}
		runtime.Gosched()
	}
}
