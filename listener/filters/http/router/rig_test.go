package router

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/pool"
	"sidecar/internal/buf"
	"sidecar/internal/config"
	"sidecar/internal/wire"
	"sidecar/listener/route"
)

// rig is a router over real clusters, whose connections have a codec that the test plays; the test is
// the connection manager, too.
type rig struct {
	t        testing.TB
	cfg      *Config
	clusters *cluster.Manager
	store    *stats.Store
	table    *route.Table
	streams  chan *upstream
	random   atomic.Uint64
	quiet    bool // nothing is written down

	mon    stream.Monitor
	info   stream.Info
	filter *Filter
	entry  *route.Entry

	mu        sync.Mutex // guards below
	log       []string
	arms      map[uint8]time.Duration
	committed bool
	reply     header.Map
	body      string
}

const wait = 10 * time.Second

// newRig makes a router for a route (YAML of a RouteAction) and clusters: "c" unless others are given.
func newRig(tb testing.TB, action string, clusters ...string) *rig {
	tb.Helper()
	r := &rig{t: tb, store: stats.New(), streams: make(chan *upstream, 16), arms: map[uint8]time.Duration{}}
	r.clusters = cluster.NewManager(cluster.Options{
		Ctx: context.WithoutCancel(tb.Context()), Scope: r.store.Root(), Log: slog.New(slog.DiscardHandler),
		Concurrency: 1, Random: func() uint64 { return 0 },
		NewCodec: func(conn *wire.Conn, _ *cluster.HTTPOptions, h pool.Handler) pool.Codec {
			return &upstream{r: r, conn: conn, h: h, headed: make(chan struct{}, 64)}
		},
	})
	tb.Cleanup(r.clusters.Close)
	if len(clusters) == 0 {
		clusters = []string{oneHost("c", r.listen())}
	}
	for _, y := range clusters {
		m := &clusterv3.Cluster{}
		r.parse(strings.NewReplacer("@", r.listen(), "#", r.listen()).Replace(y), m)
		if err := r.clusters.AddStatic(m); err != nil {
			tb.Fatal(err)
		}
	}
	cfg, err := Compile(&routerv3.Router{}, filter.Context{Scope: r.store.Root(), StatPrefix: "http.x."},
		Env{Clusters: r.clusters, Random: r.random.Load, LocalAddress: "10.9.9.9"})
	if err != nil {
		tb.Fatal(err)
	}
	r.cfg = cfg
	if action == "" {
		action = "{cluster: c}"
	}
	rc := &routev3.RouteConfiguration{}
	r.parse("name: r\nvirtual_hosts: [{name: v, domains: ['*'], include_request_attempt_count: true, "+
		"include_is_timeout_retry_header: true, routes: [{match: {prefix: /}, route: "+action+"}]}]", rc)
	if r.table, err = route.Compile(rc, route.Env{}); err != nil {
		tb.Fatal(err)
	}
	return r
}

func oneHost(name, port string) string {
	return fmt.Sprintf("{name: %s, connect_timeout: 5s, load_assignment: {cluster_name: %s, endpoints: [{lb_endpoints: [%s]}]}}",
		name, name, endpoint(port))
}

func endpoint(port string) string {
	return "{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: " + port + "}}}}"
}

func (r *rig) parse(yaml string, m proto.Message) {
	r.t.Helper()
	if _, err := config.Parse("test", config.YAML, []byte(yaml), m, config.RejectUnknown); err != nil {
		r.t.Fatalf("%v\n%s", err, yaml)
	}
}

// listen takes connections, and holds them; it returns the port.
func (r *rig) listen() string {
	r.t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(r.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				var b [1]byte
				for {
					if _, err := c.Read(b[:]); err != nil {
						_ = c.Close()
						return
					}
				}
			})
		}
	})
	r.t.Cleanup(func() { _ = l.Close(); r.clusters.Close(); wg.Wait() })
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func (r *rig) logf(format string, args ...any) {
	if r.quiet {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, fmt.Sprintf(format, args...))
}

func (r *rig) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := strings.Join(r.log, "\n")
	r.log = nil
	return s
}

func (r *rig) want(want ...string) {
	r.t.Helper()
	if got := r.take(); got != strings.Join(want, "\n") {
		r.t.Errorf("got\n  %s\nwant\n  %s", strings.ReplaceAll(got, "\n", "\n  "), strings.Join(want, "\n  "))
	}
}

func (r *rig) stat(name string) int64 {
	var value int64
	r.store.Each(false, func(s *stats.Sample) {
		if string(s.Name) != name {
			return
		}
		if value = s.Gauge(); s.Kind == stats.KindCounter {
			value = int64(s.Counter())
		}
	})
	return value
}

// inside runs f inside the stream and waits for it.
func (r *rig) inside(f func(t *stream.Turn)) {
	done := make(chan struct{})
	stream.Do(func(t *stream.Turn) {
		r.mon.Post(t, r.mon.Gen(), stream.Event{To: caller{}, Ref: func(t *stream.Turn) { f(t); close(done) }})
	})
	select {
	case <-done:
	case <-time.After(wait):
		r.t.Error("the stream is stuck")
	}
}

type caller struct{}

func (caller) Receive(t *stream.Turn, e *stream.Event) {
	if f, ok := e.Ref.(func(*stream.Turn)); ok {
		f(t)
	}
}

// request begins a stream with a head of "name: value" lines over GET / to host a.
func (r *rig) request(end bool, lines ...string) {
	r.t.Helper()
	r.inside(func(t *stream.Turn) { r.begin(t, end, lines...) })
}

func (r *rig) begin(t *stream.Turn, end bool, lines ...string) {
	h := &header.Map{}
	h.AddID(header.Authority, "a:1")
	h.AddID(header.Path, "/")
	h.AddID(header.Method, "GET")
	h.Add("x-forwarded-proto", "http")
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Set(name, value)
	}
	r.info.Reset(t.Now(), &stream.ConnInfo{})
	r.info.Request = h
	if r.entry = r.table.Match(h, &r.info, 0); r.entry != nil {
		r.info.Cluster = r.entry.Cluster(h)
	}
	f, ok := r.cfg.NewTerminal(r).(*Filter)
	if !ok {
		r.t.Error("not a filter")
	}
	r.filter = f
	f.OnRequestHeaders(t, h, end)
}

func (r *rig) data(s string, end bool) {
	r.inside(func(t *stream.Turn) {
		var b buf.Buffer
		b.AppendString(s)
		r.filter.OnRequestData(t, &b, end)
		b.Reset()
	})
}

// fire lets a deadline pass; it must be armed.
func (r *rig) fire(which uint8) {
	r.t.Helper()
	r.inside(func(t *stream.Turn) {
		r.mu.Lock()
		_, armed := r.arms[which]
		delete(r.arms, which)
		r.mu.Unlock()
		if !armed {
			r.t.Errorf("deadline %d is not armed", which)
		}
		r.filter.OnDeadline(t, which)
	})
}

func (r *rig) armed(which uint8) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.arms[which]
}

// destroy ends the stream.
func (r *rig) destroy() {
	r.inside(r.end)
}

func (r *rig) end(t *stream.Turn) {
	r.filter.OnLog(t, &r.info)
	r.filter.OnDestroy(t)
	r.mon.Retire()
}

// next waits for the stream of the next attempt, with what there was to send sent.
func (r *rig) next() *upstream {
	r.t.Helper()
	select {
	case u := <-r.streams:
		r.inside(func(*stream.Turn) {})
		return u
	case <-time.After(wait):
		r.t.Fatalf("no attempt; so far:\n%s", r.take())
		return nil
	}
}

// The rig as filter.Terminal.

func (r *rig) Info() *stream.Info                             { return &r.info }
func (r *rig) Held(filter.Direction) *buf.Buffer              { return nil }
func (r *rig) AddTrailers(filter.Direction) *header.Map       { return nil }
func (r *rig) Watermark(*stream.Turn, filter.Direction, bool) {}
func (r *rig) Pause(filter.Direction) filter.Resume           { return filter.Resume{} }
func (r *rig) ClearRouteCache()                               {}
func (r *rig) RouteConfig() any                               { return nil }
func (r *rig) RespondInterim(_ *stream.Turn, h *header.Map) {
	r.logf("interim %s", h.Value(header.Status))
}
func (r *rig) RespondTrailers(*stream.Turn, *header.Map) { r.logf("down.trailers") }
func (r *rig) PauseRequest(_ *stream.Turn, on bool)      { r.logf("pause %t", on) }

func (r *rig) Route() filter.Route {
	if r.entry == nil {
		return nil
	}
	return r.entry
}

func (r *rig) Reply(_ *stream.Turn, p *filter.Reply) {
	r.reply.Reset()
	if p.Headers != nil {
		p.Headers(&r.reply)
	}
	r.body = p.Body
	// Last, since tests wait for it.
	r.logf("reply %d %s %s", p.Status, p.Flag, p.Details)
}

func (r *rig) Reset(_ *stream.Turn, f *stream.Fault) { r.logf("reset %s %s", f.Flag, f.Details) }

func (r *rig) RespondHeaders(_ *stream.Turn, h *header.Map, end bool) {
	r.mu.Lock()
	r.committed = true
	r.mu.Unlock()
	if !r.quiet {
		r.logf("down.headers %s%s", h.Value(header.Status), endText(end))
	}
}

func (r *rig) RespondData(_ *stream.Turn, p []byte, end bool) {
	r.logf("down.data %s%s", p, endText(end))
}

func (r *rig) Target(x stream.Receiver) stream.Target {
	return stream.Target{M: &r.mon, To: x, Gen: r.mon.Gen()}
}

func (r *rig) Arm(_ *stream.Turn, which uint8, d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d == 0 {
		delete(r.arms, which)
		return
	}
	r.arms[which] = d
}

func (r *rig) Committed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.committed
}

func endText(end bool) string {
	if end {
		return " end"
	}
	return ""
}

// upstream is the codec of one connection, and the encoder of its streams.
type upstream struct {
	r    *rig
	conn *wire.Conn
	h    pool.Handler
	// headed has a token for each head that was sent.
	headed chan struct{}

	mu     sync.Mutex // guards below
	target stream.Target
	head   header.Map
	active bool
	reset  bool
	gone   bool
	full   bool
	begun  int
}

func (u *upstream) NewStream(_ *stream.Turn, target stream.Target) stream.Encoder {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.gone {
		return nil
	}
	u.target, u.active, u.reset = target, true, false
	u.begun++
	if !u.r.quiet {
		u.r.streams <- u
	}
	return u
}

func (u *upstream) Close(*stream.Turn) { u.conn.Close() }

func (u *upstream) Serve() {
	t := stream.NewTurn()
	for {
		b, _, err := u.conn.Read(64, func() bool { return true })
		if err != nil {
			break
		}
		b.Put()
	}
	u.conn.Close()
	u.mu.Lock()
	u.gone = true
	u.mu.Unlock()
	u.h.OnGone(t, pool.Gone{Local: true})
	t.End()
}

func (u *upstream) EncodeInterim(*stream.Turn, *header.Map) {}

func (u *upstream) EncodeHeaders(_ *stream.Turn, h *header.Map, end bool) {
	if u.r.quiet {
		return
	}
	u.mu.Lock()
	u.head.CopyFrom(h)
	u.mu.Unlock()
	u.r.logf("up.headers%s", endText(end))
	u.headed <- struct{}{}
}

func (u *upstream) EncodeData(_ *stream.Turn, p []byte, end bool) {
	u.r.logf("up.data %s%s", p, endText(end))
}

func (u *upstream) EncodeTrailers(*stream.Turn, *header.Map) { u.r.logf("up.trailers") }
func (u *upstream) Pause(_ *stream.Turn, on bool)            { u.r.logf("up.pause %t", on) }

func (u *upstream) Full() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.full
}

func (u *upstream) setFull(on bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.full = on
}

func (u *upstream) Reset(*stream.Turn, *stream.Fault) {
	u.mu.Lock()
	u.reset = true
	u.mu.Unlock()
	u.r.logf("up.reset")
	u.conn.Close()
}

func (u *upstream) Release(t *stream.Turn) {
	u.mu.Lock()
	idle := !u.reset && !u.gone
	u.active = false
	u.mu.Unlock()
	if idle {
		u.h.OnIdle(t)
	}
}

func (u *upstream) Protocol() stream.Protocol { return stream.HTTP11 }
func (u *upstream) Traffic() stream.Traffic   { return stream.Traffic{} }

// value returns a header of the request as it was sent.
func (u *upstream) value(name string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	v, _ := u.head.Get(name)
	return strings.Clone(v)
}

// post posts an event of the stream and waits until it was handled.
func (u *upstream) post(e stream.Event) {
	u.send(e)
	u.r.inside(func(*stream.Turn) {})
}

// send posts an event of the stream.
func (u *upstream) send(e stream.Event) {
	u.mu.Lock()
	target := u.target
	u.mu.Unlock()
	stream.Do(func(t *stream.Turn) { target.Post(t, e) })
}

func (u *upstream) headers(end bool, status string, lines ...string) {
	h := &header.Map{}
	h.Add(":status", status)
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(name, value)
	}
	u.post(stream.Event{Kind: stream.EventHeaders, Map: h, End: end})
}

func (u *upstream) data(s string, end bool) {
	u.post(stream.Event{Kind: stream.EventData, Data: []byte(s), End: end})
}

func (u *upstream) fail(reason stream.Reason, flag stream.Flag) {
	u.post(stream.Event{Kind: stream.EventReset, Fault: &stream.Fault{Side: stream.Upstream, Reason: reason, Flag: flag}})
}
