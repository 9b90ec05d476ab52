package http_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/filter"
	wasmv1 "sidecar/api/sidecar/wasm/v1"
	wasmhttp "sidecar/wasmhost/plugin/http"
	"sidecar/wasmhost/wasmtest"
)

// routeConfig compiles what a route says.
func routeConfig(t *testing.T, p *proxy, m *wasmv1.WasmPerRoute) any {
	t.Helper()
	made, err := filter.NewTable(wasmhttp.Entries(p.host)...).ByRouteType("sidecar.wasm.v1.WasmPerRoute").
		CompileRoute(m, filter.Context{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestPerRoute(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{file: needPlugin(t, "version"), configuration: "base"})
	wasmhttp.AskRoutes(p.factory.Load())
	serves := func(want string) {
		t.Helper()
		if x := p.begin(nil, "hello").wait(); x.status != "200" || x.header("x-plugin-version") != want || x.body.String() != "hello" {
			t.Errorf("status %s, version %q, body %q; want %q", x.status, x.header("x-plugin-version"), x.body.String(), want)
		}
	}
	serves("base")
	p.route = routeConfig(t, p, &wasmv1.WasmPerRoute{Disabled: true})
	serves("")
	for _, v := range []string{"v1", "v2", "v1"} {
		p.route = routeConfig(t, p, &wasmv1.WasmPerRoute{Configuration: anyOf(t, wrapperspb.String(v))})
		serves(v)
		serves(v)
	}
	p.route = routeConfig(t, p, &wasmv1.WasmPerRoute{Configuration: anyOf(t, wrapperspb.String("broken"))})
	if x := p.begin(nil).wait(); x.status != "503" {
		t.Errorf("a configuration that the plugin refuses: %s", x.status)
	}
	p.route = routeConfig(t, p, &wasmv1.WasmPerRoute{})
	serves("base")
}

func TestPerRoute_Errors(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{file: needPlugin(t, "version")})
	_, err := filter.NewTable(wasmhttp.Entries(p.host)...).ByRouteType("sidecar.wasm.v1.WasmPerRoute").
		CompileRoute(&wasmv1.WasmPerRoute{Disabled: true, Configuration: anyOf(t, wrapperspb.String("v"))}, filter.Context{})
	if err == nil || !strings.Contains(err.Error(), "configuration: has no effect") {
		t.Errorf("%v", err)
	}
}

// trialPlugin fails each request.
const trialPlugin = `(module (memory (export "memory") 1)
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param i32) (result i32) (i32.const 1024))
 (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))`

func canaryOf(percent, streams, errors uint32) func(*wasmv1.Wasm) {
	return func(m *wasmv1.Wasm) {
		m.Canary = &wasmv1.Canary{Percent: percent, Streams: streams, Errors: errors}
	}
}

func (p *proxy) swap(t *testing.T, s settings) *wasmhttp.Factory {
	t.Helper()
	f := compile(t, p.host, s)
	if err := f.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.factory.Swap(f).Retire()
	return f
}

func TestCanary_RolledBack(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{file: needPlugin(t, "version"), configuration: "v1"})
	bad := p.swap(t, settings{file: wasmtest.File(t, trialPlugin), own: canaryOf(50, 1000, 3)})
	failed := 0
	for range 200 {
		switch x := p.begin(nil).wait(); {
		case x.status == "503":
			failed++
		case x.header("x-plugin-version") != "v1":
			t.Fatalf("status %s, version %q", x.status, x.header("x-plugin-version"))
		}
	}
	if failed != 4 { // The budget, and the one that is over it.
		t.Errorf("%d requests failed", failed)
	}
	if s := bad.Plugin().Status(); !strings.Contains(s, "rolled back: 4 of 4 streams failed, 3 may: function proxy_on_request_headers failed") {
		t.Errorf("status %q", s)
	}
	// The next version replaces the one that serves.
	p.swap(t, settings{file: needPlugin(t, "version"), configuration: "v3", own: canaryOf(50, 20, 0)})
	seen := map[string]int{}
	for deadline := time.Now().Add(10 * time.Second); seen["last"] < 50; {
		v := p.begin(nil).wait().header("x-plugin-version")
		seen[v]++
		if seen["last"]++; v == "v1" {
			seen["last"] = 0
		}
		if time.Now().After(deadline) {
			t.Fatalf("not promoted: %v", seen)
		}
	}
	if seen["v1"] == 0 || seen["v3"] == 0 || seen[""] != 0 {
		t.Errorf("%v", seen)
	}
	if s := p.factory.Load().Plugin().Status(); !strings.Contains(s, "canary passed") {
		t.Errorf("status %q", s)
	}
}

// TestCanary_Alone: without a version before it there is nothing to try it against.
func TestCanary_Alone(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{file: needPlugin(t, "version"), configuration: "v1", own: canaryOf(1, 10, 0)})
	for range 20 {
		if v := p.begin(nil).wait().header("x-plugin-version"); v != "v1" {
			t.Fatalf("version %q", v)
		}
	}
}

// TestCanary_LeftAlone has a canary be replaced while it is on trial, and the host end.
func TestCanary_LeftAlone(t *testing.T) {
	t.Parallel()
	p := newProxy(t, settings{file: needPlugin(t, "version"), configuration: "v1"})
	for range 3 {
		p.swap(t, settings{file: needPlugin(t, "version"), configuration: "v2", own: canaryOf(50, 1000, 0)})
		p.begin(nil).wait()
	}
	p.factory.Load().Retire()
	p.host.Close()
	if n := p.host.VMs(); n != 0 {
		t.Errorf("%d VMs are left", n)
	}
}
