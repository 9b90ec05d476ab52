package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"sidecar/wasmhost/wasmtest"
)

// TestWasmPage holds what the admin server tells of plugins: one that serves, one that failed, and one
// whose code can't be had.
func TestWasmPage(t *testing.T) {
	t.Parallel()
	s := newCodeServer(t)
	s.status.Store(404)
	close(s.gate)
	trap := strings.NewReplacer("version/version", "trap/trap", "name: plug", "name: trap").Replace(pluginConfig("v1"))
	p := live(t, "static_resources:\n  listeners:\n"+pluginListener("in", pluginConfig("v1"))+pluginListener("trap", trap)+
		pluginListener("remote", remote("v9", "FAIL_OPEN", "http://a/version.wasm", "code", s.sha))+codeCluster(s.Listener.Addr().String()))
	p.get(p.waitListener("in"), "/")
	p.getWith(p.waitListener("trap"), "x-trap", "request")
	var page struct {
		Plugins []struct {
			Name, State, Source string
			Filter              string
			ABI                 string `json:"abi_version"`
			SHA                 string `json:"code_sha256"`
			LastError           string `json:"last_error"`
			VMs                 []struct {
				Memory int `json:"memory_bytes"`
			}
			Callbacks []struct {
				Name          string
				Count, Failed int
				Mean          int `json:"mean_ns"`
			}
			HostCalls map[string]int `json:"host_calls"`
		}
		VMs int
	}
	if err := json.Unmarshal([]byte(p.adminGet("/wasm?format=json")), &page); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for i, one := range page.Plugins {
		got[one.Name] = i
	}
	if len(got) != 3 || page.VMs != 1 {
		t.Fatalf("%+v", page)
	}
	plug, failed, remote := page.Plugins[got["plug"]], page.Plugins[got["trap"]], page.Plugins[got["p-v9"]]
	if plug.State != "serving" || !strings.HasSuffix(plug.Filter, "wasm") || plug.ABI != "0.2.1" || len(plug.SHA) != 64 ||
		len(plug.VMs) != 1 || plug.VMs[0].Memory == 0 || plug.HostCalls["add_header_map_value"] == 0 {
		t.Errorf("serving: %+v", plug)
	}
	if failed.State != "failed" || !strings.Contains(failed.LastError, "unreachable") {
		t.Errorf("failed: %+v", failed)
	}
	if remote.State != "fetching" || !strings.Contains(remote.LastError, "404") || remote.Source != "http://a/version.wasm" {
		t.Errorf("remote: %+v", remote)
	}
	counted := map[string][2]int{}
	for _, c := range failed.Callbacks {
		counted[c.Name] = [2]int{c.Count, c.Failed}
		if c.Mean <= 0 {
			t.Errorf("%s took %d ns", c.Name, c.Mean)
		}
	}
	if counted["on_request_headers"] != [2]int{1, 1} || counted["on_configure"] != [2]int{1, 0} {
		t.Errorf("callbacks: %v", counted)
	}
	text := p.adminGet("/wasm")
	for _, want := range []string{"plug: serving, started", "trap: failed", "p-v9: fetching", "on_request_headers", "last error"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
	if p.stat("wasm.trap.callback_failed.on_request_headers") != 1 || p.stat("wasm.plug.host_call.add_header_map_value") == 0 {
		t.Error("the counters are not among the stats")
	}
	if got := p.adminGet("/wasm?format=xml"); !strings.Contains(got, "usage") {
		t.Errorf("got %q", got)
	}
}

// TestWasmNoEffect holds that a call that says OK and changes nothing is counted and warned of once.
func TestWasmNoEffect(t *testing.T) {
	t.Parallel()
	silent := strings.NewReplacer(versionPlugin, silentPlugin(t), "name: plug", "name: silent").Replace(pluginConfig("v1"))
	p := live(t, "static_resources:\n  listeners:\n"+pluginListener("in", silent))
	in := p.waitListener("in")
	for range 3 {
		p.get(in, "/")
	}
	p.waitStat("wasm.silent.no_effect", 6)
	warning := "proxy_send_local_response has no effect: the stream has ended"
	p.wait("the warning", func() bool { return strings.Contains(p.logs.String(), warning) })
	if n := strings.Count(p.logs.String(), warning); n != 1 {
		t.Errorf("warned %d times", n)
	}
}

// silentPlugin resumes what isn't paused, and answers when it is too late.
func silentPlugin(t *testing.T) string {
	t.Helper()
	return wasmtest.File(t, `(module
 (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
 (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
 (memory (export "memory") 1)
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param i32) (result i32) (i32.const 1024))
 (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
  (drop (call $continue (i32.const 1))) (i32.const 0))
 (func (export "proxy_on_log") (param i32)
  (drop (call $reply (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
   (i32.const 0) (i32.const 0) (i32.const -1)))))`)
}

// getWith asks with one header.
func (p *proxy) getWith(addr, name, value string) int {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "http://"+addr+"/", http.NoBody)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set(name, value)
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}
