package abi_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"sidecar/api/header"
	"sidecar/wasmhost/abi"
	"sidecar/wasmhost/internal/engine"
)

// calls runs one host call after another in one VM, each in a module of its own shape would be too much:
// the guest is a table of forwarders.
type calls struct {
	t  *testing.T
	h  *host
	vm *abi.VM
}

// run makes one host call in a fresh VM.
func run(t *testing.T, h *host, c hostCase) (abi.Status, func(int) uint32, func() string) {
	t.Helper()
	e := newEngine(t)
	m, err := module(e, c.wat(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	vm, err := m.NewVM(h, engine.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vm.Close)
	k := &calls{t, h, vm}
	return k.call()
}

func (k *calls) call() (abi.Status, func(int) uint32, func() string) {
	k.t.Helper()
	if err := k.vm.Tick(k.h, 1); err != nil {
		k.t.Fatal(err)
	}
	memory := abi.Memory(k.vm)
	at := func(p uint32) uint32 {
		return uint32(memory[p]) | uint32(memory[p+1])<<8 | uint32(memory[p+2])<<16 | uint32(memory[p+3])<<24
	}
	out := func(i int) uint32 { return at(uint32(8 + 4*i)) }
	return abi.Status(at(0)), out, func() string { return string(memory[out(0) : out(0)+out(1)]) }
}

func TestGRPCCall(t *testing.T) {
	t.Parallel()
	service, err := proto.Marshal(&corev3.GrpcService{
		TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "c", Authority: "a"}},
		InitialMetadata: []*corev3.HeaderValue{{Key: "K", Value: "v"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := proto.Marshal(&corev3.GrpcService{
		TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "x"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	google, err := proto.Marshal(&corev3.GrpcService{
		TargetSpecifier: &corev3.GrpcService_GoogleGrpc_{GoogleGrpc: &corev3.GrpcService_GoogleGrpc{TargetUri: "c"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	meta := pairs([2]string{"X-M", "1"})
	for _, c := range []struct {
		name, service string
		stream        bool
		want          abi.Status
		authority     string
		metadata      [][2]string
	}{
		{"by name", "c", false, abi.OK, "", [][2]string{{"x-m", "1"}}},
		{"by message", string(service), false, abi.OK, "a", [][2]string{{"k", "v"}, {"x-m", "1"}}},
		{"stream", "c", true, abi.OK, "", [][2]string{{"x-m", "1"}}},
		{"unknown name", "x", false, abi.ParseFailure, "", nil},
		{"unknown cluster of a message", string(unknown), false, abi.InternalFailure, "", nil},
		{"google", string(google), true, abi.BadArgument, "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHost()
			n := int64(len(c.service))
			data := c.service + "svc" + "mth" + meta + "msg"
			args := []int64{256, n, 256 + n, 3, 259 + n, 3, 262 + n, int64(len(meta))}
			fn := "proxy_grpc_stream"
			if !c.stream {
				fn = "proxy_grpc_call"
				args = append(args, 262+n+int64(len(meta)), 3, 1500)
			}
			s, out, _ := run(t, h, hostCase{fn: fn, data: data, args: append(args, 8)})
			if s != c.want {
				t.Fatalf("%v, want %v", s, c.want)
			}
			if s != abi.OK {
				return
			}
			g := h.grpc
			if out(0) != 5 || g.Cluster != "c" || g.Service != "svc" || g.Method != "mth" || g.Authority != c.authority ||
				!slices.Equal(g.Metadata, c.metadata) || g.Stream != c.stream {
				t.Errorf("%+v", g)
			}
			if !c.stream && (string(g.Message) != "msg" || g.Timeout != 1500*time.Millisecond) {
				t.Errorf("%+v", g)
			}
		})
	}
}

func TestGRPCSendAndDNS(t *testing.T) {
	t.Parallel()
	h := newHost()
	if s, _, _ := run(t, h, hostCase{fn: "proxy_grpc_send", data: "m", args: []int64{6, 256, 1, 1}}); s != abi.OK {
		t.Error(s)
	}
	if s, out, _ := run(t, h, hostCase{fn: "envoy_resolve_dns", data: "host", args: []int64{256, 4, 8}}); s != abi.OK || out(0) != 8 {
		t.Error(s)
	}
	if s, _, _ := run(t, h, hostCase{fn: "envoy_resolve_dns", data: "host", args: []int64{256, 4, far}}); s != abi.InvalidMemoryAccess {
		t.Error(s)
	}
	if want := []string{"6mtrue", "host"}; !slices.Equal(h.sent, want) {
		t.Errorf("%q", h.sent)
	}
}

// grpcGuest logs what it sees in each gRPC callback.
const grpcGuest = `(module
 (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
 (import "env" "proxy_get_buffer_bytes" (func $buf (param i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 1)
 (data (i32.const 256) "k")
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param i32) (result i32) (i32.const 1024))
 (func $header (param $map i32)
  (if (i32.eqz (call $get (local.get $map) (i32.const 256) (i32.const 1) (i32.const 8) (i32.const 12)))
   (then (drop (call $log (i32.const 2) (i32.load (i32.const 8)) (i32.load (i32.const 12)))))))
 (func $buffer (param $b i32)
  (if (i32.eqz (call $buf (local.get $b) (i32.const 0) (i32.const 100) (i32.const 8) (i32.const 12)))
   (then (drop (call $log (i32.const 2) (i32.load (i32.const 8)) (i32.load (i32.const 12)))))))
 (func (export "proxy_on_grpc_receive_initial_metadata") (param i32 i32 i32) (call $header (i32.const 4)))
 (func (export "proxy_on_grpc_receive") (param i32 i32 i32) (call $buffer (i32.const 5)))
 (func (export "proxy_on_grpc_receive_trailing_metadata") (param i32 i32 i32) (call $header (i32.const 5)))
 (func (export "envoy_on_resolve_dns") (param i32 i32 i32) (call $buffer (i32.const 8)))
 (func (export "envoy_on_stats_update") (param i32 i32) (call $buffer (i32.const 8)))
 (func (export "proxy_on_grpc_close") (param i32 i32 i32) (if (i32.ne (local.get 2) (i32.const 7)) (then unreachable))))`

func TestGRPCCallbacks(t *testing.T) {
	t.Parallel()
	m, err := module(newEngine(t), grpcGuest, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	h := newHost()
	vm, err := m.NewVM(h, engine.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vm.Close)
	initial, trailing := new(header.Map), new(header.Map)
	initial.Add("k", "first")
	trailing.Add("k", "last")
	for _, step := range []func() error{
		func() error { return vm.GRPCMetadata(h, 1, 6, false, initial) },
		func() error { return vm.GRPCReceive(h, 1, 6, []byte("message")) },
		func() error { return vm.GRPCMetadata(h, 1, 6, true, trailing) },
		func() error { return vm.GRPCClosed(h, 1, 6, 7) },
		func() error { return vm.DNSResolved(h, 1, 8, []byte("dns")) },
		func() error { return vm.StatsUpdate(h, 1, []byte("stats")) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"first", "message", "last", "dns", "stats"}; !slices.Equal(h.lines, want) {
		t.Errorf("%q", h.lines)
	}
}

// foreignCase calls a foreign function.
func foreignCase(name, argument string) hostCase {
	n := int64(len(name))
	return hostCase{
		fn: "proxy_call_foreign_function", data: name + argument, args: []int64{256, n, 256 + n, int64(len(argument)), 8, 12},
	}
}

// message encodes fields, texts by their numbers from 1 and numbers as varints.
func message(fields map[protowire.Number]any) string {
	var b []byte
	for n := protowire.Number(1); n < 10; n++ {
		switch v := fields[n].(type) {
		case string:
			b = protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), v)
		case int:
			b = protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), uint64(v))
		}
	}
	return string(b)
}

func TestForeignProperties(t *testing.T) {
	t.Parallel()
	h := newHost()
	for _, c := range []struct {
		name, argument string
		want           abi.Status
	}{
		{"set_envoy_filter_state", message(map[protowire.Number]any{1: "n", 2: "v"}), abi.OK},
		{"set_envoy_filter_state", message(map[protowire.Number]any{1: "n", 2: "v", 3: 2}), abi.BadArgument},
		{"set_envoy_filter_state", "\x0a", abi.BadArgument},
		{"declare_property", message(map[protowire.Number]any{1: "n", 2: 1, 3: 1}), abi.OK},
		{"declare_property", message(map[protowire.Number]any{1: "n", 5: 2}), abi.BadArgument},
		{"declare_property", "\xff", abi.BadArgument},
		{"clear_route_cache", "", abi.OK},
		{"sidecar_get_header_map_values", "\x00\x00\x00\x00X-A", abi.OK},
		{"sidecar_get_header_map_values", "\x00\x00\x00\x00none", abi.NotFound},
		{"sidecar_get_header_map_values", "\x63\x00\x00\x00x", abi.BadArgument},
		{"sidecar_get_header_map_values", "", abi.BadArgument},
		{"sidecar_delete_shared_data", "\x00\x00\x00\x00none", abi.NotFound},
		{"sidecar_delete_shared_data", "", abi.BadArgument},
		{"expr_create", "1 +", abi.BadArgument},
		{"expr_evaluate", "\x09\x00\x00\x00", abi.NotFound},
		{"expr_evaluate", "", abi.BadArgument},
		{"expr_delete", "\x09\x00\x00\x00", abi.OK},
		{"expr_delete", "", abi.BadArgument},
		{"verify_signature", "\xff", abi.BadArgument},
		{"sign", "", abi.BadArgument},
	} {
		s, _, text := run(t, h, foreignCase(c.name, c.argument))
		if s != c.want {
			t.Errorf("%s(%q): %v, want %v", c.name, c.argument, s, c.want)
		}
		if c.name == "sidecar_get_header_map_values" && s == abi.OK {
			if got, want := text(), pairs([2]string{"1"}, [2]string{"2"}); got != want {
				t.Errorf("values %q, want %q", got, want)
			}
		}
	}
	if h.props["state n"] != "v" {
		t.Errorf("%q", h.props)
	}
}

// exprGuest makes an expression of what is at 256 and evaluates it in a callback of a stream.
const exprGuest = `(module
 (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
 (import "env" "proxy_call_foreign_function" (func $f (param i32 i32 i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 1)
 (global $heap (mut i32) (i32.const 4096))
 (data (i32.const 256) "expr_createexpr_evaluateexpr_deletea.b == 'value' && n + 1 == 42")
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param i32) (result i32)
  (global.get $heap) (global.set $heap (i32.add (global.get $heap) (local.get 0))))
 (func $must (param i32) (if (local.get 0) (then unreachable)))
 (func (export "proxy_on_tick") (param i32) (local $token i32)
  (call $must (call $f (i32.const 256) (i32.const 11) (i32.const 291) (i32.const 29) (i32.const 8) (i32.const 12)))
  (local.set $token (i32.load (i32.const 8)))
  (call $must (call $f (i32.const 267) (i32.const 13) (local.get $token) (i32.const 4) (i32.const 8) (i32.const 12)))
  (drop (call $log (i32.const 2) (i32.load (i32.const 8)) (i32.load (i32.const 12))))
  (call $must (call $f (i32.const 280) (i32.const 11) (local.get $token) (i32.const 4) (i32.const 8) (i32.const 12)))
  (if (i32.ne (call $f (i32.const 267) (i32.const 13) (local.get $token) (i32.const 4) (i32.const 8) (i32.const 12)) (i32.const 1)) (then unreachable))))`

func TestExpressions(t *testing.T) {
	t.Parallel()
	m, err := module(newEngine(t), exprGuest, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	h := newHost()
	vm, err := m.NewVM(h, engine.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vm.Close)
	if err := vm.Tick(h, 1); err != nil {
		t.Fatal(err)
	}
	if len(h.lines) != 1 || h.lines[0] != "\x01" {
		t.Errorf("%q", h.lines)
	}
}

func TestSignatures(t *testing.T) {
	t.Parallel()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]struct{ private, public any }{"RSA": {r, &r.PublicKey}, "ECDSA": {e, &e.PublicKey}} {
		private, err := x509.MarshalPKCS8PrivateKey(key.private)
		if err != nil {
			t.Fatal(err)
		}
		public, err := x509.MarshalPKIXPublicKey(key.public)
		if err != nil {
			t.Fatal(err)
		}
		armour := func(kind string, data []byte) string {
			return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}))
		}
		for _, form := range []string{"DER", "PEM"} {
			signing := map[protowire.Number]any{1: "SHA256", 3: "text"}
			if form == "DER" {
				signing[2] = string(private)
			} else {
				signing[4] = armour("PRIVATE KEY", private)
			}
			s, _, text := run(t, newHost(), foreignCase("sign", message(signing)))
			if s != abi.OK {
				t.Fatalf("%s %s: sign: %v", name, form, s)
			}
			var sig string
			for b := []byte(text()); len(b) > 0; {
				n, typ, size := protowire.ConsumeTag(b)
				b = b[size:]
				if n == 2 {
					v, _ := protowire.ConsumeBytes(b)
					sig = string(v)
				}
				b = b[protowire.ConsumeFieldValue(n, typ, b):]
			}
			for text, want := range map[string]string{
				"text": "\x08\x01", "other": "\x12&Failed to verify digest. Error code: 0",
			} {
				verifying := map[protowire.Number]any{1: "sha256", 3: sig, 4: text}
				if form == "DER" {
					verifying[2] = string(public)
				} else {
					verifying[5] = armour("PUBLIC KEY", public)
				}
				s, _, got := run(t, newHost(), foreignCase("verify_signature", message(verifying)))
				if s != abi.OK || got() != want {
					t.Errorf("%s %s: verify %q: %v %q", name, form, text, s, got())
				}
			}
		}
	}
}
