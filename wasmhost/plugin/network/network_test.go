package network_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	wasmfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/wasm/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"go.uber.org/goleak"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/internal/config/configtest"
	"sidecar/internal/netfilter"
	"sidecar/internal/wire"
	"sidecar/wasmhost"
	"sidecar/wasmhost/plugin/network"
	"sidecar/wasmhost/wasmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, configtest.Elsewhere{
		"envoy.extensions.wasm.v3.PluginConfig", "sidecar.wasm.v1.Limits", "sidecar.wasm.v1.Recycling",
	}, network.FieldTables()...)
}

// lines collects what plugins log.
type lines struct {
	mu   sync.Mutex
	all  []string
	more chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, m, ok := strings.Cut(string(p), "wasm log p: "); ok {
		l.all = append(l.all, strings.Trim(m, "\"\n"))
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.all, " ")
}

// wait waits for a log.
func (l *lines) wait(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for l.text() != want {
		select {
		case <-l.more:
		case <-deadline:
			t.Fatalf("log %q, want %q", l.text(), want)
		}
	}
}

// guest says what it is called with. Data of the client: it waits for five bytes; "close" closes,
// "traps" traps, "pause" is held until the tick. Data of the upstream is answered with "[" and it, if it
// is longer than a byte.
const guest = `(module
 (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
 (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
 (import "env" "proxy_get_buffer_bytes" (func $buf (param i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
 (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
 (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
 (memory (export "memory") 1)
 (global $heap (mut i32) (i32.const 4096))
 (global $paused (mut i32) (i32.const 0))
 (data (i32.const 256) "new" "down" "up" "upclose" "downclose" "done" "log" "delete" "[" "1" "2" "tick")
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param i32) (result i32)
  (global.get $heap) (global.set $heap (i32.add (global.get $heap) (local.get 0))))
 (func $say (param i32 i32) (drop (call $log (i32.const 2) (local.get 0) (local.get 1))))
 (func $must (param i32) (if (local.get 0) (then unreachable)))
 (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
 (func (export "proxy_on_tick") (param i32)
  (call $must (call $period (i32.const 0)))
  (call $say (i32.const 297) (i32.const 4))
  (call $must (call $effective (global.get $paused)))
  (call $must (call $continue (i32.const 2))))
 (func (export "proxy_on_new_connection") (param i32) (result i32) (call $say (i32.const 256) (i32.const 3)) (i32.const 0))
 (func (export "proxy_on_downstream_data") (param $id i32) (param $n i32) (param i32) (result i32)
  (local $first i32)
  (call $say (i32.const 259) (i32.const 4))
  (if (i32.and (i32.lt_u (local.get $n) (i32.const 5)) (i32.eqz (local.get 2))) (then (return (i32.const 1))))
  (if (i32.eqz (local.get $n)) (then (return (i32.const 0))))
  (call $must (call $buf (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 12)))
  (local.set $first (i32.load8_u (i32.load (i32.const 8))))
  (if (i32.eq (local.get $first) (i32.const 99)) (then (call $must (call $close (i32.const 2))) (return (i32.const 1))))
  (if (i32.eq (local.get $first) (i32.const 116)) (then unreachable))
  (if (i32.eq (local.get $first) (i32.const 112)) (then
   (global.set $paused (local.get $id)) (call $must (call $period (i32.const 20))) (return (i32.const 1))))
  (i32.const 0))
 (func (export "proxy_on_upstream_data") (param i32 i32 i32) (result i32)
  (call $say (i32.const 263) (i32.const 2))
  (if (i32.eq (local.get 1) (i32.const 1)) (then (return (i32.const 1))))
  (call $must (call $set (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 294) (i32.const 1)))
  (i32.const 0))
 (func (export "proxy_on_upstream_connection_close") (param i32 i32) (call $say (i32.const 265) (i32.const 7)))
 (func (export "proxy_on_downstream_connection_close") (param i32 i32)
  (call $say (i32.const 272) (i32.const 9)) (call $say (i32.add (i32.const 294) (local.get 1)) (i32.const 1)))
 (func (export "proxy_on_done") (param i32) (result i32) (if (i32.ne (local.get 0) (i32.const 1)) (then (call $say (i32.const 281) (i32.const 4)))) (i32.const 1))
 (func (export "proxy_on_log") (param i32) (call $say (i32.const 285) (i32.const 3)))
 (func (export "proxy_on_delete") (param i32) (if (i32.ne (local.get 0) (i32.const 1)) (then (call $say (i32.const 288) (i32.const 6))))))`

// rig is a server that echoes behind the filter.
type rig struct {
	addr string
	log  *lines
	host *wasmhost.Host
}

func newRig(t *testing.T, policy wasmv3.FailurePolicy) *rig {
	t.Helper()
	r := &rig{log: &lines{more: make(chan struct{}, 1)}}
	var err error
	r.host, err = wasmhost.NewHost(wasmhost.Options{Log: slog.New(slog.NewTextHandler(r.log, nil)), Concurrency: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.host.Close)
	made, err := network.Entries(r.host)[0].Compile(&wasmfilterv3.Wasm{Config: &wasmv3.PluginConfig{
		Name: "p", FailurePolicy: policy, Vm: &wasmv3.PluginConfig_VmConfig{VmConfig: &wasmv3.VmConfig{
			Code: &corev3.AsyncDataSource{Specifier: &corev3.AsyncDataSource_Local{Local: &corev3.DataSource{
				Specifier: &corev3.DataSource_InlineBytes{InlineBytes: wasmtest.Module(t, guest)},
			}}},
		}},
	}}, filter.NetworkContext{Name: "f"})
	if err != nil {
		t.Fatal(err)
	}
	f, ok := made.(network.Factory)
	if !ok {
		t.Fatalf("made a %T", made)
	}
	if err := f.Warm(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Retire)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { echo(f, nc) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return r
}

// echo is the rest of the chain.
func echo(f network.Factory, nc net.Conn) {
	defer nc.Close()
	w, err := wire.New(nc, wire.Options{})
	if err != nil {
		return
	}
	info := &stream.ConnInfo{ID: 1, Record: new(stream.Info)}
	info.Record.Reset(time.Now(), info)
	run, ok := netfilter.Chain{f}.Begin(stream.NewTurn(), &filter.Connection{Wire: w, Info: info})
	defer func() { run.End(info.Record) }()
	for ok {
		b, n, err := w.Read(1<<14, func() bool { return true })
		if b != nil {
			stream.Do(func(t *stream.Turn) { w.Write(t, b.B[:n]) })
			b.Put()
		}
		if err != nil {
			break
		}
	}
	w.CloseAfterFlush()
	w.WaitSent()
	w.Close()
}

func (r *rig) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	tc, ok := c.(*net.TCPConn)
	if !ok {
		t.Fatalf("a %T", c)
	}
	return tc
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c net.Conn, want string) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(want))
	if n, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("received %q, %v; want %q", b[:n], err, want)
	}
}

func TestCallbacks(t *testing.T) {
	t.Parallel()
	r := newRig(t, wasmv3.FailurePolicy_FAIL_CLOSED)
	c := r.dial(t)
	r.log.wait(t, "new")
	send(t, c, "he")
	r.log.wait(t, "new down")
	send(t, c, "llo") // Shown with what was held.
	receive(t, c, "[hello")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("%q %v", b, err)
	}
	r.log.wait(t, "new down down up down upclose downclose 2 done log delete")
}

func TestPauseUntilTick(t *testing.T) {
	t.Parallel()
	r := newRig(t, wasmv3.FailurePolicy_FAIL_CLOSED)
	c := r.dial(t)
	send(t, c, "pause")
	receive(t, c, "[pause")
	r.log.wait(t, "new down tick up")
	send(t, c, "after")
	receive(t, c, "[after")
}

func TestPauseAtTheEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, wasmv3.FailurePolicy_FAIL_CLOSED)
	c := r.dial(t)
	send(t, c, "pa")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	receive(t, c, "[pa")
}

func TestClose(t *testing.T) {
	t.Parallel()
	r := newRig(t, wasmv3.FailurePolicy_FAIL_CLOSED)
	c := r.dial(t)
	send(t, c, "close")
	if b, _ := io.ReadAll(c); len(b) > 0 { //nolint:errcheck // a reset is an end too
		t.Errorf("%q", b)
	}
	r.log.wait(t, "new down downclose 1 done log delete")
}

func TestTraps(t *testing.T) {
	t.Parallel()
	for policy, served := range map[wasmv3.FailurePolicy]bool{
		wasmv3.FailurePolicy_FAIL_CLOSED: false, wasmv3.FailurePolicy_FAIL_OPEN: true,
	} {
		r := newRig(t, policy)
		c := r.dial(t)
		send(t, c, "traps")
		if served {
			receive(t, c, "traps")
		} else if b, _ := io.ReadAll(c); len(b) > 0 { //nolint:errcheck // a reset is an end too
			t.Errorf("%v: %q", policy, b)
		}
		c = r.dial(t)
		send(t, c, "later")
		if served {
			receive(t, c, "later")
		} else if b, _ := io.ReadAll(c); len(b) > 0 { //nolint:errcheck // a reset is an end too
			t.Errorf("%v, later: %q", policy, b)
		}
	}
}

// TestMany has many connections share one VM.
func TestMany(t *testing.T) {
	t.Parallel()
	r := newRig(t, wasmv3.FailurePolicy_FAIL_CLOSED)
	var wg sync.WaitGroup
	for range 20 {
		c := r.dial(t)
		wg.Go(func() {
			for range 50 {
				send(t, c, "hello")
				receive(t, c, "[hello")
			}
		})
	}
	wg.Wait()
}
