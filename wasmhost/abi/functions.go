package abi

import (
	"encoding/binary"
	"fmt"
	"strings"

	"sidecar/wasmhost/internal/engine"
)

// call is one host call: the VM and the parameters.
type call struct {
	vm *VM
	a  engine.Args
}

// hostFunc is a function of the ABI: its parameters as a signature and what it does. An error traps.
type hostFunc struct {
	name   string
	params string
	run    func(c call) (Status, error)
}

//nolint:gochecknoglobals // immutable table
var hostFuncs = []hostFunc{
	{"proxy_log", "iii", log},
	{"proxy_get_log_level", "i", getLogLevel},
	{"proxy_get_status", "iii", getStatus},
	{"proxy_get_property", "iiii", getProperty},
	{"proxy_set_property", "iiii", setProperty},
	{"proxy_get_configuration", "ii", getConfiguration},
	{"proxy_send_local_response", "iiiiiiii", sendLocalResponse},
	{"proxy_continue_request", "", func(c call) (Status, error) { return continueStream(c, RequestStream), nil }},
	{"proxy_continue_response", "", func(c call) (Status, error) { return continueStream(c, ResponseStream), nil }},
	{"proxy_continue_stream", "i", func(c call) (Status, error) { return continueStream(c, StreamType(c.a.U32(0))), nil }},
	{"proxy_close_stream", "i", closeStream},
	{"proxy_clear_route_cache", "", clearRouteCache},
	{"proxy_set_effective_context", "i", setEffectiveContext},
	{"proxy_done", "", done},
	{"proxy_call_foreign_function", "iiiiii", callForeignFunction},
	{"proxy_get_shared_data", "iiiii", getSharedData},
	{"proxy_set_shared_data", "iiiii", setSharedData},
	{"proxy_register_shared_queue", "iii", registerQueue},
	{"proxy_resolve_shared_queue", "iiiii", resolveQueue},
	{"proxy_enqueue_shared_queue", "iii", enqueue},
	{"proxy_dequeue_shared_queue", "iii", dequeue},
	{"proxy_get_header_map_value", "iiiii", getHeader},
	{"proxy_get_header_map_pairs", "iii", getPairs},
	{"proxy_get_header_map_size", "ii", getMapSize},
	{"proxy_add_header_map_value", "iiiii", addHeader},
	{"proxy_replace_header_map_value", "iiiii", replaceHeader},
	{"proxy_remove_header_map_value", "iii", removeHeader},
	{"proxy_set_header_map_pairs", "iii", setPairs},
	{"proxy_get_buffer_bytes", "iiiii", getBuffer},
	{"proxy_get_buffer_status", "iii", getBufferStatus},
	{"proxy_set_buffer_bytes", "iiiii", setBuffer},
	{"proxy_http_call", "iiiiiiiiii", httpCall},
	{"proxy_grpc_call", "iiiiiiiiiiii", grpcCall},
	{"proxy_grpc_stream", "iiiiiiiii", grpcStream},
	{"proxy_grpc_send", "iiii", grpcSend},
	{"proxy_grpc_close", "i", grpcClose},
	{"proxy_grpc_cancel", "i", grpcCancel},
	{"envoy_resolve_dns", "iii", resolveDNS},
	{"proxy_set_tick_period_milliseconds", "i", setTick},
	{"proxy_get_current_time_nanoseconds", "i", currentTime},
	{"proxy_define_metric", "iiii", defineMetric},
	{"proxy_increment_metric", "iI", incrementMetric},
	{"proxy_record_metric", "iI", recordMetric},
	{"proxy_get_metric", "ii", getMetric},
}

// functions is the ABI's part of the host; a function that is not allowed answers InternalFailure.
func functions(allowed Capabilities) []engine.HostFunc {
	out := make([]engine.HostFunc, 0, len(hostFuncs)+len(envFuncs))
	for i, f := range hostFuncs {
		run := f.run
		if !allowed.allows(f.name) {
			run = restricted(f.name)
		}
		out = append(out, observed(engine.HostFunc{
			Module: "env", Name: f.name, Signature: engine.Signature(f.params + ":i"),
			Call: func(in *engine.Instance, a engine.Args) (uint64, error) {
				vm, ok := in.Data.(*VM)
				if !ok {
					return 0, fmt.Errorf("%s: the instance is not a plugin's", f.name)
				}
				if vm.in == nil { // The start section runs inside NewVM.
					vm.in = in
				}
				s, err := run(call{vm, a})
				return uint64(s), err
			},
		}, i))
	}
	return append(out, envFuncs...)
}

func restricted(name string) func(call) (Status, error) {
	return func(c call) (Status, error) {
		c.vm.warnOnce("attempted call to restricted proxy-wasm capability: " + name)
		return InternalFailure, nil
	}
}

// envFuncs are what toolchains import from "env" besides the ABI.
//
//nolint:gochecknoglobals // immutable table
var envFuncs = []engine.HostFunc{
	{
		Module: "env", Name: "pthread_equal", Signature: "ii:i",
		Call: func(_ *engine.Instance, a engine.Args) (uint64, error) { return flag(a.U32(0) == a.U32(1)), nil },
	},
	{
		Module: "env", Name: "emscripten_notify_memory_growth", Signature: "i:",
		Call: func(*engine.Instance, engine.Args) (uint64, error) { return 0, nil },
	},
	// AssemblyScript's defaults, which fail to link in Envoy.
	{Module: "env", Name: "abort", Signature: "iiii:", Call: abort},
	{Module: "env", Name: "seed", Signature: ":F", Call: seed},
}

// bytes is the range that parameters i (address) and i+1 (length) give; shared with the guest, valid
// until the guest is called again.
func (c call) bytes(i int) ([]byte, bool) { return c.vm.in.Bytes(c.a.U32(i), c.a.U32(i+1)) }

// text is bytes as a string that shares the guest's memory.
func (c call) text(i int) (string, bool) { return c.vm.in.Text(c.a.U32(i), c.a.U32(i+1)) }

// name is a header name that the guest gives, in lower case.
func (c call) name(i int) (string, bool) {
	s, ok := c.text(i)
	return strings.ToLower(s), ok // Returns s itself when there is nothing to change.
}

// setWord writes v to the address that parameter i gives.
func (c call) setWord(i int, v uint32) bool {
	b, ok := c.vm.in.Bytes(c.a.U32(i), 4)
	if ok {
		binary.LittleEndian.PutUint32(b, v)
	}
	return ok
}

func (c call) setLong(i int, v uint64) bool {
	b, ok := c.vm.in.Bytes(c.a.U32(i), 8)
	if ok {
		binary.LittleEndian.PutUint64(b, v)
	}
	return ok
}

// word is an out parameter written as the only result.
func (c call) word(i int, v uint32) (Status, error) {
	if !c.setWord(i, v) {
		return InvalidMemoryAccess, nil
	}
	return OK, nil
}

// alloc asks the guest for n bytes. The error is the guest's trap.
func (c call) alloc(n int) (p uint32, s Status, err error) {
	r, err := c.vm.in.Call(int(c.vm.module.malloc), uint64(uint32(n)))
	if err != nil {
		return 0, InternalFailure, err
	}
	if uint32(r) == 0 {
		return 0, InvalidMemoryAccess, nil
	}
	return uint32(r), OK, nil
}

// reserve allocates n bytes in the guest, and writes their address and length to the out parameters
// i and i+1. Without n there is no allocation. The slice is the memory to fill.
func (c call) reserve(i, n int) ([]byte, Status, error) {
	var p uint32
	if n > 0 {
		var s Status
		var err error
		if p, s, err = c.alloc(n); err != nil || s != OK {
			return nil, s, err
		}
	}
	b, ok := c.vm.in.Bytes(p, uint32(n))
	if !ok || !c.setWord(i, p) || !c.setWord(i+1, uint32(n)) {
		return nil, InvalidMemoryAccess, nil
	}
	return b, OK, nil
}

// result hands data to the guest through the out parameters i and i+1. data must not be in the
// guest's memory, which may move.
func (c call) result(i int, data []byte) (Status, error) {
	b, s, err := c.reserve(i, len(data))
	copy(b, data)
	return s, err
}

func (c call) resultText(i int, data string) (Status, error) {
	b, s, err := c.reserve(i, len(data))
	copy(b, data)
	return s, err
}
