package abi

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"sidecar/wasmhost/internal/engine"
)

// shapes says how the parameters of a function are written: words of the form name:kind. A kind in
// capitals is written by the host. str, pairs, path and their like take two parameters: an address and
// a length.
//
//nolint:gochecknoglobals // immutable table
var shapes = map[string]string{
	"proxy_log":                          "level:level message:str",
	"proxy_get_log_level":                "level:LEVEL",
	"proxy_get_status":                   "code:U32 message:STR",
	"proxy_get_property":                 "path:path value:STR",
	"proxy_set_property":                 "path:path value:str",
	"proxy_get_configuration":            "value:STR",
	"proxy_send_local_response":          "status:u32 details:str body:str headers:pairs grpc_status:i32",
	"proxy_continue_stream":              "stream:stream",
	"proxy_close_stream":                 "stream:stream",
	"proxy_set_effective_context":        "context:u32",
	"proxy_call_foreign_function":        "name:str arguments:str result:STR",
	"proxy_get_shared_data":              "key:str value:STR cas:U32",
	"proxy_set_shared_data":              "key:str value:str cas:u32",
	"proxy_register_shared_queue":        "name:str token:U32",
	"proxy_resolve_shared_queue":         "vm_id:str name:str token:U32",
	"proxy_enqueue_shared_queue":         "token:u32 data:str",
	"proxy_dequeue_shared_queue":         "token:u32 data:STR",
	"proxy_get_header_map_value":         "map:map key:str value:STR",
	"proxy_get_header_map_pairs":         "map:map pairs:PAIRS",
	"proxy_get_header_map_size":          "map:map size:U32",
	"proxy_add_header_map_value":         "map:map key:str value:str",
	"proxy_replace_header_map_value":     "map:map key:str value:str",
	"proxy_remove_header_map_value":      "map:map key:str",
	"proxy_set_header_map_pairs":         "map:map pairs:pairs",
	"proxy_get_buffer_bytes":             "buffer:buffer start:u32 max_size:u32 data:STR",
	"proxy_get_buffer_status":            "buffer:buffer size:U32 flags:U32",
	"proxy_set_buffer_bytes":             "buffer:buffer start:u32 size:u32 data:str",
	"proxy_http_call":                    "cluster:str headers:pairs body:str trailers:pairs timeout_ms:i32 token:U32",
	"proxy_grpc_call":                    "service:str name:str method:str metadata:pairs message:str timeout_ms:i32 token:U32",
	"proxy_grpc_stream":                  "service:str name:str method:str metadata:pairs token:U32",
	"proxy_grpc_send":                    "token:u32 message:str end_of_stream:bool",
	"proxy_grpc_close":                   "token:u32",
	"proxy_grpc_cancel":                  "token:u32",
	"proxy_set_tick_period_milliseconds": "period:u32",
	"proxy_get_current_time_nanoseconds": "time:U64",
	"proxy_define_metric":                "type:metric name:str metric:U32",
	"proxy_increment_metric":             "metric:u32 delta:i64",
	"proxy_record_metric":                "metric:u32 value:u64",
	"proxy_get_metric":                   "metric:u32 value:U64",
	"envoy_resolve_dns":                  "name:str token:U32",
}

// callbackShapes are the parameters of callbacks, and after -> what they return.
//
//nolint:gochecknoglobals // immutable table
var callbackShapes = map[string]string{
	"proxy_on_context_create":                  "context parent",
	"proxy_on_vm_start":                        "context vm_configuration_size -> bool",
	"proxy_on_configure":                       "context plugin_configuration_size -> bool",
	"proxy_on_tick":                            "context",
	"proxy_on_request_headers":                 "context headers end_of_stream -> headers",
	"proxy_on_request_body":                    "context body_size end_of_stream -> body",
	"proxy_on_request_trailers":                "context trailers -> trailers",
	"proxy_on_response_headers":                "context headers end_of_stream -> headers",
	"proxy_on_response_body":                   "context body_size end_of_stream -> body",
	"proxy_on_response_trailers":               "context trailers -> trailers",
	"proxy_on_http_call_response":              "context token headers body_size trailers",
	"proxy_on_queue_ready":                     "context token",
	"proxy_on_done":                            "context -> bool",
	"proxy_on_log":                             "context",
	"proxy_on_delete":                          "context",
	"proxy_on_new_connection":                  "context -> trailers",
	"proxy_on_downstream_data":                 "context data_size end_of_stream -> trailers",
	"proxy_on_upstream_data":                   "context data_size end_of_stream -> trailers",
	"proxy_on_downstream_connection_close":     "context peer",
	"proxy_on_upstream_connection_close":       "context peer",
	"proxy_on_foreign_function":                "context function size",
	"proxy_on_grpc_receive_initial_metadata":   "context token headers",
	"proxy_on_grpc_receive":                    "context token message_size",
	"proxy_on_grpc_receive_trailing_metadata":  "context token trailers",
	"proxy_on_grpc_close":                      "context token status",
	"proxy_on_memory_allocate":                 "size",
	"malloc":                                   "size",
	"envoy_on_resolve_dns":                     "context token result_size",
	"envoy_on_stats_update":                    "context result_size",
	"proxy_on_request_metadata":                "context elements -> trailers",
	"proxy_on_response_metadata":               "context elements -> trailers",
	"proxy_validate_configuration":             "context configuration_size -> bool",
	"proxy_on_upstream_connection_established": "context",
}

// words are the names of enumerations, by the kind of a parameter or result.
//
//nolint:gochecknoglobals // immutable table
var words = map[string][]string{
	"level":  {"trace", "debug", "info", "warn", "error", "critical"},
	"bool":   {"false", "true"},
	"stream": {"request", "response", "downstream", "upstream"},
	"metric": {"counter", "gauge", "histogram"},
	"map": {
		"request_headers", "request_trailers", "response_headers", "response_trailers",
		"grpc_initial_metadata", "grpc_trailing_metadata", "http_call_response_headers",
		"http_call_response_trailers",
	},
	"buffer": {
		"request_body", "response_body", "downstream_data", "upstream_data", "http_call_response_body",
		"grpc_message", "vm_configuration", "plugin_configuration", "foreign_function_arguments",
	},
	"headers": {
		"Continue", "StopIteration", "ContinueAndEndStream", "StopAllIterationAndBuffer",
		"StopAllIterationAndWatermark",
	},
	"body": {
		"Continue", "StopIterationAndBuffer", "StopIterationAndWatermark", "StopIterationNoBuffer",
	},
	"trailers": {"Continue", "StopIteration"},
}

// statuses by their number.
//
//nolint:gochecknoglobals // immutable table
var statuses = [...]string{
	"OK", "NOT_FOUND", "BAD_ARGUMENT", "SERIALIZATION_FAILURE", "PARSE_FAILURE", "BAD_EXPRESSION",
	"INVALID_MEMORY_ACCESS", "EMPTY", "CAS_MISMATCH", "RESULT_MISMATCH", "INTERNAL_FAILURE",
	"BROKEN_CONNECTION", "UNIMPLEMENTED",
}

// String is the name that the specification gives the status.
func (s Status) String() string { return statusName(uint64(s)) }

func statusName(s uint64) string {
	if s < uint64(len(statuses)) {
		return statuses[s]
	}
	return strconv.FormatUint(s, 10)
}

func errnoName(e uint64) string {
	if e == 0 {
		return statuses[OK]
	}
	return "errno " + strconv.FormatUint(e, 10)
}

func wordFor(kind string, v uint64) string {
	if list := words[kind]; v < uint64(len(list)) {
		return list[v]
	}
	return strconv.FormatUint(v, 10)
}

func describeCallback(cb callback, args []uint64) string {
	name := callbacks[cb].Name
	params, _, _ := strings.Cut(callbackShapes[name], "->")
	var b strings.Builder
	b.WriteString(name + "(")
	names := strings.Fields(params)
	for i, a := range args {
		if i > 0 {
			b.WriteString(", ")
		}
		if i < len(names) {
			b.WriteString(names[i] + "=")
			if names[i] == "end_of_stream" {
				b.WriteString(wordFor("bool", a))
				continue
			}
		}
		b.WriteString(strconv.FormatUint(a, 10))
	}
	b.WriteByte(')')
	return b.String()
}

func describeResult(cb callback, v *VM, r uint64) string {
	_, kind, ok := strings.Cut(callbackShapes[callbacks[cb].Name], "-> ")
	if !ok || v.module == nil {
		return ""
	}
	if kind == "bool" && r > 1 {
		r = 1
	}
	return wordFor(kind, uint64(uint32(r)))
}

// takesTwo tells whether a kind is an address and a length.
func takesTwo(kind string) bool {
	switch strings.ToLower(kind) {
	case "str", "pairs", "path":
		return true
	}
	return false
}

// eachParam walks the parameters of a function with the positions of their arguments.
func eachParam(f engine.HostFunc, yield func(name, kind string, at int)) {
	shape, known := shapes[f.Name]
	if !known {
		for i := range f.Signature.Params() {
			yield("", "u32", i)
		}
		return
	}
	at := 0
	for param := range strings.FieldsSeq(shape) {
		name, kind, _ := strings.Cut(param, ":")
		yield(name, kind, at)
		at++
		if takesTwo(kind) {
			at++
		}
	}
}

// describeCall writes a call with what the guest gives.
func describeCall(in *engine.Instance, f engine.HostFunc, a engine.Args) HostCall {
	var parts []string
	eachParam(f, func(name, kind string, at int) {
		if kind == strings.ToUpper(kind) {
			return
		}
		text := argument(in, kind, a, at)
		if name != "" {
			text = name + "=" + text
		}
		parts = append(parts, text)
	})
	return HostCall{Name: f.Name, Args: strings.Join(parts, ", ")}
}

func argument(in *engine.Instance, kind string, a engine.Args, at int) string {
	switch kind {
	case "u32":
		return strconv.FormatUint(uint64(a.U32(at)), 10)
	case "i32":
		return strconv.Itoa(int(int32(a.U32(at))))
	case "u64":
		return strconv.FormatUint(a.U64(at), 10)
	case "i64":
		return strconv.FormatInt(int64(a.U64(at)), 10)
	case "str", "path", "pairs":
		return content(in, kind, a.U32(at), a.U32(at+1))
	}
	return wordFor(kind, uint64(a.U32(at)))
}

// describeResults writes what the host handed out.
func describeResults(in *engine.Instance, f engine.HostFunc, a engine.Args) string {
	var parts []string
	eachParam(f, func(name, kind string, at int) {
		if kind != strings.ToUpper(kind) {
			return
		}
		if text, ok := result(in, kind, a, at); ok {
			parts = append(parts, name+"="+text)
		}
	})
	return strings.Join(parts, ", ")
}

func result(in *engine.Instance, kind string, a engine.Args, at int) (string, bool) {
	read := func(i int) (uint64, bool) {
		n := uint32(4)
		if kind == "U64" {
			n = 8
		}
		b, ok := in.Bytes(a.U32(i), n)
		switch {
		case !ok || a.U32(i) == 0:
			return 0, false
		case n == 8:
			return binary.LittleEndian.Uint64(b), true
		}
		return uint64(binary.LittleEndian.Uint32(b)), true
	}
	v, ok := read(at)
	if !ok {
		return "", false
	}
	switch kind {
	case "U32", "U64":
		return strconv.FormatUint(v, 10), true
	case "STR", "PAIRS":
		n, ok := read(at + 1)
		return content(in, strings.ToLower(kind), uint32(v), uint32(n)), ok
	}
	return wordFor(strings.ToLower(kind), v), true
}

// shownBytes is how much of a text is written.
const shownBytes = 256

// content writes bytes of the guest: quoted text, pairs in braces, a path with dots.
func content(in *engine.Instance, kind string, p, n uint32) string {
	b, ok := in.Text(p, n)
	if !ok {
		return fmt.Sprintf("(outside of memory: %#x+%d)", p, n)
	}
	switch kind {
	case "path":
		return strconv.Quote(strings.ReplaceAll(strings.TrimSuffix(clip(b), "\x00"), "\x00", "."))
	case "pairs":
		var parts []string
		err := eachPair(b, func(name, value string) {
			if len(parts) < 64 {
				parts = append(parts, clip(name)+": "+clip(value))
			}
		})
		if err != nil {
			return "(" + err.Error() + ")"
		}
		return fmt.Sprintf("{%q}", parts)
	}
	return quote(b)
}

func clip(s string) string { return strings.Clone(s[:min(len(s), shownBytes)]) }

func quote(s string) string {
	shown := clip(s)
	if !utf8.ValidString(s[:min(len(s), shownBytes)]) && len(s) <= shownBytes && len(s) <= 16 {
		return fmt.Sprintf("0x%x", shown)
	}
	if len(s) > shownBytes {
		return strconv.Quote(shown) + fmt.Sprintf("... (%d bytes)", len(s))
	}
	return strconv.Quote(shown)
}
