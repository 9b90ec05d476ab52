package wasmhost_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/wasmhost"
	"sidecar/wasmhost/abi"
	"sidecar/wasmhost/internal/engine"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == compileChild {
		os.Exit(wasmhost.CompileChild(os.Args[2:], os.Stdin, os.NewFile(3, "output"), os.Stderr))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if left := engine.Live(); code == 0 && left != (engine.Objects{}) {
			os.Stderr.WriteString("C objects are left over\n")
			code = 1
		}
		os.Exit(code)
	}))
}

// plugin does in on_request_headers what the number of headers says: 1 loops, 2 traps, 3 grows the
// memory by 16 MiB and traps if it can't. Its configuration: n is refused, t traps, l loops.
const plugin = `(module
 (import "env" "proxy_get_buffer_bytes" (func $get (param i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
 (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
 (memory (export "memory") 1)
 (data (i32.const 100) "create" "start" "configure" "tick" "done" "delete" "log")
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param i32) (result i32) (i32.const 1024))
 (func $say (param i32 i32) (drop (call $log (i32.const 2) (local.get 0) (local.get 1))))
 (func (export "proxy_on_context_create") (param i32 i32) (call $say (i32.const 100) (i32.const 6)))
 (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (call $say (i32.const 106) (i32.const 5)) (i32.const 1))
 (func (export "proxy_on_configure") (param i32 i32) (result i32) (local $c i32)
  (call $say (i32.const 111) (i32.const 9))
  (drop (call $get (i32.const 7) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 4)))
  (local.set $c (i32.load8_u (i32.const 1024)))
  (if (i32.eqz (local.get 1)) (then (return (i32.const 1))))
  (if (i32.eq (local.get $c) (i32.const 110)) (then (return (i32.const 0))))
  (if (i32.eq (local.get $c) (i32.const 116)) (then unreachable))
  (if (i32.eq (local.get $c) (i32.const 108)) (then (loop (br 0))))
  (if (i32.eq (local.get $c) (i32.const 107)) (then (drop (call $tick (i32.const 5)))))
  (i32.const 1))
 (func (export "proxy_on_tick") (param i32) (call $say (i32.const 120) (i32.const 4)))
 (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (if (i32.eq (local.get 1) (i32.const 1)) (then (loop (br 0))))
  (if (i32.eq (local.get 1) (i32.const 2)) (then unreachable))
  (if (i32.eq (local.get 1) (i32.const 3)) (then
   (if (i32.eq (memory.grow (i32.const 256)) (i32.const -1)) (then unreachable))))
  (i32.const 0))
 (func (export "proxy_on_done") (param i32) (result i32) (call $say (i32.const 124) (i32.const 4)) (i32.const 1))
 (func (export "proxy_on_delete") (param i32) (call $say (i32.const 128) (i32.const 6)))
 (func (export "proxy_on_log") (param i32) (call $say (i32.const 134) (i32.const 3))))`

// lines collects log lines.
type lines struct {
	mu   sync.Mutex
	all  []string
	more chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, m, ok := strings.Cut(string(p), "wasm log"); ok {
		_, m, _ = strings.Cut(m, ": ")
		l.all = append(l.all, strings.Trim(m, "\"\n"))
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.all
	l.all = nil
	return out
}

func newHost(tb testing.TB, o wasmhost.Options) (*wasmhost.Host, *lines) {
	tb.Helper()
	l := &lines{more: make(chan struct{}, 1)}
	o.Log = slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
	h, err := wasmhost.NewHost(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(h.Close)
	return h, l
}

func code(tb testing.TB, wat string) []byte {
	tb.Helper()
	wasm, err := engine.FromText(wat)
	if err != nil {
		tb.Fatal(err)
	}
	return wasm
}

func config(tb testing.TB, wasm []byte, configuration string, change ...func(*wasmv3.PluginConfig)) *wasmv3.PluginConfig {
	tb.Helper()
	c := &wasmv3.PluginConfig{
		Name: "p", RootId: "r",
		Vm: &wasmv3.PluginConfig_VmConfig{VmConfig: &wasmv3.VmConfig{
			VmId: "v", Runtime: "envoy.wasm.runtime.v8",
			Code: &corev3.AsyncDataSource{Specifier: &corev3.AsyncDataSource_Local{Local: &corev3.DataSource{
				Specifier: &corev3.DataSource_InlineBytes{InlineBytes: wasm},
			}}},
		}},
	}
	if configuration != "" {
		a, err := anypb.New(wrapperspb.String(configuration))
		if err != nil {
			tb.Fatal(err)
		}
		c.Configuration = a
	}
	for _, f := range change {
		f(c)
	}
	return c
}

func policy(p wasmv3.FailurePolicy) func(*wasmv3.PluginConfig) {
	return func(c *wasmv3.PluginConfig) {
		c.FailurePolicy = p
		if p == wasmv3.FailurePolicy_FAIL_RELOAD {
			c.ReloadConfig = &wasmv3.ReloadConfig{Backoff: &corev3.BackoffStrategy{
				BaseInterval: durationpb.New(50 * time.Millisecond),
			}}
		}
	}
}

func start(tb testing.TB, h *wasmhost.Host, c *wasmv3.PluginConfig, l wasmhost.Limits) (*wasmhost.Plugin, error) {
	tb.Helper()
	cfg, err := wasmhost.Compile(c, nil, l)
	if err != nil {
		tb.Fatal(err)
	}
	return h.Start(tb.Context(), cfg)
}

func short() wasmhost.Limits {
	return wasmhost.Limits{StreamDeadline: 50 * time.Millisecond, StartDeadline: 200 * time.Millisecond, MemoryBytes: 8 << 20}
}

// owner is a stream without data.
type owner struct {
	s       wasmhost.Stream
	info    stream.Info
	entered chan error // outcomes of what ran
	count   int
}

func newOwner() *owner { return &owner{entered: make(chan error, 4)} }

func (o *owner) Headers(abi.MapType) (*header.Map, abi.Status)          { return nil, abi.OK }
func (o *owner) MutableHeaders(abi.MapType) *header.Map                 { return nil }
func (o *owner) HeadersChanged(abi.MapType)                             {}
func (o *owner) Buffer(abi.BufferType) (abi.Body, abi.Status)           { return abi.Body{}, abi.OK }
func (o *owner) AppendProperty(b []byte, _ string) ([]byte, abi.Status) { return b, abi.NotFound }
func (o *owner) Resolve(string) (any, bool)                             { return nil, false }
func (o *owner) SetProperty(string, []byte, abi.Declared) abi.Status    { return abi.NotFound }
func (o *owner) SetFilterState(string, []byte) abi.Status               { return abi.NotFound }
func (o *owner) SendLocalResponse(abi.LocalResponse)                    {}
func (o *owner) Continue(abi.StreamType) abi.Status                     { return abi.OK }
func (o *owner) Close(abi.StreamType) abi.Status                        { return abi.OK }
func (o *owner) ClearRouteCache()                                       {}
func (o *owner) Info() *stream.Info                                     { return &o.info }
func (o *owner) Post(t *stream.Turn, f func(*stream.Turn))              { f(t) }
func (o *owner) Answered(*stream.Turn)                                  {}
func (o *owner) VMFailed(*stream.Turn, *wasmhost.VM)                    {}
func (o *owner) ready(t *stream.Turn)                                   { o.VM().Own(t); o.call(t) }
func (o *owner) Ready(t *stream.Turn)                                   { o.ready(t) }
func (o *owner) Failed(*stream.Turn)                                    { o.entered <- errFailed }
func (o *owner) Stream() *wasmhost.Stream                               { return &o.s }
func (o *owner) VM() *wasmhost.VM                                       { return o.s.VM() }

var (
	errFailed     = errors.New("the VM failed")
	errOverloaded = errors.New("overloaded")
)

// call runs on_request_headers with a number of headers and leaves.
func (o *owner) call(t *stream.Turn) {
	err := o.s.Create()
	if err == nil {
		_, err = o.s.Guest().Headers(false, o, o.s.ID(), o.count, true)
	}
	if err != nil {
		o.VM().Fail(t, err)
	} else {
		o.VM().Leave(t)
	}
	o.entered <- err
}

// request has a stream make its call; the outcome is on entered.
func request(p *wasmhost.Plugin, count int) (*owner, wasmhost.Verdict) {
	o := newOwner()
	o.count = count
	if !p.Acquire() {
		return o, wasmhost.Refuse
	}
	defer p.Release()
	v := p.NewStream(o, &o.s)
	if v != wasmhost.Serve {
		return o, v
	}
	stream.Do(func(t *stream.Turn) {
		switch o.VM().Enter(t, o) {
		case wasmhost.Entered:
			o.call(t)
		case wasmhost.Overloaded:
			o.entered <- errOverloaded
		case wasmhost.Dead:
			o.entered <- errFailed
		case wasmhost.Queued:
		}
	})
	return o, v
}

func (o *owner) end() {
	if o.VM() != nil {
		stream.Do(func(t *stream.Turn) { o.s.End(t, true) })
	}
}

func TestStart(t *testing.T) {
	t.Parallel()
	h, log := newHost(t, wasmhost.Options{})
	wasm := code(t, plugin)
	for _, tc := range []struct {
		name, configuration, want string
		wasm                      []byte
	}{
		{"good", "", "", wasm},
		{"refused configuration", "no", "on_configure returned false", wasm},
		{"trap while it is configured", "trap", "unreachable", wasm},
		{"loop while it is configured", "loop", "interrupt", wasm},
		{"no module", "", "module: ", []byte("no wasm at all")},
		{"no plugin", "", "missing or unknown Proxy-Wasm ABI version", code(t, `(module)`)},
	} {
		p, err := start(t, h, config(t, tc.wasm, tc.configuration), short())
		if (err == nil) != (tc.want == "") {
			t.Errorf("%s: %v", tc.name, err)
		}
		if err != nil && (!strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "Unable to create Wasm plugin p")) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if err == nil {
			if got := strings.Join(log.take(), " "); got != "create start configure" {
				t.Errorf("%s: order of the start: %s", tc.name, got)
			}
			p.Close()
		}
	}
}

func TestLifeOfStream(t *testing.T) {
	t.Parallel()
	h, log := newHost(t, wasmhost.Options{})
	p, err := start(t, h, config(t, code(t, plugin), ""), short())
	if err != nil {
		t.Fatal(err)
	}
	log.take()
	a, _ := request(p, 0)
	b, _ := request(p, 0)
	if a.s.ID() != 2 || b.s.ID() != 3 {
		t.Errorf("ids %d and %d", a.s.ID(), b.s.ID())
	}
	p.Close() // The streams go on.
	a.end()
	if got := strings.Join(log.take(), " "); got != "create create log done delete" {
		t.Errorf("order: %s", got)
	}
	b.end()
	h.Close()
	if got := strings.Join(log.take(), " "); got != "log done delete done delete" {
		t.Errorf("order at the end: %s", got)
	}
	if h.VMs() != 0 {
		t.Errorf("%d VMs", h.VMs())
	}
}

func TestTick(t *testing.T) {
	t.Parallel()
	h, log := newHost(t, wasmhost.Options{})
	p, err := start(t, h, config(t, code(t, plugin), "k"), short())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for n := 0; n < 3; {
		<-log.more
		for _, l := range log.take() {
			if l == "tick" {
				n++
			}
		}
	}
}

func TestFailurePolicies(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		policy wasmv3.FailurePolicy
		after  wasmhost.Verdict
	}{
		{"closed", wasmv3.FailurePolicy_FAIL_CLOSED, wasmhost.Refuse},
		{"unspecified", wasmv3.FailurePolicy_UNSPECIFIED, wasmhost.Refuse},
		{"open", wasmv3.FailurePolicy_FAIL_OPEN, wasmhost.Bypass},
		{"reload", wasmv3.FailurePolicy_FAIL_RELOAD, wasmhost.Refuse},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			store := stats.New()
			h, _ := newHost(t, wasmhost.Options{Stats: store})
			p, err := start(t, h, config(t, code(t, plugin), "", policy(tc.policy)), short())
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			o, _ := request(p, 2)
			defer o.end()
			var trap *engine.Trap
			if err := <-o.entered; !errors.As(err, &trap) || trap.Reason != engine.Unreachable {
				t.Fatalf("outcome %v", err)
			}
			if _, v := request(p, 0); v != tc.after {
				t.Errorf("verdict after the trap is %d, want %d", v, tc.after)
			}
			if tc.policy != wasmv3.FailurePolicy_FAIL_RELOAD {
				return
			}
			begin := time.Now()
			for p.Failed() {
				if time.Since(begin) > 5*time.Second {
					t.Fatal("not reloaded")
				}
				<-time.After(time.Millisecond)
			}
			if d := time.Since(begin); d < 40*time.Millisecond {
				t.Errorf("reloaded after %v, within the backoff", d)
			}
			o2, v := request(p, 0)
			defer o2.end()
			if v != wasmhost.Serve || <-o2.entered != nil || o2.s.ID() != 2 {
				t.Error("the new VM doesn't serve")
			}
			if store.Scope("wasm.p").Counter("vm_reload_success").Value() != 1 {
				t.Error("vm_reload_success is not 1")
			}
		})
	}
}

func TestMemoryCap(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, wasmhost.Options{})
	p, err := start(t, h, config(t, code(t, plugin), ""), short())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	o, _ := request(p, 3)
	defer o.end()
	if err := <-o.entered; err == nil {
		t.Error("16 MiB more were had with a cap of 8")
	}
	if h.VMs() != 0 {
		t.Error("the VM's memory is still there")
	}
}

// TestLoops has 20,000 streams that each would loop for ever: one does, till its deadline, the others
// hear of it or find the queue full, and no more threads are used than there are places.
func TestLoops(t *testing.T) {
	h, _ := newHost(t, wasmhost.Options{QueueLimit: 1000})
	p, err := start(t, h, config(t, code(t, plugin), "", policy(wasmv3.FailurePolicy_FAIL_RELOAD)), short())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	const n = 20000
	var wg sync.WaitGroup
	outcomes := make(chan error, n)
	begin := time.Now()
	for range 8 {
		wg.Go(func() {
			for range n / 8 {
				o, v := request(p, 1)
				if v != wasmhost.Serve {
					outcomes <- errFailed
					continue
				}
				wg.Go(func() {
					outcomes <- <-o.entered
					o.end()
				})
			}
		})
	}
	wg.Wait()
	t.Logf("%d streams in %v", n, time.Since(begin))
	for range n {
		if <-outcomes == nil {
			t.Error("a stream that loops for ever came back")
		}
	}
}

func TestCompileErrors(t *testing.T) {
	t.Parallel()
	wasm := []byte("\x00asm\x01\x00\x00\x00")
	for _, tc := range []struct {
		name   string
		change func(*wasmv3.PluginConfig)
		want   string
	}{
		{"no vm_config", func(c *wasmv3.PluginConfig) { c.Vm = nil }, "vm_config: is required"},
		{"remote code", func(c *wasmv3.PluginConfig) {
			c.GetVmConfig().Code = &corev3.AsyncDataSource{Specifier: &corev3.AsyncDataSource_Remote{Remote: &corev3.RemoteDataSource{}}}
		}, "vm_config.code.remote.http_uri: is required"},
		{"no code", func(c *wasmv3.PluginConfig) { c.GetVmConfig().Code = nil }, "vm_config.code.local: is required"},
		{"missing file", func(c *wasmv3.PluginConfig) {
			c.GetVmConfig().Code.GetLocal().Specifier = &corev3.DataSource_Filename{Filename: "/nowhere.wasm"}
		}, "vm_config.code.local.filename"},
		{"null runtime", func(c *wasmv3.PluginConfig) { c.GetVmConfig().Runtime = "envoy.wasm.runtime.null" }, "vm_config.runtime: no Wasm runtime"},
		{"both policies", func(c *wasmv3.PluginConfig) {
			c.FailOpen, c.FailurePolicy = true, wasmv3.FailurePolicy_FAIL_OPEN //nolint:staticcheck // still accepted
		}, "failure_policy: only one of fail_open or failure_policy can be set"},
		{"environment twice", func(c *wasmv3.PluginConfig) {
			c.GetVmConfig().EnvironmentVariables = &wasmv3.EnvironmentVariables{
				HostEnvKeys: []string{"PATH"}, KeyValues: map[string]string{"PATH": "x"},
			}
		}, `vm_config.environment_variables: key "PATH" is duplicated`},
	} {
		_, err := wasmhost.Compile(config(t, wasm, "", tc.change), nil, wasmhost.DefaultLimits())
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestStartIsCancelled(t *testing.T) {
	t.Parallel()
	h, _ := newHost(t, wasmhost.Options{})
	cfg, err := wasmhost.Compile(config(t, code(t, plugin), ""), nil, short())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Start(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
