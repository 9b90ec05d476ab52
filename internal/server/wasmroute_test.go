package server_test

import (
	"fmt"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"sidecar/wasmhost/wasmtest"
	"sidecar/xds/xdstest"
)

func TestWasm_PerRoute(t *testing.T) {
	t.Parallel()
	config := func(v string) string {
		return `typed_per_filter_config: {wasm: {"@type": type.googleapis.com/sidecar.wasm.v1.WasmPerRoute, ` + v + `}}`
	}
	text := func(v string) string {
		return config(`configuration: {"@type": type.googleapis.com/google.protobuf.StringValue, value: ` + v + `}`)
	}
	p := live(t, fmt.Sprintf(`
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            virtual_hosts:
            - name: v
              domains: ["*"]
              routes:
              - {match: {prefix: /one}, direct_response: {status: 200}, %s}
              - {match: {prefix: /two}, direct_response: {status: 200}, %s}
              - {match: {prefix: /off}, direct_response: {status: 200}, %s}
              - {match: {prefix: /}, direct_response: {status: 200}}
          http_filters:
          - name: wasm
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config: %s
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`, text("one"), text("two"), config("disabled: true"), pluginConfig("base")))
	in := p.waitListener("in")
	for range 2 {
		for path, want := range map[string]string{"/one": "one", "/two": "two", "/off": "", "/": "base"} {
			if a := p.get(in, path); a.status != 200 || a.header.Get("X-Plugin-Version") != want {
				t.Errorf("%s: %d %q", path, a.status, a.header.Get("X-Plugin-Version"))
			}
		}
	}
}

// failing traps at each request.
const failing = `(module (memory (export "memory") 1)
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param i32) (result i32) (i32.const 1024))
 (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))`

func TestWasm_Canary(t *testing.T) {
	t.Parallel()
	up := upstream(t, "up")
	srv := xdstest.New(t)
	own := func(config string) *corev3.TypedExtensionConfig {
		return resource(t, &corev3.TypedExtensionConfig{}, `name: plug
typed_config: {"@type": type.googleapis.com/sidecar.wasm.v1.Wasm, `+config+"}")
	}
	srv.Set(edsCluster(t, "a"), endpoints(t, "a", up), routes(t, "r", "a"), own("config: "+pluginConfig("v1")),
		rdsListener(t, "l", "r", `      - {name: plug, config_discovery: {config_source: `+adsSource+
			`, type_urls: ["type.googleapis.com/sidecar.wasm.v1.Wasm"]}}`, ""))
	p := live(t, adsBootstrap("DELTA_GRPC", srv.Addr()))
	l := p.waitListener("l")
	if a := p.get(l, "/"); a.header.Get("X-Plugin-Version") != "v1" {
		t.Fatalf("%d %v", a.status, a.header)
	}
	srv.Set(own(fmt.Sprintf("canary: {percent: 50, errors: 2}, config: {name: plug, vm_config: {code: {local: {filename: %q}}}}",
		wasmtest.File(t, failing))))
	failed := 0
	p.wait("the canary's end", func() bool {
		if p.get(l, "/").status == 503 {
			failed++
		}
		return strings.Contains(p.logs.String(), "canary rolled back")
	})
	if failed != 3 {
		t.Errorf("%d requests failed", failed)
	}
	for range 50 {
		if a := p.get(l, "/"); a.status != 200 || a.header.Get("X-Plugin-Version") != "v1" {
			t.Fatalf("afterwards: %d %v", a.status, a.header)
		}
	}
}
