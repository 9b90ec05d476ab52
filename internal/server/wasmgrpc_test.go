package server_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sidecar/wasmhost/wasmtest"
)

// rawCodec passes messages as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "raw" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, errors.New("no bytes")
	}
	return mem.BufferSlice{mem.SliceBuffer(*b)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return errors.New("no bytes")
	}
	*b = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = rawCodec{}

// grpcEcho answers each message with "echo:" before it; the method fail fails with what is sent.
func grpcEcho(t *testing.T) (host string, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(func(_ any, st grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(st)
		md, _ := metadata.FromIncomingContext(st.Context())
		if err := st.SetHeader(metadata.Pairs("k", "initial "+strings.Join(md.Get("x-m"), ""))); err != nil {
			return err
		}
		st.SetTrailer(metadata.Pairs("k", "trailing"))
		for {
			var m []byte
			if err := st.RecvMsg(&m); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if strings.HasSuffix(method, "/fail") {
				return status.Error(codes.ResourceExhausted, string(m))
			}
			m = append([]byte("echo:"), m...)
			if err := st.SendMsg(&m); err != nil {
				return err
			}
		}
	}))
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	host, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

// grpcPlugin calls the method that x-method names and answers with what comes. At its first tick, the
// root opens a stream, sends two messages and logs what comes.
const grpcPlugin = `(module
 (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
 (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
 (import "env" "proxy_get_buffer_bytes" (func $buf (param i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_get_status" (func $status (param i32 i32 i32) (result i32)))
 (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_grpc_call" (func $unary (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_grpc_stream" (func $open (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_grpc_send" (func $send (param i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_grpc_close" (func $close (param i32) (result i32)))
 (memory (export "memory") 1)
 (global $heap (mut i32) (i32.const 4096))
 (global $mode (mut i32) (i32.const 0))
 (data (i32.const 256) "grpcpkg.Svcx-methodonetwok")
 (data (i32.const 512) "\01\00\00\00\03\00\00\00\02\00\00\00x-m\00mv\00")
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param i32) (result i32)
  (global.get $heap) (global.set $heap (i32.add (global.get $heap) (local.get 0))))
 (func $must (param i32) (if (local.get 0) (then unreachable)))
 (func $say (drop (call $log (i32.const 2) (i32.load (i32.const 8)) (i32.load (i32.const 12)))))
 (func (export "proxy_on_configure") (param i32 i32) (result i32) (call $must (call $period (i32.const 10))) (i32.const 1))
 (func (export "proxy_on_tick") (param i32)
  (call $must (call $period (i32.const 0)))
  (call $must (call $open (i32.const 256) (i32.const 4) (i32.const 260) (i32.const 7) (i32.const 275) (i32.const 3)
   (i32.const 512) (i32.const 19) (i32.const 16)))
  (call $must (call $send (i32.load (i32.const 16)) (i32.const 275) (i32.const 3) (i32.const 0)))
  (call $must (call $send (i32.load (i32.const 16)) (i32.const 278) (i32.const 3) (i32.const 0)))
  (call $must (call $close (i32.load (i32.const 16)))))
 (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (call $must (call $get (i32.const 0) (i32.const 267) (i32.const 8) (i32.const 8) (i32.const 12)))
  (call $must (call $unary (i32.const 256) (i32.const 4) (i32.const 260) (i32.const 7)
   (i32.load (i32.const 8)) (i32.load (i32.const 12)) (i32.const 512) (i32.const 19) (i32.const 275) (i32.const 3) (i32.const 5000) (i32.const 16)))
  (i32.const 1))
 (func (export "proxy_on_grpc_receive_initial_metadata") (param i32 i32 i32)
  (call $must (call $get (i32.const 4) (i32.const 281) (i32.const 1) (i32.const 8) (i32.const 12))) (call $say))
 (func (export "proxy_on_grpc_receive_trailing_metadata") (param i32 i32 i32)
  (call $must (call $get (i32.const 5) (i32.const 281) (i32.const 1) (i32.const 8) (i32.const 12))) (call $say))
 (func (export "proxy_on_grpc_receive") (param i32 i32 i32)
  (call $must (call $buf (i32.const 5) (i32.const 0) (i32.const 100) (i32.const 8) (i32.const 12)))
  (if (i32.and (local.get 1) (i32.const 2)) (then (call $say) (return)))
  (call $must (call $reply (i32.const 200) (i32.const 0) (i32.const 0) (i32.load (i32.const 8)) (i32.load (i32.const 12)) (i32.const 0) (i32.const 0) (i32.const -1))))
 (func (export "proxy_on_grpc_close") (param i32 i32 i32)
  (call $must (call $status (i32.const 20) (i32.const 8) (i32.const 12)))
  (if (i32.and (local.get 1) (i32.const 2)) (then (drop (call $log (i32.const 2) (i32.const 281) (i32.const 1))) (return)))
  (call $must (call $reply (i32.add (i32.const 500) (local.get 2)) (i32.const 0) (i32.const 0) (i32.load (i32.const 8)) (i32.load (i32.const 12)) (i32.const 0) (i32.const 0) (i32.const -1)))))`

// wasmListener is a listener "in" with a plugin before a router that is not reached.
func wasmListener(file, clusters string) string {
	return fmt.Sprintf(`
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
          route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]}
          http_filters:
          - name: wasm
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config: {name: p, vm_config: {code: {local: {filename: %q}}}}
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
%s`, file, clusters)
}

func http2Cluster(name, host, port string) string {
	return fmt.Sprintf(`  - name: %[1]s
    connect_timeout: 5s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: %[1]s, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %[2]s, port_value: %[3]s}}}}]}]}
`, name, host, port)
}

func TestWasm_GRPCCallOuts(t *testing.T) {
	t.Parallel()
	host, port := grpcEcho(t)
	p := live(t, wasmListener(wasmtest.File(t, grpcPlugin), http2Cluster("grpc", host, port)))
	in := p.waitListener("in")
	tr := noReuse(t)
	for method, want := range map[string]struct {
		status int
		body   string
	}{"ok": {200, "echo:one"}, "fail": {508, "one"}} {
		a, err := getWith(t, tr, in, "x-method", method)
		if err != nil || a.status != want.status || a.body != want.body {
			t.Errorf("%s: %d %q %v", method, a.status, a.body, err)
		}
	}
	for _, line := range []string{": initial mv", ": echo:one", ": echo:two", ": trailing", ": k"} {
		p.wait("log line "+line, func() bool { return strings.Contains(p.logs.String(), "wasm log p"+line) })
	}
}

// getWith is get with a header.
func getWith(t *testing.T, rt http.RoundTripper, addr, name, value string) (answer, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/", http.NoBody)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set(name, value)
	res, err := rt.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(b)}, err
}
