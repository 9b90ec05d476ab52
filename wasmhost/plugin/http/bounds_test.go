package http_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"

	"sidecar/wasmhost/wasmtest"
)

// hostilePlugin repeats one host call until it fails, which one the number of headers says, and answers
// with how often it succeeded, in four digits of base 64 from '0' on. 5 logs, 6 defines metrics, 7 sets
// shared data of 1 MiB, 8 fills a queue with items of 1 MiB, 9 makes HTTP call-outs, 10 adds headers, 11
// sets properties, 12 makes expressions, 13 overflows the stack, 14 enqueues small items into a queue
// that it is told of, 15 makes call-outs with bodies of 1 MiB.
const hostilePlugin = `(module
 (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
 (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_set_shared_data" (func $share (param i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
 (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
 (import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_set_property" (func $prop (param i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_call_foreign_function" (func $f (param i32 i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 32)
 (data (i32.const 256) "auth" "expr_create" "1 + 1")
 (data (i32.const 512) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/\00:authority\00a\00")
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param i32) (result i32) (i32.const 8192))
 (func (export "proxy_on_queue_ready") (param i32 i32))
 (func $deep (param i32) (result i32) (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
 (func $once (param $mode i32) (param $n i32) (result i32)
  (i32.store (i32.const 1024) (local.get $n))
  (if (i32.eq (local.get $mode) (i32.const 5)) (then (return (call $log (i32.const 4) (i32.const 256) (i32.const 4)))))
  (if (i32.eq (local.get $mode) (i32.const 6)) (then (return (call $define (i32.const 0) (i32.const 256) (i32.const 4) (i32.const 8)))))
  (if (i32.eq (local.get $mode) (i32.const 7)) (then (return (call $share (i32.const 1024) (i32.const 4) (i32.const 65536) (i32.const 1048576) (i32.const 0)))))
  (if (i32.eq (local.get $mode) (i32.const 8)) (then (return (call $enqueue (i32.load (i32.const 16)) (i32.const 65536) (i32.const 1048576)))))
  (if (i32.eq (local.get $mode) (i32.const 9)) (then (return (call $call (i32.const 256) (i32.const 4) (i32.const 512) (i32.const 66) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8)))))
  (if (i32.eq (local.get $mode) (i32.const 15)) (then (return (call $call (i32.const 256) (i32.const 4) (i32.const 512) (i32.const 66) (i32.const 65536) (i32.const 1048576) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8)))))
  (if (i32.eq (local.get $mode) (i32.const 10)) (then (return (call $add (i32.const 0) (i32.const 256) (i32.const 4) (i32.const 256) (i32.const 4)))))
  (if (i32.eq (local.get $mode) (i32.const 11)) (then (return (call $prop (i32.const 1024) (i32.const 4) (i32.const 256) (i32.const 4)))))
  (if (i32.eq (local.get $mode) (i32.const 12)) (then (return (call $f (i32.const 260) (i32.const 11) (i32.const 271) (i32.const 5) (i32.const 8) (i32.const 12)))))
  (if (i32.eq (local.get $mode) (i32.const 13)) (then (return (call $deep (i32.const 0)))))
  (if (i32.eq (local.get $mode) (i32.const 14)) (then (return (call $enqueue (i32.load (i32.const 16)) (i32.const 256) (i32.const 4)))))
  (i32.const 1))
 (func (export "proxy_on_request_headers") (param i32) (param $mode i32) (param i32) (result i32) (local $n i32)
  (if (i32.eq (local.get $mode) (i32.const 4)) (then (return (i32.const 0))))
  (if (call $register (i32.const 256) (i32.const 4) (i32.const 16)) (then unreachable))
  (block $end (loop $l
   (br_if $end (call $once (local.get $mode) (local.get $n)))
   (local.set $n (i32.add (local.get $n) (i32.const 1)))
   (br $l)))
  (i32.store8 (i32.const 300) (i32.add (i32.const 48) (i32.and (i32.shr_u (local.get $n) (i32.const 18)) (i32.const 63))))
  (i32.store8 (i32.const 301) (i32.add (i32.const 48) (i32.and (i32.shr_u (local.get $n) (i32.const 12)) (i32.const 63))))
  (i32.store8 (i32.const 302) (i32.add (i32.const 48) (i32.and (i32.shr_u (local.get $n) (i32.const 6)) (i32.const 63))))
  (i32.store8 (i32.const 303) (i32.add (i32.const 48) (i32.and (local.get $n) (i32.const 63))))
  (drop (call $reply (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 300) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const -1)))
  (i32.const 1)))`

func count(s string) int {
	n := 0
	for i := range len(s) {
		n = n<<6 | int(s[i]-'0')
	}
	return n
}

// TestBounds has a row for each row of the table in docs/wasm.md that a host call fills.
func TestBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		mode, min, max int
	}{
		{"metrics", 6, 4096, 4096},
		{"shared data", 7, 60, 64},
		{"queue", 8, 60, 64},
		{"call-outs", 9, 16384, 16384},
		{"bytes of call-outs", 15, 60, 64},
		{"headers", 10, 8000, 8192},
		{"properties", 11, 1000, 1024},
		{"expressions", 12, 1024, 1024},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			calls := newCaller()
			calls.calls = make(chan *outCall, 1<<15)
			p := newProxy(t, settings{file: wasmtest.File(t, hostilePlugin), calls: calls, deadline: 20 * time.Second})
			x := p.with(c.mode)
			if n := count(x.body.String()); x.status != "200" || n < c.min || n > c.max {
				t.Errorf("status %s, %d", x.status, n)
			}
			if y := p.with(4); y.status != "200" {
				t.Errorf("the next request: %s", y.status)
			}
		})
	}
}

// TestBounds_Failures: what can only be ended with the VM ends it, soon, and it alone.
func TestBounds_Failures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		mode int
		want string // in the log
	}{
		{"log", 5, "reason"}, {"stack", 13, "call stack exhausted"}, {"small items", 14, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			var mu sync.Mutex
			p := newProxy(t, settings{
				file: wasmtest.File(t, hostilePlugin), policy: wasmv3.FailurePolicy_FAIL_RELOAD, deadline: 200 * time.Millisecond,
				log: slog.New(slog.NewTextHandler(&locked{&mu, &log}, nil)), memory: 8 << 20,
			})
			other := newProxy(t, settings{file: needPlugin(t, "version"), configuration: "v1"})
			begin := time.Now()
			x := p.begin(append([][2]string{{"x-request-id", "the-id"}}, extra(c.mode-1)...)).wait()
			if d := time.Since(begin); d > 5*time.Second {
				t.Errorf("took %v", d)
			}
			if c.name != "small items" && x.status != "503" {
				t.Errorf("status %s", x.status)
			}
			if y := other.with(4); y.status != "200" {
				t.Errorf("another plugin: %s", y.status)
			}
			for p.with(4).status != "200" {
				if time.Since(begin) > 10*time.Second {
					t.Fatal("not reloaded")
				}
			}
			mu.Lock()
			defer mu.Unlock()
			lines := strings.Count(log.String(), "wasm log p r v: auth")
			if c.name == "log" && (lines < 500 || lines > 1500) {
				t.Errorf("%d lines", lines)
			}
			if c.name == "stack" && (!strings.Contains(log.String(), c.want) || !strings.Contains(log.String(), "request_id=the-id") ||
				!strings.Contains(log.String(), "callback=proxy_on_request_headers") || !strings.Contains(log.String(), "deep")) {
				t.Errorf("log: %s", log.String())
			}
		})
	}
}

func extra(n int) [][2]string {
	var h [][2]string
	for i := range n - 4 {
		h = append(h, [2]string{fmt.Sprintf("x-%d", i), "v"})
	}
	return h
}

// pausingPlugin makes a call-out for each request and waits; the answer's status goes on (200), or is
// the answer. Its tick, each millisecond, goes on with the stream that came last.
const pausingPlugin = `(module
 (import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
 (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
 (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
 (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 1)
 (global $last (mut i32) (i32.const 0))
 (data (i32.const 256) "auth" ":status")
 (data (i32.const 512) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/\00:authority\00a\00")
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param i32) (result i32) (i32.const 8192))
 (func (export "proxy_on_configure") (param i32 i32) (result i32) (drop (call $period (i32.const 1))) (i32.const 1))
 (func (export "proxy_on_tick") (param i32)
  (if (i32.eqz (call $effective (global.get $last))) (then
   (drop (call $add (i32.const 0) (i32.const 256) (i32.const 4) (i32.const 256) (i32.const 4)))
   (drop (call $continue (i32.const 0))))))
 (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (global.set $last (local.get 0))
  (if (call $call (i32.const 256) (i32.const 4) (i32.const 512) (i32.const 66) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 8)) (then unreachable))
  (i32.const 1))
 (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0))
 (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
  (if (i32.eqz (call $get (i32.const 6) (i32.const 260) (i32.const 7) (i32.const 8) (i32.const 12))) (then
   (if (i32.eq (i32.load8_u (i32.load (i32.const 8))) (i32.const 50)) (then (drop (call $continue (i32.const 0))) (return)))))
  (drop (call $reply (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)))))`

// TestPausedStreams has a thousand streams wait for call-outs, with answers, resets of the call, clients
// that go, chunks of bodies and ticks interleaved at random.
func TestPausedStreams(t *testing.T) {
	t.Parallel()
	for name, own := range map[string]bool{"shared": false, "isolated": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := newCaller()
			calls.calls = make(chan *outCall, 2000)
			s := settings{file: wasmtest.File(t, pausingPlugin), calls: calls, concurrency: 2}
			if own {
				s.own = isolated
			}
			p := newProxy(t, s)
			const n = 1000
			var wg sync.WaitGroup
			ended := make(chan string, n)
			for i := range 8 {
				r := rand.New(rand.NewPCG(uint64(i), 1))
				wg.Go(func() {
					for j := range n / 8 {
						var chunks []string
						for range r.IntN(4) {
							chunks = append(chunks, "chunk "+strconv.Itoa(j))
						}
						x := p.begin(nil, chunks...)
						if r.IntN(8) == 0 {
							x.abort()
						}
						wg.Go(func() { ended <- x.wait().status })
					}
				})
			}
			done := make(chan struct{})
			var answers sync.WaitGroup
			for i := range 4 {
				r := rand.New(rand.NewPCG(uint64(i), 2))
				answers.Go(func() {
					for {
						select {
						case c := <-calls.calls:
							switch r.IntN(5) {
							case 0:
								c.reset()
							case 1:
								c.answer("403", "no")
							default:
								c.answer("200", "yes")
							}
						case <-done:
							return
						}
					}
				})
			}
			wg.Wait()
			close(done)
			answers.Wait()
			close(ended)
			seen := map[string]int{}
			for s := range ended {
				seen[s]++
			}
			if seen["200"] == 0 || seen["403"] == 0 || seen["503"] > 0 {
				t.Errorf("%v", seen)
			}
			t.Logf("%v", seen)
		})
	}
}
