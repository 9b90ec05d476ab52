package hcm

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/config"
	"sidecar/internal/wire"
	"sidecar/listener/route"
)

// rig is a connection manager over a codec that writes down what it is told, with scripted filters
// and a terminal filter that the test plays.
type rig struct {
	t     testing.TB
	cfg   *Config
	conn  *Conn
	turn  *stream.Turn
	quiet bool
	proto stream.Protocol // of the codec; HTTP/1.1 if none
	store *stats.Store

	enc     *fakeEncoder
	to      stream.Target
	up      *fakeUpstream
	scripts map[string]*script // by filter name

	mu    sync.Mutex // guards below, since timers run streams, too
	log   []string
	infos []stream.Info // of finished streams
}

// ended returns the records of finished streams.
func (r *rig) ended() []stream.Info {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.infos)
}

// script is what a filter does in each callback; nil continues.
type script struct {
	reqHeaders, respHeaders func(f *fakeFilter, t *stream.Turn, h *header.Map, end bool) filter.Action
	reqData, respData       func(f *fakeFilter, t *stream.Turn, b *buf.Buffer, end bool) filter.Action
	reqTrailers             func(f *fakeFilter, t *stream.Turn, h *header.Map) filter.Action
	respTrailers            func(f *fakeFilter, t *stream.Turn, h *header.Map) filter.Action
	onLog, onDestroy        func()
}

type clockFunc func(time.Time) string

func (f clockFunc) Date(t time.Time) string { return f(t) }

type fakeCodec struct {
	r      *rig
	closed chan struct{}
}

func (*fakeCodec) Serve(*stream.Turn)    {}
func (c *fakeCodec) Close(*stream.Turn)  { close(c.closed) }
func (*fakeCodec) Local() bool           { return true }
func (c *fakeCodec) Drain(*stream.Turn)  { c.r.logf("codec.drain") }
func (c *fakeCodec) GoAway(*stream.Turn) { c.r.logf("codec.goaway") }

const plainRoutes = `
name: r
virtual_hosts:
- {name: v, domains: ["*"], routes: [{name: rt, match: {prefix: /}, route: {cluster: c}}]}
`

// newRig compiles a connection manager of YAML, with a filter for each name.
func newRig(tb testing.TB, yaml string, filters ...string) *rig {
	tb.Helper()
	r := &rig{
		t: tb, turn: stream.NewTurn(), store: stats.New(), scripts: map[string]*script{},
	}
	m := &hcmv3.HttpConnectionManager{}
	if yaml == "" {
		yaml = "stat_prefix: t"
	}
	if !strings.Contains(yaml, "stat_prefix") {
		yaml = "stat_prefix: t\n" + yaml
	}
	if _, err := config.Parse("hcm", config.YAML, []byte(yaml), m, config.RejectUnknown); err != nil {
		tb.Fatal(err)
	}
	if m.GetRouteSpecifier() == nil {
		rc := &routev3.RouteConfiguration{}
		if _, err := config.Parse("rc", config.YAML, []byte(plainRoutes), rc, config.RejectUnknown); err != nil {
			tb.Fatal(err)
		}
		m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: rc}
	}
	for _, name := range filters {
		r.scripts[name] = &script{}
		m.HttpFilters = append(m.HttpFilters, httpFilter(tb, name, &wrapperspb.StringValue{Value: name}))
	}
	m.HttpFilters = append(m.HttpFilters, httpFilter(tb, "terminal", &wrapperspb.BoolValue{}))
	cfg, err := Compile(m, r.env())
	if err != nil {
		tb.Fatal(err)
	}
	cfg.streams = &buf.Pool[Stream]{New: newStream}
	cfg.accessLogs = []AccessLog{r}
	r.cfg = cfg
	r.dial()
	return r
}

func httpFilter(tb testing.TB, name string, m proto.Message) *hcmv3.HttpFilter {
	tb.Helper()
	a, err := anypb.New(m)
	if err != nil {
		tb.Fatal(err)
	}
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: a}}
}

func (r *rig) env() *Env {
	return &Env{
		Filters: r.table(), Scope: r.store.Root(), ListenerScope: r.store.Root().Sub("listener.l"),
		Log: slog.New(slog.DiscardHandler), Clock: clockFunc(func(time.Time) string { return "now" }),
		Random: func() uint64 { return 7 }, LocalAddress: "10.9.9.9", Cluster: "svc", Node: "node",
		BufferLimit: 8,
		Codec: func(*CodecOptions) NewCodec {
			return func(*wire.Conn, stream.ServerHandler, *stream.ConnInfo) Codec { return &fakeCodec{} }
		},
		CompileRoutes: func(rc *routev3.RouteConfiguration) (*route.Table, error) {
			return route.Compile(rc, route.Env{})
		},
	}
}

func (r *rig) table() *filter.Table {
	return filter.NewTable(
		filter.RegisterHTTP("script", &wrapperspb.StringValue{},
			func(_ *wrapperspb.StringValue, c filter.Context) (any, error) {
				return &fakeFactory{r, c.Name}, nil
			}),
		filter.RegisterHTTP("terminal", &wrapperspb.BoolValue{},
			func(*wrapperspb.BoolValue, filter.Context) (any, error) { return &fakeTerminalFactory{r}, nil }),
	)
}

// dial begins a connection.
func (r *rig) dial() {
	local, remote := netip.MustParseAddrPort("10.0.0.1:8080"), netip.MustParseAddrPort("192.0.2.7:5000")
	r.conn = &Conn{
		cfg: r.cfg, stats: r.cfg.stats, lstats: r.cfg.listenerStats, codec: &fakeCodec{r: r, closed: make(chan struct{})},
		info: stream.ConnInfo{
			Start: time.Now(), Local: stream.IPAddr(local), Remote: stream.IPAddr(remote), Direct: stream.IPAddr(remote),
		},
	}
	r.conn.describe()
}

func (r *rig) logf(format string, args ...any) {
	if r.quiet {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, fmt.Sprintf(format, args...))
}

// take returns what was logged since it was last called.
func (r *rig) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := strings.Join(r.log, "\n")
	r.log = nil
	return s
}

// Log implements AccessLog.
func (r *rig) Log(info *stream.Info) {
	c := *info
	c.Details = strings.Clone(c.Details)
	r.mu.Lock()
	r.infos = append(r.infos, c)
	r.mu.Unlock()
	r.logf("log %d %s %s", info.Status, info.Flags, info.Details)
}

// begin opens a stream, as a codec does with the first byte of a head.
func (r *rig) begin() {
	r.enc = &fakeEncoder{r: r, protocol: r.proto}
	r.to = r.conn.NewStream(r.turn, r.enc)
}

// head makes a request head of "name: value" lines over GET / to host a.
func head(lines ...string) *header.Map {
	h := &header.Map{}
	h.AddID(header.Authority, "a")
	h.AddID(header.Path, "/")
	h.AddID(header.Method, "GET")
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		switch {
		case strings.HasPrefix(l, "-"):
			h.Remove(l[1:])
		case name[0] == ':':
			h.Set(name, value)
		default:
			h.Add(name, value)
		}
	}
	return h
}

func (r *rig) post(e stream.Event) {
	r.to.Post(r.turn, e)
	r.turn.End()
}

// request opens a stream and posts its head.
func (r *rig) request(end bool, lines ...string) {
	r.begin()
	r.post(stream.Event{Kind: stream.EventHeaders, Map: head(lines...), End: end})
}

func (r *rig) data(s string, end bool) {
	r.post(stream.Event{Kind: stream.EventData, Data: []byte(s), End: end})
}

func (r *rig) trailers(lines ...string) {
	r.post(stream.Event{Kind: stream.EventTrailers, Map: fields(lines...)})
}

func fields(lines ...string) *header.Map {
	h := &header.Map{}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(name, value)
	}
	return h
}

// respond runs f inside the stream, as an event of the upstream does.
func (r *rig) inside(f func(t *stream.Turn)) {
	r.to.M.Post(r.turn, r.to.Gen, stream.Event{To: caller{}, Kind: stream.EventCall, Ref: f})
	r.turn.End()
}

type caller struct{}

func (caller) Receive(t *stream.Turn, e *stream.Event) {
	if f, ok := e.Ref.(func(*stream.Turn)); ok {
		f(t)
	}
}

func (r *rig) respHeaders(end bool, lines ...string) {
	h := fields(append([]string{":status: 200"}, lines...)...)
	r.inside(func(t *stream.Turn) { r.up.s.RespondHeaders(t, h, end) })
}

func (r *rig) respData(s string, end bool) {
	r.inside(func(t *stream.Turn) { r.up.s.RespondData(t, []byte(s), end) })
}

func (r *rig) respTrailers(lines ...string) {
	r.inside(func(t *stream.Turn) { r.up.s.RespondTrailers(t, fields(lines...)) })
}

func (r *rig) want(want ...string) {
	r.t.Helper()
	if got := r.take(); got != strings.Join(want, "\n") {
		r.t.Errorf("got\n  %s\nwant\n  %s", strings.ReplaceAll(got, "\n", "\n  "), strings.Join(want, "\n  "))
	}
}

type fakeEncoder struct {
	r        *rig
	full     bool
	protocol stream.Protocol
	last     header.Map // the last head
	released atomic.Bool
}

func (e *fakeEncoder) EncodeInterim(_ *stream.Turn, h *header.Map) {
	e.r.logf("enc.interim %s", h.Value(header.Status))
}

func (e *fakeEncoder) EncodeHeaders(_ *stream.Turn, h *header.Map, end bool) {
	if e.r.quiet {
		return
	}
	e.last.CopyFrom(h)
	e.r.logf("enc.headers %s%s", h.Value(header.Status), endText(end))
}

func (e *fakeEncoder) EncodeData(_ *stream.Turn, p []byte, end bool) {
	if !e.r.quiet {
		e.r.logf("enc.data %s%s", p, endText(end))
	}
}

func (e *fakeEncoder) EncodeTrailers(_ *stream.Turn, h *header.Map) {
	e.r.logf("enc.trailers %s", names(h))
}
func (e *fakeEncoder) Full() bool                        { return e.full }
func (e *fakeEncoder) Pause(_ *stream.Turn, on bool)     { e.r.logf("enc.pause %t", on) }
func (e *fakeEncoder) Reset(*stream.Turn, *stream.Fault) { e.r.logf("enc.reset") }
func (e *fakeEncoder) Traffic() stream.Traffic           { return stream.Traffic{} }

func (e *fakeEncoder) Release(*stream.Turn) {
	if e.released.Swap(true) {
		e.r.t.Error("released twice")
	}
}

func (e *fakeEncoder) Protocol() stream.Protocol {
	if e.protocol == stream.ProtocolNone {
		return stream.HTTP11
	}
	return e.protocol
}

func endText(end bool) string {
	if end {
		return " end"
	}
	return ""
}

func names(h *header.Map) string {
	var out []string
	for i := range h.Len() {
		n, v := h.At(i)
		out = append(out, n+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

type fakeFactory struct {
	r    *rig
	name string
}

func (f *fakeFactory) NewFilter(s filter.Stream) any {
	return &fakeFilter{r: f.r, name: f.name, s: s, do: f.r.scripts[f.name]}
}

// fakeFilter implements every callback.
type fakeFilter struct {
	r     *rig
	name  string
	s     filter.Stream
	do    *script
	count int
}

func (f *fakeFilter) OnRequestHeaders(t *stream.Turn, h *header.Map, end bool) filter.Action {
	f.r.logf("%s.req.headers%s", f.name, endText(end))
	if f.do.reqHeaders != nil {
		return f.do.reqHeaders(f, t, h, end)
	}
	return filter.Continue
}

func (f *fakeFilter) OnRequestData(t *stream.Turn, b *buf.Buffer, end bool) filter.Action {
	f.r.logf("%s.req.data %s%s", f.name, b.Bytes(), endText(end))
	if f.do.reqData != nil {
		return f.do.reqData(f, t, b, end)
	}
	return filter.Continue
}

func (f *fakeFilter) OnRequestTrailers(t *stream.Turn, h *header.Map) filter.Action {
	f.r.logf("%s.req.trailers", f.name)
	if f.do.reqTrailers != nil {
		return f.do.reqTrailers(f, t, h)
	}
	return filter.Continue
}

func (f *fakeFilter) OnResponseHeaders(t *stream.Turn, h *header.Map, end bool) filter.Action {
	f.r.logf("%s.resp.headers%s", f.name, endText(end))
	if f.do.respHeaders != nil {
		return f.do.respHeaders(f, t, h, end)
	}
	return filter.Continue
}

func (f *fakeFilter) OnResponseData(t *stream.Turn, b *buf.Buffer, end bool) filter.Action {
	f.r.logf("%s.resp.data %s%s", f.name, b.Bytes(), endText(end))
	if f.do.respData != nil {
		return f.do.respData(f, t, b, end)
	}
	return filter.Continue
}

func (f *fakeFilter) OnResponseTrailers(t *stream.Turn, h *header.Map) filter.Action {
	f.r.logf("%s.resp.trailers", f.name)
	if f.do.respTrailers != nil {
		return f.do.respTrailers(f, t, h)
	}
	return filter.Continue
}

func (f *fakeFilter) OnLog(*stream.Turn, *stream.Info) {
	if f.do.onLog != nil {
		f.do.onLog()
	}
}

func (f *fakeFilter) OnDestroy(*stream.Turn) {
	f.r.logf("%s.destroy", f.name)
	if f.do.onDestroy != nil {
		f.do.onDestroy()
	}
}

type fakeTerminalFactory struct{ r *rig }

func (f *fakeTerminalFactory) NewTerminal(s filter.Terminal) any {
	if f.r.quiet {
		f.r.up.s = s
		return f.r.up
	}
	f.r.up = &fakeUpstream{r: f.r, s: s}
	return f.r.up
}

// fakeUpstream is the terminal filter.
type fakeUpstream struct {
	r *rig
	s filter.Terminal
}

func (u *fakeUpstream) OnRequestHeaders(_ *stream.Turn, _ *header.Map, end bool) filter.Action {
	u.r.logf("up.headers%s", endText(end))
	return filter.Continue
}

func (u *fakeUpstream) OnRequestData(_ *stream.Turn, b *buf.Buffer, end bool) filter.Action {
	if !u.r.quiet {
		u.r.logf("up.data %s%s", b.Bytes(), endText(end))
	}
	return filter.Continue
}

func (u *fakeUpstream) OnRequestTrailers(_ *stream.Turn, h *header.Map) filter.Action {
	u.r.logf("up.trailers %s", names(h))
	return filter.Continue
}

func (u *fakeUpstream) OnResponseFull(*stream.Turn)    { u.r.logf("up.full") }
func (u *fakeUpstream) OnResponseDrained(*stream.Turn) { u.r.logf("up.drained") }
func (u *fakeUpstream) OnDestroy(*stream.Turn)         { u.r.logf("up.destroy") }

func (u *fakeUpstream) OnDeadline(_ *stream.Turn, which uint8) { u.r.logf("up.deadline %d", which) }

// lines is take, line by line.
func (r *rig) lines() []string { return strings.Split(r.take(), "\n") }
