package http_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	wasmv1 "sidecar/api/sidecar/wasm/v1"
	"sidecar/api/stream"
	"sidecar/wasmhost/wasmtest"
)

func isolated(m *wasmv1.Wasm) { m.Isolation = wasmv1.Isolation_STREAM }

// secretPlugin does what the number of headers says. 5: it writes a secret into its heap, its stack, the
// end of its memory, its globals of each type, a property, a metric and an expression's table. 6: it
// looks for all of them and answers with how many it has found. 7: traps. 8: grows its memory by a page
// and writes there. 9: sets the period of the tick, whose callback counts in a global of its own; 10:
// answers with that count as well.
const secretPlugin = `(module
 (import "env" "proxy_get_property" (func $prop (param i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_set_property" (func $setprop (param i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_get_metric" (func $metric (param i32 i32) (result i32)))
 (import "env" "proxy_call_foreign_function" (func $f (param i32 i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
 (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 17)
 (global $heap (mut i32) (i32.const 8192))
 (global $i (mut i32) (i32.const 0)) (global $l (mut i64) (i64.const 0)) (global $fl (mut f32) (f32.const 0)) (global $d (mut f64) (f64.const 0))
 (global $ticks (mut i32) (i32.const 0))
 (data (i32.const 256) "secret" "expr_create" "expr_evaluate" "true")
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param i32) (result i32)
  (global.get $heap) (global.set $heap (i32.add (global.get $heap) (local.get 0))))
 (func $answer (param $n i32)
  (i32.store8 (i32.const 300) (i32.add (i32.const 48) (local.get $n)))
  (drop (call $reply (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 300) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const -1))))
 (func (export "proxy_on_tick") (param i32) (global.set $ticks (i32.add (global.get $ticks) (i32.const 1))) (drop (call $period (i32.const 0))))
 (func $write (local $p i32)
  (local.set $p (i32.const 16384))
  (loop $l
   (i64.store (local.get $p) (i64.const 0x746572636573))
   (local.set $p (i32.add (local.get $p) (i32.const 3000)))
   (br_if $l (i32.lt_u (local.get $p) (i32.const 1114000))))
  (i64.store (i32.const 1114104) (i64.const 0x746572636573))
  (global.set $i (i32.const 99)) (global.set $l (i64.const 99)) (global.set $fl (f32.const 99)) (global.set $d (f64.const 99))
  (drop (call $setprop (i32.const 256) (i32.const 6) (i32.const 256) (i32.const 6)))
  (drop (call $define (i32.const 0) (i32.const 256) (i32.const 6) (i32.const 8)))
  (drop (call $f (i32.const 262) (i32.const 11) (i32.const 286) (i32.const 4) (i32.const 8) (i32.const 12))))
 (func $search (result i32) (local $p i32) (local $n i32)
  (local.set $p (i32.const 1024))
  (loop $l
   (if (i64.eq (i64.and (i64.load (local.get $p)) (i64.const 0xffffffffffff)) (i64.const 0x746572636573)) (then (local.set $n (i32.const 1))))
   (local.set $p (i32.add (local.get $p) (i32.const 4)))
   (br_if $l (i32.lt_u (local.get $p) (i32.const 1114105))))
  (local.set $n (i32.add (local.get $n) (i32.ne (global.get $i) (i32.const 0))))
  (local.set $n (i32.add (local.get $n) (i64.ne (global.get $l) (i64.const 0))))
  (local.set $n (i32.add (local.get $n) (f32.ne (global.get $fl) (f32.const 0))))
  (local.set $n (i32.add (local.get $n) (f64.ne (global.get $d) (f64.const 0))))
  (local.set $n (i32.add (local.get $n) (i32.eqz (call $prop (i32.const 256) (i32.const 6) (i32.const 8) (i32.const 12)))))
  (local.set $n (i32.add (local.get $n) (i32.eqz (call $metric (i32.const 4) (i32.const 16)))))
  (local.set $n (i32.add (local.get $n) (i32.ne (memory.size) (i32.const 17))))
  (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then
   (local.set $n (i32.add (local.get $n) (i64.ne (i64.load (i32.const 1114112)) (i64.const 0))))))
  (i32.store (i32.const 24) (i32.const 0))
  (i32.add (local.get $n) (i32.eqz (call $f (i32.const 273) (i32.const 13) (i32.const 24) (i32.const 4) (i32.const 8) (i32.const 12)))))
 (func (export "proxy_on_request_headers") (param i32) (param $n i32) (param i32) (result i32)
  (if (i32.eq (local.get $n) (i32.const 5)) (then (call $write)))
  (if (i32.eq (local.get $n) (i32.const 6)) (then (call $answer (call $search))))
  (if (i32.eq (local.get $n) (i32.const 7)) (then unreachable))
  (if (i32.eq (local.get $n) (i32.const 8)) (then
   (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable)) (i64.store (i32.const 1114112) (i64.const 0x746572636573))))
  (if (i32.eq (local.get $n) (i32.const 9)) (then (drop (call $period (i32.const 1)))))
  (if (i32.eq (local.get $n) (i32.const 10)) (then (call $answer (global.get $ticks))))
  (i32.const 0)))`

// with is a request whose number of headers is n.
func (p *proxy) with(n int) *exchange {
	p.t.Helper()
	var h [][2]string
	for i := range n - 4 {
		h = append(h, [2]string{fmt.Sprintf("x-%d", i), "v"})
	}
	return p.begin(h).wait()
}

func TestIsolation_Secrets(t *testing.T) {
	t.Parallel()
	file := wasmtest.File(t, secretPlugin)
	shared := newProxy(t, settings{file: file})
	shared.with(5)
	if x := shared.with(6); x.body.String() != "7" { // All but the property, which is the stream's.
		t.Errorf("a shared VM: found %q: the search does not see what there is", x.body.String())
	}
	p := newProxy(t, settings{file: file, own: isolated})
	for range 20 {
		p.with(5)
		if x := p.with(6); x.status != "200" || x.body.String() != "0" {
			t.Fatalf("status %s, found %q", x.status, x.body.String())
		}
		p.with(8) // Its VM grows.
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				p.with(5)
				if x := p.with(6); x.body.String() != "0" {
					t.Errorf("found %q", x.body.String())
				}
			}
		})
	}
	wg.Wait()
}

func TestIsolation_FailureIsTheStreamsOwn(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{file: wasmtest.File(t, secretPlugin), own: isolated})
	for range 10 {
		if x := p.with(7); x.status != "503" {
			t.Errorf("the one that traps: %s", x.status)
		}
		if x := p.with(6); x.status != "200" || x.body.String() != "0" {
			t.Errorf("another: %s %q", x.status, x.body.String())
		}
	}
}

// TestIsolation_Root: what a callback of the root changes, streams that come later see.
func TestIsolation_Root(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{file: wasmtest.File(t, secretPlugin), own: isolated})
	if x := p.with(10); x.body.String() != "0" {
		t.Fatalf("%q before the tick", x.body.String())
	}
	for n := '1'; n < '4'; n++ {
		p.with(9)
		for deadline := time.Now().Add(10 * time.Second); ; {
			if x := p.with(10); x.body.String() == string(n) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("no stream sees tick %c", n)
			}
		}
	}
}

// TestIsolation_Plugins has the plugins of all tests serve as they do with shared VMs.
func TestIsolation_Plugins(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{file: needPlugin(t, "body"), own: isolated})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 30 {
				mode := []string{"upper", "append", "replace", "reply"}[(i+j)%4]
				x := p.begin([][2]string{{"x-body", mode}}, "hello", " ", "world").wait()
				want := map[string]string{
					"upper": "HELLO WORLD", "append": "hello world.append", "replace": "replaced", "reply": "hello world",
				}[mode]
				if got := x.body.String(); got != want {
					t.Errorf("%s: %s %q, want %q", mode, x.status, got, want)
				}
			}
		})
	}
	wg.Wait()
	c := newCaller()
	auth := newProxy(t, settings{file: needPlugin(t, "http_auth"), configuration: "auth", calls: c, own: isolated})
	x := auth.begin(nil, "body")
	(<-c.calls).answer("200", "", [2]string{"x-user", "me"})
	if x.wait(); x.status != "200" {
		t.Errorf("call-out: %s", x.status)
	}
	gone := auth.begin(nil)
	call := <-c.calls
	gone.abort()
	gone.wait()
	call.answer("200", "") // Nobody is there any more.
	if y := auth.begin(nil); true {
		(<-c.calls).answer("200", "")
		if y.wait().status != "200" {
			t.Error("the plugin doesn't serve any more")
		}
	}
}

// faults counts the page faults of this process.
func faults(tb testing.TB) int64 {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return u.Minflt
}

// TestIsolation_PageFaults isn't parallel: others fault too. What the test itself costs is that of a
// shared VM.
func TestIsolation_PageFaults(t *testing.T) {
	perStream := func(own func(*wasmv1.Wasm)) float64 {
		r := newRunner(newProxy(t, settings{file: needPlugin(t, "http_headers"), own: own}))
		for range 500 {
			r.request(t)
		}
		const n = 2000
		before := faults(t)
		for range n {
			r.request(t)
		}
		return float64(faults(t)-before) / n
	}
	got := perStream(isolated) - perStream(nil)
	t.Logf("%.2f page faults a stream", got)
	if got > 1 {
		t.Errorf("%.2f page faults a stream", got)
	}
}

// runner runs requests without costs of its own.
type runner struct {
	turn *stream.Turn
	x    *exchange
}

func newRunner(p *proxy) *runner { return &runner{stream.NewTurn(), &exchange{p: p, pipe: new(pipe)}} }

func (r *runner) request(tb testing.TB) {
	tb.Helper()
	x := r.x
	x.request.Reset()
	for _, f := range [][2]string{
		{":method", "GET"},
		{":path", "/path"},
		{":authority", "host"},
		{":scheme", "http"},
		{"user-agent", "bench"},
		{"accept", "*/*"},
		{"x-forwarded-proto", "http"},
		{"x-request-id", "4"},
	} {
		x.request.AddStatic(f[0], f[1])
	}
	x.done = make(chan struct{})
	x.headers = x.headers[:0]
	x.body.Reset()
	x.pipe.reset(x)
	x.pipe.target().Post(r.turn, stream.Event{Kind: stream.EventHeaders, Map: &x.request, End: true})
	r.turn.End()
	<-x.done
}

// BenchmarkIsolation compares streams that share VMs with streams that have their own.
func BenchmarkIsolation(b *testing.B) {
	for _, bc := range []struct {
		name string
		own  func(*wasmv1.Wasm)
	}{{"shared", nil}, {"isolated", isolated}} {
		b.Run(bc.name, func(b *testing.B) {
			p := newProxy(b, settings{file: needPlugin(b, "http_headers"), own: bc.own})
			r := newRunner(p)
			b.ReportAllocs()
			for b.Loop() {
				r.request(b)
			}
		})
	}
}

func TestRecycling(t *testing.T) {
	t.Parallel()
	for name, own := range map[string]func(*wasmv1.Wasm){
		"streams": func(m *wasmv1.Wasm) { m.Recycling = &wasmv1.Recycling{Streams: 10} },
		"memory":  func(m *wasmv1.Wasm) { m.Recycling = &wasmv1.Recycling{MemoryBytes: 18 << 16} },
		"age":     func(m *wasmv1.Wasm) { m.Recycling = &wasmv1.Recycling{Age: durationpb.New(time.Second)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			var mu sync.Mutex
			p := newProxy(t, settings{
				file: wasmtest.File(t, secretPlugin), own: own, concurrency: 1,
				log: slog.New(slog.NewTextHandler(&locked{&mu, &log}, &slog.HandlerOptions{Level: slog.LevelDebug})),
			})
			p.with(5)
			if x := p.with(6); x.body.String() != "7" {
				t.Fatalf("found %q", x.body.String())
			}
			deadline := time.Now().Add(10 * time.Second)
			for x := p.with(6); x.body.String() != "0"; x = p.with(6) { // A new VM knows nothing.
				if x.status != "200" {
					t.Fatalf("status %s", x.status)
				}
				if name == "memory" {
					p.with(8)
				}
				if time.Now().After(deadline) {
					t.Fatal("the VM was not replaced")
				}
			}
			mu.Lock()
			if !strings.Contains(log.String(), "reason="+name) {
				t.Errorf("log: %s", log.String())
			}
			mu.Unlock()
			for p.host.VMs() > 1 { // The old one ends.
				if time.Now().After(deadline) {
					t.Fatalf("%d VMs", p.host.VMs())
				}
			}
		})
	}
}

type locked struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
