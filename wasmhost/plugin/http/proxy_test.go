package http_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/filter"
	"sidecar/api/header"
	wasmv1 "sidecar/api/sidecar/wasm/v1"
	"sidecar/api/stream"
	"sidecar/wasmhost"
	wasmhttp "sidecar/wasmhost/plugin/http"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// proxy runs streams through one plugin to an upstream that echoes. See pipe.
type proxy struct {
	panics  atomic.Bool // the next look at a stream panics
	t       testing.TB
	host    *wasmhost.Host
	factory atomic.Pointer[wasmhttp.Factory]
	limit   int
	seen    chan *header.Map // requests as the upstream gets them
	conn    stream.ConnInfo
	route   any // what its route says of the plugin
}

func anyOf(tb testing.TB, m proto) *anypb.Any {
	tb.Helper()
	a, err := anypb.New(m)
	if err != nil {
		tb.Fatal(err)
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
	own                 func(*wasmv1.Wasm)
}

func plugin(name string) string {
	return filepath.Join("..", "..", "..", "testdata", "plugins", name, name+".wasm")
}

func (s *settings) message(tb testing.TB) *wasmv1.Wasm {
	tb.Helper()
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
		c.Configuration = anyOf(tb, wrapperspb.String(s.configuration))
	}
	m := &wasmv1.Wasm{Config: c, Limits: &wasmv1.Limits{MemoryBytes: s.memory}}
	if s.deadline != 0 {
		m.Limits.StreamDeadline = durationpb.New(s.deadline)
	}
	if s.own != nil {
		s.own(m)
	}
	return m
}

func newProxy(tb testing.TB, s settings) *proxy {
	tb.Helper()
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.bufferLimit == 0 {
		s.bufferLimit = 1 << 20
	}
	h, err := wasmhost.NewHost(wasmhost.Options{Calls: s.calls, Log: s.log, Concurrency: s.concurrency})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(h.Close)
	p := &proxy{t: tb, host: h, limit: s.bufferLimit, seen: make(chan *header.Map, 1000)}
	f := compile(tb, h, s)
	if err := f.Warm(context.Background()); err != nil {
		tb.Fatal(err)
	}
	p.factory.Store(f)
	tb.Cleanup(func() { p.factory.Load().Retire() })
	return p
}

// newFilter takes the factory in force, as who holds an ECDS filter does.
func (p *proxy) newFilter(s filter.Stream) any {
	for {
		f := p.factory.Load().NewFilter(s)
		if r, ok := f.(filter.Retired); !ok || !r.Retired() {
			return f
		}
	}
}

// compile makes a factory through the table's entry.
func compile(tb testing.TB, h *wasmhost.Host, s settings) *wasmhttp.Factory {
	tb.Helper()
	table := filter.NewTable(wasmhttp.Entries(h)...)
	m := s.message(tb)
	made, err := table.ByType("sidecar.wasm.v1.Wasm").Compile(m, filter.Context{Name: "wasm"})
	if err != nil {
		tb.Fatal(err)
	}
	f, ok := made.(*wasmhttp.Factory)
	if !ok {
		tb.Fatalf("made a %T", made)
	}
	return f
}

// exchange is one request and its response, as the client has them.
type exchange struct {
	p       *proxy
	pipe    *pipe
	target  stream.Target
	done    chan struct{} // the rest may be read when it is closed
	request header.Map

	status  string
	headers [][2]string
	body    strings.Builder
	reset   bool
}

func (x *exchange) header(name string) string {
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
	x.pipe = newPipe(x)
	x.target = x.pipe.target()
	stream.Do(func(t *stream.Turn) {
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

func needPlugin(tb testing.TB, name string) string {
	tb.Helper()
	file := plugin(name)
	if _, err := os.Stat(file); err != nil {
		tb.Fatalf("%v: run testdata/plugins/build.sh", err)
	}
	return file
}

func (o *outCall) reset() {
	stream.Do(func(t *stream.Turn) { o.done(t, wasmhost.CallResult{}) })
}
