package server_test

import (
	"fmt"
	"strings"
	"testing"

	"sidecar/internal/server"
	"sidecar/wasmhost/wasmtest"
)

// logPlugin logs the request's path and the response's code at the end of streams.
const logPlugin = `(module
 (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
 (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_get_property" (func $prop (param i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 1)
 (global $heap (mut i32) (i32.const 4096))
 (data (i32.const 256) ":pathresponse\00codewrong")
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param i32) (result i32)
  (global.get $heap) (global.set $heap (i32.add (global.get $heap) (local.get 0))))
 (func $must (param i32) (if (local.get 0) (then unreachable)))
 (func (export "proxy_on_log") (param i32)
  (if (i32.ne (local.get 0) (i32.const 1)) (then unreachable))
  (call $must (call $get (i32.const 0) (i32.const 256) (i32.const 5) (i32.const 8) (i32.const 12)))
  (if (i32.ne (call $add (i32.const 0) (i32.const 256) (i32.const 5) (i32.const 256) (i32.const 5)) (i32.const 2)) (then unreachable))
  (drop (call $log (i32.const 2) (i32.load (i32.const 8)) (i32.load (i32.const 12))))
  (call $must (call $prop (i32.const 261) (i32.const 13) (i32.const 8) (i32.const 12)))
  (if (i64.ne (i64.load (i32.load (i32.const 8))) (i64.const 200)) (then unreachable))
  (global.set $heap (i32.const 4096))))`

// servicePlugin ticks once.
const servicePlugin = `(module
 (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
 (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
 (memory (export "memory") 1)
 (data (i32.const 256) "ticked")
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param i32) (result i32) (i32.const 1024))
 (func (export "proxy_on_configure") (param i32 i32) (result i32) (drop (call $period (i32.const 5))) (i32.const 1))
 (func (export "proxy_on_tick") (param i32) (drop (call $period (i32.const 0)))
  (drop (call $log (i32.const 2) (i32.const 256) (i32.const 6)))))`

// sinkPlugin logs the block of stats as far as it is text.
const sinkPlugin = `(module
 (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
 (import "env" "proxy_get_buffer_bytes" (func $buf (param i32 i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 64)
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param i32) (result i32) (i32.const 65536))
 (func (export "envoy_on_stats_update") (param i32 i32)
  (if (call $buf (i32.const 8) (i32.const 0) (local.get 1) (i32.const 8) (i32.const 12)) (then unreachable))
  (if (i32.ne (i32.load (i32.const 12)) (local.get 1)) (then unreachable))
  (if (i32.ne (i32.load (i32.const 65540)) (i32.const 1)) (then unreachable))
  (if (i32.ne (i32.load (i32.add (i32.const 65540) (i32.load (i32.const 65536)))) (i32.const 2)) (then unreachable))
  (if (i32.ne (i32.add (i32.load (i32.const 65536)) (i32.load (i32.add (i32.const 65536) (i32.load (i32.const 65536))))) (local.get 1)) (then unreachable))
  (drop (call $log (i32.const 2) (i32.load (i32.const 8)) (i32.load (i32.const 12))))))`

func TestWasm_Places(t *testing.T) {
	t.Parallel()
	plugin := func(name, wat string) string {
		return fmt.Sprintf(`{name: %s, vm_config: {code: {local: {filename: %q}}}}`, name, wasmtest.File(t, wat))
	}
	yaml := wasmListener(wasmtest.File(t, failing), http2Cluster("c", "127.0.0.1", "1"))
	yaml = strings.Replace(yaml, "          http_filters:\n          - name: wasm", `          access_log:
          - name: log
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.wasm.v3.WasmAccessLog
              config: `+plugin("alog", logPlugin)+`
          http_filters:
          - name: wasm
            disabled: true`, 1)
	p := live(t, yaml+`
stats_flush_interval: 0.05s
stats_sinks:
- name: sink
  typed_config: {"@type": type.googleapis.com/envoy.extensions.stat_sinks.wasm.v3.Wasm, config: `+plugin("sink", sinkPlugin)+`}
bootstrap_extensions:
- name: one
  typed_config: {"@type": type.googleapis.com/envoy.extensions.wasm.v3.WasmService, singleton: true, config: `+plugin("single", servicePlugin)+`}
- name: each
  typed_config: {"@type": type.googleapis.com/envoy.extensions.wasm.v3.WasmService, config: `+plugin("each", servicePlugin)+`}
`)
	in := p.waitListener("in")
	for i := range 20 {
		if a := p.get(in, fmt.Sprintf("/path%d", i)); a.status != 200 {
			t.Errorf("status %d", a.status)
		}
	}
	count := func(line string) int { return strings.Count(p.logs.String(), line) }
	p.wait("the access log", func() bool { return count("wasm log alog: /path") == 20 })
	p.wait("the services", func() bool {
		return count("wasm log single: ticked") == 1 && count("wasm log each: ticked") == 2
	})
	p.wait("the stat sink", func() bool {
		return count("wasm log sink: ") > 1 && count("http.in.downstream_rq_total") > 0
	})
	if n := p.stat("wasm.alog.vm_failures") + p.stat("wasm.sink.vm_failures"); n > 0 {
		t.Errorf("%d failures: %s", n, p.logs.String())
	}
}

func TestWasm_PlacesErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ yaml, want string }{
		"service without code": {`bootstrap_extensions: [{name: s, typed_config: {"@type": type.googleapis.com/envoy.extensions.wasm.v3.WasmService, config: {name: p}}}]`, "bootstrap_extensions[0].typed_config.config.vm_config: is required"},
		"sink without code":    {`stats_sinks: [{name: s, typed_config: {"@type": type.googleapis.com/envoy.extensions.stat_sinks.wasm.v3.Wasm, config: {name: p}}}]`, "stats_sinks[0].typed_config.config.vm_config: is required"},
		"another sink":         {`stats_sinks: [{name: s, typed_config: {"@type": type.googleapis.com/envoy.config.metrics.v3.StatsdSink}}]`, "stats_sinks[0].typed_config"},
	} {
		o, _ := options(t, adminYAML+c.yaml)
		if err := serverRun(t, o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// serverRun validates a bootstrap.
func serverRun(t *testing.T, o *server.Options) error {
	t.Helper()
	o.Mode = server.Validate
	return server.Run(t.Context(), o)
}
