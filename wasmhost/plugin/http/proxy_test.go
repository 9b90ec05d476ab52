package http_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	wasmv1 "sidecar/api/sidecar/wasm/v1"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/wire"
	"sidecar/listener/hcm"
	"sidecar/listener/route"
	"sidecar/wasmhost"
	wasmhttp "sidecar/wasmhost/plugin/http"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// proxy is the real connection manager between a codec that the test plays and an upstream that
// echoes: it stands for everything that a plugin is used with.
type proxy struct {
	t       testing.TB
	host    *wasmhost.Host
	factory *wasmhttp.Factory
	table   *filter.Table
	config  *hcm.Config
	handler stream.ServerHandler
	ended   chan struct{}
	seen    chan *header.Map // requests as the upstream gets them
}

type clock struct{}

func (clock) Date(time.Time) string { return "Tue, 24 Nov 2026 00:00:00 GMT" }

type overload struct{}

func (overload) DisableKeepAlive() bool { return false }

func (overload) Draining(uint64) bool { return false }

// keeper compiles a filter through the table and keeps its factory.
func (p *proxy) keeper(entries []filter.HTTPEntry) []filter.HTTPEntry {
	for i := range entries {
		compile := entries[i].Compile
		entries[i].Compile = func(m proto, c filter.Context) (any, error) {
			made, err := compile(m, c)
			if f, ok := made.(*wasmhttp.Factory); ok {
				p.factory = f
			}
			return made, err
		}
	}
	return entries
}

func anyOf(t testing.TB, m proto) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

type settings struct {
	file, configuration string
	policy              wasmv3.FailurePolicy
	legacyOpen          bool
	deadline            time.Duration
	memory              uint64
	calls               wasmhost.Caller
	log                 *slog.Logger
	concurrency         int
	bufferLimit         int
}

func plugin(name string) string {
	return filepath.Join("..", "..", "..", "testdata", "plugins", name, name+".wasm")
}

func (s *settings) message(t testing.TB) *wasmv1.Wasm {
	t.Helper()
	c := &wasmv3.PluginConfig{
		Name: "p", RootId: "r", FailurePolicy: s.policy, FailOpen: s.legacyOpen, //nolint:staticcheck // still accepted
		Vm: &wasmv3.PluginConfig_VmConfig{VmConfig: &wasmv3.VmConfig{
			VmId: "v", Code: &corev3.AsyncDataSource{Specifier: &corev3.AsyncDataSource_Local{
				Local: &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: s.file}},
			}},
		}},
	}
	if s.policy == wasmv3.FailurePolicy_FAIL_RELOAD {
		c.ReloadConfig = &wasmv3.ReloadConfig{Backoff: &corev3.BackoffStrategy{BaseInterval: durationpb.New(50 * time.Millisecond)}}
	}
	if s.configuration != "" {
		c.Configuration = anyOf(t, wrapperspb.String(s.configuration))
	}
	m := &wasmv1.Wasm{Config: c, Limits: &wasmv1.Limits{MemoryBytes: s.memory}}
	if s.deadline != 0 {
		m.Limits.StreamDeadline = durationpb.New(s.deadline)
	}
	return m
}

func newProxy(t testing.TB, s settings) *proxy {
	t.Helper()
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.bufferLimit == 0 {
		s.bufferLimit = 1 << 20
	}
	h, err := wasmhost.NewHost(wasmhost.Options{Calls: s.calls, Log: s.log, Concurrency: s.concurrency})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	p := &proxy{t: t, host: h, ended: make(chan struct{}), seen: make(chan *header.Map, 1000)}
	entries := append(p.keeper(wasmhttp.Entries(h)), filter.RegisterHTTP("test.echo", &routerv3.Router{},
		func(*routerv3.Router, filter.Context) (any, error) { return &echoFactory{p}, nil }))
	p.table = filter.NewTable(entries...)
	m := &hcmv3.HttpConnectionManager{
		StatPrefix:     "t",
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{}},
		HttpFilters: []*hcmv3.HttpFilter{
			{Name: "wasm", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: anyOf(t, s.message(t))}},
			{Name: "test.echo", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: anyOf(t, &routerv3.Router{})}},
		},
	}
	store := stats.New()
	p.config, err = hcm.Compile(m, &hcm.Env{
		Filters: p.table, Scope: store.Root(), ListenerScope: store.Scope("listener.t"), Log: s.log,
		NewCodec: func(_ *wire.Conn, h stream.ServerHandler, _ hcm.CodecOptions) hcm.Codec {
			p.handler = h
			return codec{p}
		},
		Clock: clock{}, Random: func() uint64 { return 1 }, Overload: overload{}, BufferLimit: s.bufferLimit,
		Runtime:       func(_ string, def bool) bool { return def },
		CompileRoutes: func(*routev3.RouteConfiguration) (*route.Table, error) { return &route.Table{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.factory.Warm(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.factory.Retire)
	started := make(chan struct{})
	go func() {
		defer close(p.ended)
		p.config.Serve(stream.NewTurn(), nil, &stream.ConnInfo{Start: time.Now(), ID: 7}, overload{})
	}()
	go func() { close(started) }()
	<-started
	for range 1000 {
		if p.handler != nil {
			break
		}
		<-time.After(time.Millisecond)
	}
	return p
}

// codec is a connection that the test reads by hand.
type codec struct{ p *proxy }

func (codec) Serve(*stream.Turn) {}
func (codec) Close(*stream.Turn) {}

// exchange is one request and its response.
type exchange struct {
	p      *proxy
	target stream.Target
	done   chan struct{}
	once   sync.Once

	mu      sync.Mutex
	status  string
	headers [][2]string
	body    strings.Builder
	reset   bool
	request header.Map
}

func (x *exchange) EncodeInterim(*stream.Turn, *header.Map) {}
func (x *exchange) EncodeHeaders(_ *stream.Turn, h *header.Map, _ bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range h.Len() {
		name, value := h.At(i)
		x.headers = append(x.headers, [2]string{strings.Clone(name), strings.Clone(value)})
	}
	x.status = strings.Clone(h.Value(header.Status))
}
func (x *exchange) EncodeData(_ *stream.Turn, p []byte, _ bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.body.Write(p)
}
func (x *exchange) EncodeTrailers(*stream.Turn, *header.Map) {}
func (x *exchange) Full() bool                               { return false }
func (x *exchange) Pause(*stream.Turn, bool)                 {}
func (x *exchange) Reset(*stream.Turn, *stream.Fault) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.reset = true
}
func (x *exchange) Release(*stream.Turn)      { x.once.Do(func() { close(x.done) }) }
func (x *exchange) Protocol() stream.Protocol { return stream.HTTP11 }
func (x *exchange) Traffic() stream.Traffic   { return stream.Traffic{} }

func (x *exchange) header(name string) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, h := range x.headers {
		if h[0] == name {
			return h[1]
		}
	}
	return ""
}

// begin sends a request: chunks are the body.
func (p *proxy) begin(headers [][2]string, chunks ...string) *exchange {
	x := &exchange{p: p, done: make(chan struct{})}
	x.request.Add(":method", "POST")
	x.request.Add(":path", "/path")
	x.request.Add(":authority", "host")
	x.request.Add(":scheme", "http")
	for _, h := range headers {
		x.request.Add(h[0], h[1])
	}
	stream.Do(func(t *stream.Turn) {
		x.target = p.handler.NewStream(t, x)
		x.target.Post(t, stream.Event{Kind: stream.EventHeaders, Map: &x.request, End: len(chunks) == 0})
		for _, c := range chunks {
			x.target.Post(t, stream.Event{Kind: stream.EventData, Data: []byte(c)})
		}
		if len(chunks) > 0 {
			x.target.Post(t, stream.Event{Kind: stream.EventData, End: true})
		}
	})
	return x
}

func (x *exchange) wait() *exchange {
	x.p.t.Helper()
	select {
	case <-x.done:
	case <-time.After(20 * time.Second):
		x.p.t.Fatal("no response")
	}
	return x
}

func (x *exchange) abort() {
	stream.Do(func(t *stream.Turn) {
		x.target.Post(t, stream.Event{Kind: stream.EventReset, Fault: &stream.Fault{Side: stream.Downstream}})
	})
}

// echoFactory makes upstreams that answer with the request's body.
type echoFactory struct{ p *proxy }

func (f *echoFactory) NewTerminal(s filter.Terminal) any { return &echo{p: f.p, s: s} }

type echo struct {
	p    *proxy
	s    filter.Terminal
	head header.Map
	body []byte
}

func (e *echo) OnRequestHeaders(t *stream.Turn, h *header.Map, end bool) filter.Action {
	m := new(header.Map)
	m.CopyFrom(h)
	select {
	case e.p.seen <- m:
	default:
	}
	if end {
		e.head.Add(":status", "200")
		e.s.RespondHeaders(t, &e.head, true)
	}
	return filter.Continue
}

func (e *echo) OnRequestData(t *stream.Turn, b *buf.Buffer, end bool) filter.Action {
	e.body = append(e.body, b.Bytes()...)
	b.Reset()
	if !end {
		return filter.Continue
	}
	e.head.Add(":status", "200")
	e.s.RespondHeaders(t, &e.head, false)
	half := len(e.body) / 2
	e.s.RespondData(t, e.body[:half], false)
	e.s.RespondData(t, e.body[half:], false)
	e.s.RespondData(t, nil, true)
	return filter.Continue
}

// caller answers call-outs when the test says so.
type caller struct {
	clusters map[string]bool
	calls    chan *outCall
}

type outCall struct {
	request   *wasmhost.CallRequest
	done      func(*stream.Turn, wasmhost.CallResult)
	cancelled chan struct{}
}

func newCaller() *caller {
	return &caller{clusters: map[string]bool{"auth": true}, calls: make(chan *outCall, 100)}
}

func (c *caller) HasCluster(name string) bool { return c.clusters[name] }

func (c *caller) CallHTTP(_ *stream.Turn, r *wasmhost.CallRequest, done func(*stream.Turn, wasmhost.CallResult)) (func(*stream.Turn), error) {
	o := &outCall{request: r, done: done, cancelled: make(chan struct{})}
	c.calls <- o
	return func(*stream.Turn) { close(o.cancelled) }, nil
}

func (o *outCall) answer(status, body string, headers ...[2]string) {
	m := new(header.Map)
	m.Add(":status", status)
	for _, h := range headers {
		m.Add(h[0], h[1])
	}
	stream.Do(func(t *stream.Turn) { o.done(t, wasmhost.CallResult{Headers: m, Body: []byte(body)}) })
}

func needPlugin(t testing.TB, name string) string {
	t.Helper()
	file := plugin(name)
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("%v: run testdata/plugins/build.sh", err)
	}
	return file
}

func (o *outCall) reset() {
	stream.Do(func(t *stream.Turn) { o.done(t, wasmhost.CallResult{}) })
}
