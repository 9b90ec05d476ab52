package server_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"sidecar/internal/config/source"
	"sidecar/internal/server"
	"sidecar/xds/xdstest"
)

const versionPlugin = "../../testdata/plugins/version/version.wasm"

// codeServer serves a plugin's code, after a gate is open.
type codeServer struct {
	*httptest.Server
	code   []byte
	sha    string
	gate   chan struct{}
	asked  atomic.Int32
	status atomic.Int32
}

func newCodeServer(t *testing.T) *codeServer {
	t.Helper()
	code, err := os.ReadFile(versionPlugin)
	if err != nil {
		t.Fatal(err)
	}
	// An empty section makes it other code than the file's, which needn't be fetched once it runs.
	code = append(code, 0, 2, 1, 'x')
	g := sha256.Sum256(code)
	s := &codeServer{code: code, sha: hex.EncodeToString(g[:]), gate: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		select {
		case <-s.gate:
		case <-r.Context().Done():
			return
		}
		if n := s.status.Load(); n != 0 {
			w.WriteHeader(int(n))
			return
		}
		_, _ = w.Write(s.code)
	}))
	t.Cleanup(s.Close)
	return s
}

// remote is the version plugin with its code at a server.
func remote(version, policy, uri, clusterName, sha string) string {
	return fmt.Sprintf(`{name: p-%[1]s, failure_policy: %[2]s, configuration: {"@type": type.googleapis.com/google.protobuf.StringValue, value: %[1]s},
  vm_config: {runtime: envoy.wasm.runtime.v8, code: {remote: {http_uri: {uri: %[3]q, cluster: %[4]s, timeout: 10s}, sha256: %[5]q,
    retry_policy: {num_retries: 1, retry_back_off: {base_interval: 0.01s}}}}}}`, version, policy, uri, clusterName, sha)
}

// pluginListener is a listener with a plugin, which answers itself behind it.
func pluginListener(name, plugin string) string {
	return `  - name: ` + name + `
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: x
          route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]}
          http_filters:
          - name: wasm
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm, config: ` + plugin + `}
          - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
`
}

func codeCluster(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf(`  clusters:
  - {name: code, type: STATIC, load_assignment: {cluster_name: code, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]}}
`, host, port)
}

// TestWasmRemote_Cluster holds that a listener waits for code that a cluster has, and that the cache
// makes the fetch unnecessary the next time.
func TestWasmRemote_Cluster(t *testing.T) {
	t.Parallel()
	s := newCodeServer(t)
	close(s.gate)
	dir := t.TempDir() + "/cache"
	yaml := "static_resources:\n  listeners:\n" +
		pluginListener("in", remote("v1", "FAIL_CLOSED", "http://a/version.wasm", "code", s.sha)) + codeCluster(s.Listener.Addr().String())
	for range 2 {
		p := live(t, yaml, func(o *server.Options) { o.WasmCacheDir = dir })
		a := p.get(p.waitListener("in"), "/")
		if a.status != 200 || a.header.Get("x-plugin-version") != "v1" {
			t.Errorf("status %d, headers %v", a.status, a.header)
		}
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}
	if s.asked.Load() != 1 {
		t.Errorf("asked %d times", s.asked.Load())
	}
}

// TestWasmRemote_Failure holds that a plugin whose code can't be had ends nothing, means what its failure
// policy says, and is there once its code is.
func TestWasmRemote_Failure(t *testing.T) {
	t.Parallel()
	s := newCodeServer(t)
	s.status.Store(404)
	close(s.gate)
	yaml := "static_resources:\n  listeners:\n" +
		pluginListener("closed", remote("v1", "FAIL_CLOSED", "http://a/version.wasm", "code", s.sha)) +
		pluginListener("open", remote("v2", "FAIL_OPEN", "http://a/version.wasm", "code", s.sha)) +
		pluginListener("wrong", remote("v3", "FAIL_CLOSED", "http://a/version.wasm", "code", strings.Repeat("0", 64))) +
		codeCluster(s.Listener.Addr().String())
	p := live(t, yaml)
	for name, want := range map[string]int{"closed": 503, "open": 200, "wrong": 503} {
		if a := p.get(p.waitListener(name), "/"); a.status != want || a.header.Get("x-plugin-version") != "" {
			t.Errorf("%s: status %d, headers %v", name, a.status, a.header)
		}
	}
	if p.stat("wasm.remote_load_fetch_failures") < 4 {
		t.Errorf("%d failures", p.stat("wasm.remote_load_fetch_failures"))
	}
	s.status.Store(0)
	closed := p.waitListener("closed")
	p.wait("the plugin", func() bool { return p.get(closed, "/").header.Get("x-plugin-version") == "v1" })
	if a := p.get(p.waitListener("wrong"), "/"); a.status != 503 {
		t.Errorf("code of another digest: status %d", a.status)
	}
}

// TestWasmRemote_DelaysItselfOnly holds that a listener serves while another waits for its plugin.
func TestWasmRemote_DelaysItselfOnly(t *testing.T) {
	t.Parallel()
	s := newCodeServer(t)
	yaml := "static_resources:\n  listeners:\n" +
		pluginListener("slow", remote("v1", "FAIL_CLOSED", "http://a/version.wasm", "code", s.sha)) +
		pluginListener("quick", pluginConfig("v2")) + codeCluster(s.Listener.Addr().String())
	p := start(t, yaml)
	p.wait("the fetch", func() bool { return s.asked.Load() > 0 })
	if strings.Contains(p.adminGet("/ready"), "LIVE") {
		t.Error("live before all listeners are")
	}
	close(s.gate)
	p.wait("LIVE", func() bool { return strings.Contains(p.adminGet("/ready"), "LIVE") })
	for _, name := range []string{"slow", "quick"} {
		if a := p.get(p.waitListener(name), "/"); a.status != 200 || a.header.Get("x-plugin-version") == "" {
			t.Errorf("%s: status %d", name, a.status)
		}
	}
}

// TestWasmRemote_ECDS holds that a push is acknowledged before its code is there, that the version before
// it serves meanwhile, and that the new one takes over without a loss.
func TestWasmRemote_ECDS(t *testing.T) {
	t.Parallel()
	s := newCodeServer(t)
	srv := xdstest.New(t)
	ext := func(config string) *corev3.TypedExtensionConfig {
		return resource(t, &corev3.TypedExtensionConfig{}, `name: plug
typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm, config: `+config+"}")
	}
	code := s.Listener.Addr().String()
	srv.Set(edsCluster(t, "a"), endpoints(t, "a", upstream(t, "up")), edsCluster(t, "code"), endpoints(t, "code", code),
		routes(t, "r", "a"), ext(pluginConfig("v1")),
		rdsListener(t, "l", "r", `      - {name: plug, config_discovery: {config_source: `+adsSource+
			`, type_urls: ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"]}}`, ""))
	p := live(t, adsBootstrap("GRPC", srv.Addr()))
	l := p.load(p.waitListener("l"), 2, func(a answer) (string, error) {
		if a.status != 200 {
			return "", fmt.Errorf("%w: %d", errVersion, a.status)
		}
		return a.header.Get("x-plugin-version"), nil
	})
	p.wait("v1", func() bool { return l.count("v1") > 10 })
	v := srv.Set(ext(remote("v2", "FAIL_CLOSED", "http://a/version.wasm", "code", s.sha)))
	p.acked(srv, source.ExtensionType, v)
	p.wait("the fetch", func() bool { return s.asked.Load() > 0 })
	l.more(p, 50)
	if l.count("v2") > 0 {
		t.Error("served without its code")
	}
	close(s.gate)
	p.wait("v2", func() bool { return l.count("v2") > 10 })
	l.lossless(t)
}

// TestWasmRemote_Image pulls a plugin from a registry, as Istio's WasmPlugin names it.
func TestWasmRemote_Image(t *testing.T) {
	t.Parallel()
	code, err := os.ReadFile(versionPlugin)
	if err != nil {
		t.Fatal(err)
	}
	digest := func(b []byte) string {
		g := sha256.Sum256(b)
		return "sha256:" + hex.EncodeToString(g[:])
	}
	manifest, err := json.Marshal(map[string]any{
		"mediaType": "application/vnd.oci.image.manifest.v1+json",
		"layers": []any{map[string]any{
			"mediaType": "application/vnd.module.wasm.content.layer.v1+wasm", "digest": digest(code), "size": len(code),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/plugins/version/manifests/v1", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(manifest) })
	mux.HandleFunc("/v2/plugins/version/blobs/"+digest(code), func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(code) })
	registry := httptest.NewServer(mux)
	defer registry.Close()
	image := "oci://" + registry.Listener.Addr().String() + "/plugins/version:v1"
	_, pin, _ := strings.Cut(digest(manifest), ":")
	p := live(t, "static_resources:\n  listeners:\n"+
		pluginListener("in", remote("v1", "FAIL_CLOSED", image, "_", "nil"))+
		pluginListener("pinned", remote("v2", "FAIL_CLOSED", image, "_", pin))+
		pluginListener("wrong", remote("v3", "FAIL_CLOSED", image, "_", strings.Repeat("0", 64))))
	for name, want := range map[string]int{"in": 200, "pinned": 200, "wrong": 503} {
		if a := p.get(p.waitListener(name), "/"); a.status != want || (want == 200) != (a.header.Get("x-plugin-version") != "") {
			t.Errorf("%s: status %d, headers %v", name, a.status, a.header)
		}
	}
}
