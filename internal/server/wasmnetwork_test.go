package server_test

import (
	"fmt"
	"io"
	"net"
	"testing"

	"sidecar/wasmhost/wasmtest"
)

// tcpPlugin puts "<" before what the client sends and ">" before what the upstream sends.
const tcpPlugin = `(module
 (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 1)
 (data (i32.const 256) "<>")
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param i32) (result i32) (i32.const 1024))
 (func (export "proxy_on_downstream_data") (param i32 i32 i32) (result i32)
  (if (local.get 1) (then (drop (call $set (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 256) (i32.const 1))))) (i32.const 0))
 (func (export "proxy_on_upstream_data") (param i32 i32 i32) (result i32)
  (if (local.get 1) (then (drop (call $set (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 257) (i32.const 1))))) (i32.const 0)))`

func TestWasm_NetworkFilter(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go echoAll(l)
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p := live(t, fmt.Sprintf(`
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: wasm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm
          config: {name: p, vm_config: {code: {local: {filename: %q}}}}
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: up}
  clusters:
  - name: up
    connect_timeout: 5s
    load_assignment: {cluster_name: up, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]}
`, wasmtest.File(t, tcpPlugin), host, port))
	c, err := net.Dial("tcp", p.waitListener("in"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 7)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "><hello" {
			t.Fatalf("%q, %v", b, err)
		}
	}
}
