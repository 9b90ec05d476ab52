package server_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"sidecar/wasmhost/wasmtest"
	"sidecar/xds/xdstest"
)

// reenterPlugin asks its own listener for the path with an "x" more, and answers with what it hears; a
// path of four characters is the end.
const reenterPlugin = `(module
 (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_get_buffer_bytes" (func $buf (param i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 1)
 (global $heap (mut i32) (i32.const 4096))
 (data (i32.const 256) ":pathselfbottom")
 (data (i32.const 512) "\03\00\00\00\07\00\00\00\03\00\00\00\0a\00\00\00\01\00\00\00\05\00\00\00\00\00\00\00:method\00GET\00:authority\00a\00:path\00")
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param i32) (result i32)
  (global.get $heap) (global.set $heap (i32.add (global.get $heap) (local.get 0))))
 (func $must (param i32) (if (local.get 0) (then unreachable)))
 (func $answer (param i32 i32)
  (call $must (call $reply (i32.const 200) (i32.const 0) (i32.const 0) (local.get 0) (local.get 1) (i32.const 0) (i32.const 0) (i32.const -1))))
 (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $n i32)
  (call $must (call $get (i32.const 0) (i32.const 256) (i32.const 5) (i32.const 8) (i32.const 12)))
  (local.set $n (i32.load (i32.const 12)))
  (if (i32.eq (local.get $n) (i32.const 4)) (then (call $answer (i32.const 265) (i32.const 6)) (return (i32.const 1))))
  (memory.copy (i32.const 571) (i32.load (i32.const 8)) (local.get $n))
  (i32.store8 (i32.add (i32.const 571) (local.get $n)) (i32.const 120))
  (i32.store8 (i32.add (i32.const 572) (local.get $n)) (i32.const 0))
  (i32.store (i32.const 536) (i32.add (local.get $n) (i32.const 1)))
  (call $must (call $call (i32.const 261) (i32.const 4) (i32.const 512) (i32.add (i32.const 61) (local.get $n))
   (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const 8)))
  (i32.const 1))
 (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
  (call $must (call $buf (i32.const 4) (i32.const 0) (i32.const 100) (i32.const 8) (i32.const 12)))
  (call $answer (i32.load (i32.const 8)) (i32.load (i32.const 12)))))`

// TestWasm_Reenters has a plugin call through its own listener, three deep, in one VM.
func TestWasm_Reenters(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, own := range []string{"", "isolation: STREAM, "} {
		yaml := wasmListener(wasmtest.File(t, reenterPlugin), fmt.Sprintf(`  - name: self
    connect_timeout: 5s
    load_assignment: {cluster_name: self, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}}]}]}
`, port))
		yaml = strings.Replace(yaml, "port_value: 0", "port_value: "+port, 1)
		if own != "" {
			yaml = strings.Replace(yaml, "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm\n              config:",
				"type.googleapis.com/sidecar.wasm.v1.Wasm\n              isolation: STREAM\n              config:", 1)
		}
		p := live(t, yaml)
		for range 20 {
			if a := p.get(p.waitListener("in"), "/"); a.status != 200 || a.body != "bottom" {
				t.Fatalf("%s: %d %q", own, a.status, a.body)
			}
		}
		if err := p.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWasm_NetworkECDS has a network filter come by ECDS.
func TestWasm_NetworkECDS(t *testing.T) {
	t.Parallel()
	up, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	go echoAll(up)
	_, port, err := net.SplitHostPort(up.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	srv := xdstest.New(t)
	filter := func(wat string) *corev3.TypedExtensionConfig {
		return resource(t, &corev3.TypedExtensionConfig{}, fmt.Sprintf(`name: plug
typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm, config: {name: p, vm_config: {code: {local: {filename: %q}}}}}`,
			wasmtest.File(t, wat)))
	}
	srv.Set(filter(tcpPlugin))
	p := live(t, adsBootstrap("DELTA_GRPC", srv.Addr())+fmt.Sprintf(`  - name: up
    connect_timeout: 5s
    load_assignment: {cluster_name: up, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}}]}]}
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: plug
        config_discovery: {config_source: %s, type_urls: ["type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm"]}
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: up}
`, port, adsSource))
	in := p.waitListener("in")
	says := func() string {
		c, err := net.Dial("tcp", in)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 7)
		n, err := io.ReadAtLeast(c, b, 7)
		if err != nil {
			t.Fatalf("%q, %v", b[:n], err)
		}
		return string(b)
	}
	if got := says(); got != "><hello" {
		t.Errorf("%q", got)
	}
	srv.Set(filter(strings.Replace(tcpPlugin, `"<>"`, `"[]"`, 1)))
	p.wait("the new version", func() bool { return says() == "][hello" })
}

// echoAll serves connections that get back what they send.
func echoAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c) //nolint:errcheck // ends with the client
		}()
	}
}
