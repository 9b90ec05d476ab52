package abi_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/internal/buf"
	"sidecar/wasmhost/abi"
	"sidecar/wasmhost/internal/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a Host and a stream context that records.
type host struct {
	shared   *abi.Shared
	store    *stats.Store
	level    abi.LogLevel
	lines    []string
	tick     time.Duration
	done     bool
	ready    []uint32
	clusters map[string]bool
	call     *abi.HTTPCall
	grpc     *abi.GRPCCall
	sent     []string
	declared abi.Declared

	request  *header.Map
	readOnly *header.Map // response headers
	body     buf.Buffer
	reply    *abi.LocalResponse
	cleared  int
	resumed  []abi.StreamType
	props    map[string]string
}

func newHost() *host {
	h := &host{
		shared: abi.NewShared(1 << 20), store: stats.New(), clusters: map[string]bool{"c": true},
		request: new(header.Map), readOnly: new(header.Map), props: map[string]string{},
	}
	h.shared.Use("vm")
	h.request.Add(":path", "/p")
	h.request.Add("x-a", "1")
	h.request.Add("x-a", "2")
	h.readOnly.Add(":status", "200")
	h.body.AppendString("hello")
	return h
}

func (h *host) Log(_ abi.LogLevel, m string)    { h.lines = append(h.lines, m) }
func (h *host) LogLevel() abi.LogLevel          { return h.level }
func (h *host) SetTick(d time.Duration)         { h.tick = d }
func (h *host) Done() bool                      { return h.done }
func (h *host) Environ() []string               { return []string{"A=b"} }
func (h *host) Shared() *abi.Shared             { return h.shared }
func (h *host) VMID() string                    { return "vm" }
func (h *host) Stats() *stats.Scope             { return h.store.Scope("wasmcustom") }
func (h *host) QueueReady(token uint32)         { h.ready = append(h.ready, token) }
func (h *host) HasCluster(name string) bool     { return h.clusters[name] }
func (h *host) Outcome() (uint32, string)       { return 11, "reset" }
func (h *host) HeadersChanged(abi.MapType)      { h.cleared++ }
func (h *host) ClearRouteCache()                { h.cleared++ }
func (h *host) Close(abi.StreamType) abi.Status { return abi.OK }

func (h *host) HTTPCall(c abi.HTTPCall) (uint32, abi.Status) {
	if !h.clusters[c.Cluster] {
		return 0, abi.BadArgument
	}
	h.call = &c
	return 4, abi.OK
}

func (h *host) Headers(m abi.MapType) (*header.Map, abi.Status) {
	switch m {
	case abi.RequestHeaders:
		return h.request, abi.OK
	case abi.ResponseHeaders:
		return h.readOnly, abi.OK
	case abi.ResponseTrailers:
		return nil, abi.NotFound
	}
	return nil, abi.OK
}

func (h *host) MutableHeaders(m abi.MapType) *header.Map {
	if m == abi.RequestHeaders {
		return h.request
	}
	return nil
}

func (h *host) Buffer(b abi.BufferType) (abi.Body, abi.Status) {
	if b == abi.RequestBody {
		return abi.Body{Data: &h.body}, abi.OK
	}
	return abi.Body{}, abi.OK
}

func (h *host) AppendProperty(b []byte, path string) ([]byte, abi.Status) {
	switch path {
	case "a\x00b":
		return append(b, "value"...), abi.OK
	case "map":
		return b, abi.SerializationFailure
	}
	return b, abi.NotFound
}

func (h *host) SetProperty(path string, value []byte, d abi.Declared) abi.Status {
	h.props[strings.Clone(path)] = string(value)
	h.declared = d
	return abi.OK
}

func (h *host) SetFilterState(name string, value []byte) abi.Status {
	h.props["state "+strings.Clone(name)] = string(value)
	return abi.OK
}

func (h *host) Resolve(path string) (any, bool) {
	switch path {
	case "a\x00b":
		return "value", true
	case "n":
		return int64(41), true
	}
	return nil, false
}

func (h *host) GRPCCall(c *abi.GRPCCall) (uint32, abi.Status) {
	h.grpc = c
	return 5, abi.OK
}

func (h *host) GRPCSend(token uint32, message []byte, end bool) abi.Status {
	h.sent = append(h.sent, fmt.Sprint(token, string(message), end))
	return abi.OK
}

func (h *host) GRPCClose(uint32) abi.Status  { return abi.OK }
func (h *host) GRPCCancel(uint32) abi.Status { return abi.NotFound }

func (h *host) ResolveDNS(name string) (uint32, abi.Status) {
	h.sent = append(h.sent, name)
	return 8, abi.OK
}

func (h *host) SendLocalResponse(r abi.LocalResponse) { h.reply = &r }
func (h *host) Continue(s abi.StreamType) abi.Status {
	h.resumed = append(h.resumed, s)
	return abi.OK
}

func newEngine(tb testing.TB) *engine.Engine {
	tb.Helper()
	e, err := engine.New(engine.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(e.Close)
	return e
}

func module(e *engine.Engine, wat string, c abi.Capabilities) (*abi.Module, error) {
	wasm, err := engine.FromText(wat)
	if err != nil {
		return nil, err
	}
	m, err := e.Compile(wasm)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return abi.Link(m, c)
}

const preamble = `(module
 (import "env" "%s" (func $f %s))
 (memory (export "memory") 2)
 (global $heap (mut i32) (i32.const 4096))
 (data (i32.const 256) "%s")
 (func (export "proxy_abi_version_%s"))
 (func (export "malloc") (param i32) (result i32)
   (global.get $heap)
   (global.set $heap (i32.add (global.get $heap) (local.get 0))))
 (func (export "proxy_on_tick") (param i32) (i32.store (i32.const 0) (call $f %s))))`

// case is one host call: fn with args, data at address 256, results from address 8 on.
type hostCase struct {
	name, fn, data string
	args           []int64
	wide           bool   // the second argument is an i64
	version        string // 0_2_1 unless set
	setup          func(*host)
	want           abi.Status
	check          func(t *testing.T, h *host, out func(i int) uint32, text func() string)
}

func (c *hostCase) wat() string {
	var params, args strings.Builder
	for i, a := range c.args {
		kind := "i32"
		if c.wide && i == 1 {
			kind = "i64"
		}
		fmt.Fprintf(&params, "(param %s) ", kind)
		fmt.Fprintf(&args, "(%s.const %d) ", kind, a)
	}
	version := c.version
	if version == "" {
		version = "0_2_1"
	}
	var data strings.Builder
	for _, b := range []byte(c.data) {
		fmt.Fprintf(&data, "\\%02x", b)
	}
	return fmt.Sprintf(preamble, c.fn, params.String()+"(result i32)", data.String(), version, args.String())
}

func pairs(list ...[2]string) string { return string(abi.AppendPairs(nil, list)) }

const far = 1 << 30 // beyond the memory

func TestHostCalls(t *testing.T) {
	t.Parallel()
	textIs := func(want string) func(*testing.T, *host, func(int) uint32, func() string) {
		return func(t *testing.T, _ *host, _ func(int) uint32, text func() string) {
			t.Helper()
			if got := text(); got != want {
				t.Errorf("result %q, want %q", got, want)
			}
		}
	}
	wordIs := func(want uint32) func(*testing.T, *host, func(int) uint32, func() string) {
		return func(t *testing.T, _ *host, out func(int) uint32, _ func() string) {
			t.Helper()
			if got := out(0); got != want {
				t.Errorf("result %d, want %d", got, want)
			}
		}
	}
	bodyIs := func(want string) func(*testing.T, *host, func(int) uint32, func() string) {
		return func(t *testing.T, h *host, _ func(int) uint32, _ func() string) {
			t.Helper()
			if got := string(h.body.Bytes()); got != want {
				t.Errorf("body %q, want %q", got, want)
			}
		}
	}
	request := pairs([2]string{":path", "/"}, [2]string{":method", "GET"}, [2]string{":authority", "a"})
	cases := []hostCase{
		{name: "log", fn: "proxy_log", data: "hi", args: []int64{2, 256, 2}},
		{name: "log level above critical", fn: "proxy_log", args: []int64{6, 256, 0}, want: abi.BadArgument},
		{name: "log beyond memory", fn: "proxy_log", args: []int64{2, far, 2}, want: abi.InvalidMemoryAccess},
		{name: "log level", fn: "proxy_get_log_level", args: []int64{8}, setup: func(h *host) { h.level = 3 }, check: wordIs(3)},
		{name: "status", fn: "proxy_get_status", args: []int64{20, 8, 12}, check: textIs("reset")},
		{name: "header, first value", fn: "proxy_get_header_map_value", data: "x-a", args: []int64{0, 256, 3, 8, 12}, check: textIs("1")},
		{name: "header, name in upper case", fn: "proxy_get_header_map_value", data: "X-A", args: []int64{0, 256, 3, 8, 12}, check: textIs("1")},
		{name: "header missing", fn: "proxy_get_header_map_value", data: "x-b", args: []int64{0, 256, 3, 8, 12}, want: abi.NotFound},
		{name: "header missing in 0.1.0", fn: "proxy_get_header_map_value", version: "0_1_0", data: "x-b", args: []int64{0, 256, 3, 8, 12}, check: textIs("")},
		{name: "header of absent map", fn: "proxy_get_header_map_value", data: "x", args: []int64{1, 256, 1, 8, 12}, want: abi.BadArgument},
		{name: "header of absent map in log", fn: "proxy_get_header_map_value", data: "x", args: []int64{3, 256, 1, 8, 12}, want: abi.NotFound},
		{name: "header of map 8", fn: "proxy_get_header_map_value", data: "x", args: []int64{8, 256, 1, 8, 12}, want: abi.BadArgument},
		{name: "header, bad out pointer", fn: "proxy_get_header_map_value", data: "x-a", args: []int64{0, 256, 3, far, 12}, want: abi.InvalidMemoryAccess},
		{
			name: "pairs", fn: "proxy_get_header_map_pairs", args: []int64{0, 8, 12},
			check: textIs(pairs([2]string{":path", "/p"}, [2]string{"x-a", "1"}, [2]string{"x-a", "2"})),
		},
		{name: "pairs of absent map", fn: "proxy_get_header_map_pairs", args: []int64{1, 8, 12}, check: textIs("")},
		{name: "pairs of map 8", fn: "proxy_get_header_map_pairs", args: []int64{8, 8, 12}, want: abi.BadArgument},
		{name: "size is of names and values", fn: "proxy_get_header_map_size", args: []int64{0, 8}, check: wordIs(5 + 2 + 3 + 1 + 3 + 1)},
		{name: "size of absent map", fn: "proxy_get_header_map_size", args: []int64{1, 8}, want: abi.BadArgument},
		{
			name: "add", fn: "proxy_add_header_map_value", data: "X-Bv", args: []int64{0, 256, 3, 259, 1},
			check: func(t *testing.T, h *host, _ func(int) uint32, _ func() string) {
				if v, _ := h.request.Get("x-b"); v != "v" || h.cleared != 1 {
					t.Errorf("x-b is %q, the route cache cleared %d times", v, h.cleared)
				}
			},
		},
		{name: "add to a map that is read-only", fn: "proxy_add_header_map_value", data: "xv", args: []int64{2, 256, 1, 257, 1}, want: abi.BadArgument},
		{
			name: "replace leaves one", fn: "proxy_replace_header_map_value", data: "x-av", args: []int64{0, 256, 3, 259, 1},
			check: func(t *testing.T, h *host, _ func(int) uint32, _ func() string) {
				if v, _ := h.request.Joined("x-a"); v != "v" {
					t.Errorf("x-a is %q", v)
				}
			},
		},
		{name: "remove missing", fn: "proxy_remove_header_map_value", data: "zz", args: []int64{0, 256, 2}},
		{
			name: "set pairs", fn: "proxy_set_header_map_pairs", data: pairs([2]string{"A", "b"}), args: []int64{0, 256, int64(len(pairs([2]string{"A", "b"})))},
			check: func(t *testing.T, h *host, _ func(int) uint32, _ func() string) {
				if v, _ := h.request.Get("a"); v != "b" || h.request.Len() != 1 {
					t.Errorf("a is %q of %d", v, h.request.Len())
				}
			},
		},
		{
			name: "set pairs cut short", fn: "proxy_set_header_map_pairs", data: "\x01\x00\x00\x00\xff", args: []int64{0, 256, 5}, want: abi.BadArgument,
			check: func(t *testing.T, h *host, _ func(int) uint32, _ func() string) {
				if h.request.Len() != 3 {
					t.Error("the map was changed")
				}
			},
		},
		{name: "buffer", fn: "proxy_get_buffer_bytes", args: []int64{0, 1, 3, 8, 12}, check: textIs("ell")},
		{name: "buffer, length clipped", fn: "proxy_get_buffer_bytes", args: []int64{0, 1, 0xffffffff, 8, 12}, check: textIs("ello")},
		{name: "buffer, start beyond", fn: "proxy_get_buffer_bytes", args: []int64{0, 9, 3, 8, 12}, check: textIs("")},
		{name: "buffer 9", fn: "proxy_get_buffer_bytes", args: []int64{9, 0, 3, 8, 12}, want: abi.BadArgument},
		{name: "plugin configuration outside on_configure", fn: "proxy_get_buffer_bytes", args: []int64{7, 0, 3, 8, 12}, want: abi.NotFound},
		{name: "call body outside its callback", fn: "proxy_get_buffer_bytes", args: []int64{4, 0, 3, 8, 12}, want: abi.NotFound},
		{name: "buffer status", fn: "proxy_get_buffer_status", args: []int64{0, 8, 12}, check: wordIs(5)},
		{name: "set buffer: prepend", fn: "proxy_set_buffer_bytes", data: "xy", args: []int64{0, 0, 0, 256, 2}, check: bodyIs("xyhello")},
		{name: "set buffer: replace all", fn: "proxy_set_buffer_bytes", data: "xy", args: []int64{0, 0, 9, 256, 2}, check: bodyIs("xy")},
		{name: "set buffer: replace the front", fn: "proxy_set_buffer_bytes", data: "xy", args: []int64{0, 0, 2, 256, 2}, check: bodyIs("xyllo")},
		{name: "set buffer: append", fn: "proxy_set_buffer_bytes", data: "xy", args: []int64{0, 5, 1, 256, 2}, check: bodyIs("helloxy")},
		{name: "set buffer: in the middle", fn: "proxy_set_buffer_bytes", data: "xy", args: []int64{0, 2, 1, 256, 2}, want: abi.BadArgument, check: bodyIs("hello")},
		{name: "set buffer that can't be changed", fn: "proxy_set_buffer_bytes", data: "xy", args: []int64{1, 0, 0, 256, 2}, want: abi.BadArgument},
		{name: "property", fn: "proxy_get_property", data: "a\x00b", args: []int64{256, 3, 8, 12}, check: textIs("value")},
		{name: "property missing", fn: "proxy_get_property", data: "zz", args: []int64{256, 2, 8, 12}, want: abi.NotFound},
		{name: "property without a form", fn: "proxy_get_property", data: "map", args: []int64{256, 3, 8, 12}, want: abi.SerializationFailure},
		{
			name: "local response", fn: "proxy_send_local_response", data: "my details", args: []int64{401, 256, 10, 256, 2, 0, 0, -1},
			check: func(t *testing.T, h *host, _ func(int) uint32, _ func() string) {
				if h.reply == nil || h.reply.Status != 401 || h.reply.Details != "my_details" || h.reply.Body != "my" || h.reply.GRPCStatus != -1 {
					t.Errorf("reply %+v", h.reply)
				}
			},
		},
		{name: "continue the request", fn: "proxy_continue_stream", args: []int64{0}},
		{name: "continue upstream", fn: "proxy_continue_stream", args: []int64{3}, want: abi.Unimplemented},
		{name: "continue stream 4", fn: "proxy_continue_stream", args: []int64{4}, want: abi.BadArgument},
		{name: "close stream 9999", fn: "proxy_close_stream", args: []int64{9999}, want: abi.BadArgument},
		{name: "effective context unknown", fn: "proxy_set_effective_context", args: []int64{77}, want: abi.BadArgument},
		{name: "done when nobody waits", fn: "proxy_done", want: abi.NotFound},
		{
			name: "tick", fn: "proxy_set_tick_period_milliseconds", args: []int64{250},
			check: func(t *testing.T, h *host, _ func(int) uint32, _ func() string) {
				if h.tick != 250*time.Millisecond {
					t.Errorf("tick %v", h.tick)
				}
			},
		},
		{name: "http call", fn: "proxy_http_call", data: "c" + request, args: []int64{256, 1, 257, int64(len(request)), 0, 0, 0, 0, 5000, 8}, check: wordIs(4)},
		{name: "http call to an unknown cluster", fn: "proxy_http_call", data: "x" + request, args: []int64{256, 1, 257, int64(len(request)), 0, 0, 0, 0, 5000, 8}, want: abi.BadArgument},
		{name: "http call with a negative timeout", fn: "proxy_http_call", data: "c" + request, args: []int64{256, 1, 257, int64(len(request)), 0, 0, 0, 0, -1, 8}, want: abi.BadArgument},
		{name: "http call without headers", fn: "proxy_http_call", data: "c", args: []int64{256, 1, 0, 0, 0, 0, 0, 0, 5, 8}, want: abi.BadArgument},
		{name: "grpc call to an unknown cluster", fn: "proxy_grpc_call", data: "x", args: []int64{256, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8}, want: abi.ParseFailure},
		{name: "grpc cancel", fn: "proxy_grpc_cancel", args: []int64{2}, want: abi.NotFound},
		{name: "shared data missing", fn: "proxy_get_shared_data", data: "k", args: []int64{256, 1, 8, 12, 16}, want: abi.NotFound},
		{name: "shared data set", fn: "proxy_set_shared_data", data: "kv", args: []int64{256, 1, 257, 1, 0}},
		{name: "shared data set with a cas for a new key", fn: "proxy_set_shared_data", data: "kv", args: []int64{256, 1, 257, 1, 9}},
		{name: "queue unknown", fn: "proxy_dequeue_shared_queue", args: []int64{99, 8, 12}, want: abi.NotFound},
		{name: "queue registered", fn: "proxy_register_shared_queue", data: "q", args: []int64{256, 1, 8}, check: wordIs(1)},
		{name: "queue resolved", fn: "proxy_resolve_shared_queue", data: "vmq", args: []int64{256, 2, 258, 1, 8}, want: abi.NotFound},
		{name: "counter", fn: "proxy_define_metric", data: "m", args: []int64{0, 256, 1, 8}, check: wordIs(4)},
		{name: "gauge", fn: "proxy_define_metric", data: "m", args: []int64{1, 256, 1, 8}, check: wordIs(5)},
		{name: "histogram", fn: "proxy_define_metric", data: "m", args: []int64{2, 256, 1, 8}, check: wordIs(6)},
		{name: "metric type 3", fn: "proxy_define_metric", data: "m", args: []int64{3, 256, 1, 8}, want: abi.BadArgument},
		{name: "increment unknown", fn: "proxy_increment_metric", args: []int64{4, 1}, wide: true, want: abi.NotFound},
		{name: "get unknown", fn: "proxy_get_metric", args: []int64{4, 8}, want: abi.NotFound},
		{name: "foreign function unknown", fn: "proxy_call_foreign_function", data: "nope", args: []int64{256, 4, 0, 0, 8, 12}, want: abi.NotFound},
		{
			name: "foreign clear_route_cache", fn: "proxy_call_foreign_function", data: "clear_route_cache", args: []int64{256, 17, 0, 0, 0, 0},
			check: func(t *testing.T, h *host, _ func(int) uint32, _ func() string) {
				if h.cleared != 1 {
					t.Error("not cleared")
				}
			},
		},
		{name: "foreign uncompress of rubbish", fn: "proxy_call_foreign_function", data: "uncompress", args: []int64{256, 10, 256, 4, 8, 12}, want: abi.SerializationFailure},
		{name: "time", fn: "proxy_get_current_time_nanoseconds", args: []int64{8}},
		{name: "time, bad pointer", fn: "proxy_get_current_time_nanoseconds", args: []int64{131070}, want: abi.InvalidMemoryAccess},
	}
	e := newEngine(t)
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := newHost()
			if tc.setup != nil {
				tc.setup(h)
			}
			m, err := module(e, tc.wat(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			v, err := m.NewVM(h, engine.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			v.Contexts[1] = h
			if err := v.Tick(h, 1); err != nil {
				t.Fatal(err)
			}
			mem := abi.Memory(v)
			out := func(i int) uint32 { return binary.LittleEndian.Uint32(mem[8+4*i:]) }
			if got := abi.Status(binary.LittleEndian.Uint32(mem)); got != tc.want {
				t.Fatalf("status %d, want %d; log %q", got, tc.want, h.lines)
			}
			if tc.check != nil {
				tc.check(t, h, out, func() string { return string(mem[out(0) : out(0)+out(1)]) })
			}
		})
	}
}

func TestLink(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	const body = `(memory (export "memory") 1) (func (export "malloc") (param i32) (result i32) (i32.const 8))`
	for _, tc := range []struct{ name, wat, want string }{
		{"no version", `(module ` + body + `)`, "missing or unknown Proxy-Wasm ABI version"},
		{"version of a fork", `(module (func (export "proxy_abi_version_0_2_100")) ` + body + `)`, "missing or unknown"},
		{"no allocator", `(module (func (export "proxy_abi_version_0_2_0")))`, "proxy_on_memory_allocate"},
		{"shape of 0.2 in 0.1", `(module (func (export "proxy_abi_version_0_1_0")) ` + body +
			`(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0)))`, "takes 3 parameters"},
		{"callback without a result", `(module (func (export "proxy_abi_version_0_2_1")) ` + body +
			`(func (export "proxy_on_request_body") (param i32 i32 i32)))`, "proxy_on_request_body"},
		{"nothing but the marker", `(module (func (export "proxy_abi_version_0_2_1")) ` + body + `)`, ""},
	} {
		m, err := module(e, tc.wat, nil)
		if err == nil {
			m.Close()
		}
		if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	c := hostCase{fn: "proxy_done"}
	run := func(allowed abi.Capabilities) (ran bool, s abi.Status) {
		m, err := module(newEngine(t), c.wat(), allowed)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		h := newHost()
		v, err := m.NewVM(h, engine.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		abi.Memory(v)[0] = 99
		if err := v.Tick(h, 1); err != nil {
			t.Fatal(err)
		}
		return abi.Memory(v)[0] != 99, abi.Status(abi.Memory(v)[0])
	}
	if ran, s := run(abi.Capabilities{"proxy_on_tick": true}); !ran || s != abi.InternalFailure {
		t.Errorf("a restricted function: ran %v, status %d", ran, s)
	}
	if ran, _ := run(abi.Capabilities{"proxy_done": true}); ran {
		t.Error("a restricted callback ran")
	}
}

func TestSharedData(t *testing.T) {
	t.Parallel()
	s := abi.NewShared(1000)
	s.Use("a")
	if abi.SetShared(s, "a", "k", []byte("1"), 0) != abi.OK {
		t.Fatal("set")
	}
	v, cas, ok := abi.GetShared(s, "a", "k")
	if !ok || string(v) != "1" || cas == 0 {
		t.Errorf("got %q, %d, %v", v, cas, ok)
	}
	if got := abi.SetShared(s, "a", "k", []byte("2"), cas+1); got != abi.CASMismatch {
		t.Errorf("wrong cas: %d", got)
	}
	if got := abi.SetShared(s, "a", "k", []byte("2"), cas); got != abi.OK {
		t.Errorf("right cas: %d", got)
	}
	if got := abi.SetShared(s, "a", "big", make([]byte, 1000), 0); got != abi.InternalFailure {
		t.Errorf("beyond the limit: %d", got)
	}
	abi.SetShared(s, "a", "k", nil, 0)
	if _, _, ok := abi.GetShared(s, "a", "k"); ok {
		t.Error("a null value doesn't delete")
	}
	abi.SetShared(s, "a", "k", []byte{}, 0)
	s.Use("a")
	s.Release("a")
	if _, _, ok := abi.GetShared(s, "a", "k"); !ok {
		t.Error("gone with the first of two users")
	}
	s.Release("a")
	s.Use("a")
	if _, _, ok := abi.GetShared(s, "a", "k"); ok {
		t.Error("outlives its last user")
	}
}

func FuzzPairs(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 0})
	f.Add(abi.AppendPairs(nil, [][2]string{{"a", "b"}, {"", ""}}))
	f.Add([]byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 'a', 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		var got [][2]string
		err := abi.EachPair(string(data), func(name, value string) { got = append(got, [2]string{name, value}) })
		if err != nil {
			if len(got) > 0 {
				t.Error("a bad list was taken in part")
			}
			return
		}
		var again [][2]string
		if err := abi.EachPair(string(abi.AppendPairs(nil, got)), func(name, value string) {
			again = append(again, [2]string{name, value})
		}); err != nil || fmt.Sprint(again) != fmt.Sprint(got) {
			t.Errorf("%q became %q (%v)", got, again, err)
		}
	})
}
