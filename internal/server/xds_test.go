package server_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"sidecar/internal/config/source"
	"sidecar/xds/xdstest"
)

// adsBootstrap is what an agent writes: the management server is a cluster with HTTP/2.
func adsBootstrap(api, addr string) string {
	return fmt.Sprintf(`
dynamic_resources:
  ads_config: {api_type: %s, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds-grpc}}]}
  lds_config: {ads: {}, resource_api_version: V3}
  cds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: xds-grpc
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {connection_keepalive: {interval: 30s, timeout: 5s}}}
    load_assignment: {cluster_name: xds-grpc, endpoints: [{lb_endpoints: [{endpoint: {address: %s}}]}]}
`, api, socketAddress(addr))
}

const adsSource = "{ads: {}, resource_api_version: V3}"

func edsCluster(t testing.TB, name string, more ...string) *clusterv3.Cluster {
	t.Helper()
	return resource(t, &clusterv3.Cluster{}, "name: "+name+"\ntype: EDS\nconnect_timeout: 1s\n"+
		"eds_cluster_config: {eds_config: "+adsSource+"}\n"+strings.Join(more, "\n"))
}

func endpoints(t testing.TB, name string, addrs ...string) *endpointv3.ClusterLoadAssignment {
	t.Helper()
	var list []string
	for _, a := range addrs {
		list = append(list, "{endpoint: {address: "+socketAddress(a)+"}}")
	}
	return resource(t, &endpointv3.ClusterLoadAssignment{},
		"cluster_name: "+name+"\nendpoints: [{lb_endpoints: ["+strings.Join(list, ", ")+"]}]")
}

func routes(t testing.TB, name, cluster string) *routev3.RouteConfiguration {
	t.Helper()
	return resource(t, &routev3.RouteConfiguration{}, "name: "+name+
		"\nvirtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: "+cluster+"}}]}]")
}

// listenerText is a listener with RDS and a plugin by ECDS, in YAML.
func listenerText(name, route, filters, extra, src string) string {
	return `name: ` + name + `
address: {socket_address: {address: 127.0.0.1, port_value: 0}}
filter_chains:
- filters:
  - name: hcm
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: ` + name + `
      rds: {route_config_name: ` + route + `, config_source: ` + src + `}
` + extra + `
      http_filters:
` + filters + `
      - name: envoy.filters.http.router
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`
}

func rdsListener(t testing.TB, name, route, filters, extra string) *listenerv3.Listener {
	t.Helper()
	return resource(t, &listenerv3.Listener{}, listenerText(name, route, filters, extra, adsSource))
}

func plugin(t testing.TB, version string) *corev3.TypedExtensionConfig {
	t.Helper()
	return resource(t, &corev3.TypedExtensionConfig{}, `name: plug
typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm, config: `+pluginConfig(version)+"}")
}

// TestADS walks through what a management server does in the life of a proxy, over both protocols,
// with traffic all the time.
func TestADS(t *testing.T) {
	for _, api := range []string{"GRPC", "DELTA_GRPC"} {
		t.Run(api, func(t *testing.T) {
			one, two := upstream(t, "one"), upstream(t, "two")
			srv := xdstest.New(t)
			srv.Set(edsCluster(t, "a"), endpoints(t, "a", one), rdsListener(t, "l", "r", "", ""), routes(t, "r", "a"))
			p := live(t, adsBootstrap(api, srv.Addr()))
			addr := p.waitListener("l")
			load := p.load(addr, 4, body200)
			load.more(p, 50)

			t.Run("unchanged", func(t *testing.T) {
				v := srv.Set(rdsListener(t, "l", "r", "", ""))
				srv.Set(edsCluster(t, "a"), endpoints(t, "a", one), routes(t, "r", "a"))
				if api == "GRPC" { // the delta server sends nothing
					p.acked(srv, source.ListenerType, v)
				}
				load.more(p, 100)
				for _, name := range []string{
					"http.l.downstream_cx_destroy_local", "http.l.downstream_cx_drain_close",
					"listener_manager.listener_modified", "cluster_manager.cluster_modified",
				} {
					if n := p.stat(name); n != 0 {
						t.Errorf("%s: %d", name, n)
					}
				}
			})
			t.Run("endpoints", func(t *testing.T) {
				srv.Set(endpoints(t, "a", two))
				before := load.count("two")
				p.wait("two", func() bool { return load.count("two") > before+20 })
			})
			t.Run("cluster", func(t *testing.T) {
				v := srv.Set(edsCluster(t, "a", "per_connection_buffer_limit_bytes: 70000"))
				p.acked(srv, source.ClusterType, v)
				load.more(p, 50)
			})
			t.Run("route", func(t *testing.T) {
				srv.Set(edsCluster(t, "b"), endpoints(t, "b", one))
				// A server sends a route once its cluster is there, or requests meet none.
				p.wait("cluster b", func() bool { return strings.Contains(p.adminGet("/clusters"), "b::"+one) })
				v := srv.Set(routes(t, "r", "b"))
				p.acked(srv, source.RouteType, v)
				before := load.count("one")
				p.wait("one", func() bool { return load.count("one") > before+20 })
			})
			t.Run("listener in place", func(t *testing.T) {
				srv.Set(rdsListener(t, "l", "r", "", "      server_name: changed"))
				p.waitStat("listener_manager.listener_in_place_updated", 1)
				if got := p.get(addr, "/").header.Get("Server"); got != "changed" {
					t.Errorf("server: %q", got)
				}
				load.more(p, 50)
			})
			t.Run("bad resource", func(t *testing.T) {
				bad := rdsListener(t, "bad", "r", "", "      delayed_close_timeout: -1s")
				srv.Set(bad, rdsListener(t, "good", "r", "", ""))
				p.nacked(srv, source.ListenerType, "bad: filter_chains[0].filters[0].typed_config.delayed_close_timeout")
				p.waitListener("good")
				srv.Remove(source.ListenerType, "bad", "good")
				p.wait("removal", func() bool { return p.listener("good") == "" })
			})
			t.Run("server killed", func(t *testing.T) {
				srv.Stop()
				p.wait("the stream to break", func() bool { return p.stat("control_plane.connected_state") == 0 })
				load.more(p, 50)
				srv.Set(endpoints(t, "b", two))
				if err := srv.Resume(); err != nil {
					t.Fatal(err)
				}
				before := load.count("two")
				p.wait("two", func() bool { return load.count("two") > before+20 })
			})
			load.lossless(t)
			t.Run("listener removed", func(t *testing.T) {
				srv.Remove(source.ListenerType, "l")
				p.wait("removal", func() bool { return p.listener("l") == "" })
				if _, err := get(t.Context(), noReuse(t), addr, "/"); err == nil {
					t.Error("still accepts")
				}
			})
		})
	}
}

// TestADS_FetchTimeout: a route that never comes is not waited for longer than it says.
func TestADS_FetchTimeout(t *testing.T) {
	srv := xdstest.New(t)
	srv.Set(resource(t, &listenerv3.Listener{}, listenerText("l", "none",
		"      - {name: plug, config_discovery: {config_source: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0.1s}, "+
			`type_urls: ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"]}}`,
		"", "{ads: {}, resource_api_version: V3, initial_fetch_timeout: 0.1s}")))
	p := live(t, adsBootstrap("GRPC", srv.Addr()))
	addr := p.waitListener("l")
	if a := p.get(addr, "/"); a.status != 500 && a.status != 404 {
		t.Errorf("got %+v", a)
	}
	p.waitStat("http.l.rds.none.init_fetch_timeout", 1)
	p.waitStat("extension_config_discovery.http_filter.plug.init_fetch_timeout", 1)
}

// TestECDS_Swap replaces a plugin under load: nothing is dropped, and each answer is of one version.
func TestECDS_Swap(t *testing.T) {
	up := upstream(t, "up")
	srv := xdstest.New(t)
	srv.Set(edsCluster(t, "a"), endpoints(t, "a", up), routes(t, "r", "a"), plugin(t, "v1"),
		rdsListener(t, "l", "r", `      - {name: plug, config_discovery: {config_source: `+adsSource+
			`, type_urls: ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"]}}`, ""))
	p := live(t, adsBootstrap("DELTA_GRPC", srv.Addr()))
	load := p.load(p.waitListener("l"), 4, func(a answer) (string, error) {
		v := a.header.Values("X-Plugin-Version")
		if a.status != 200 || len(v) != 1 {
			return "", fmt.Errorf("%w: status %d, %q", errVersion, a.status, v)
		}
		return v[0], nil
	})
	load.more(p, 100)
	serves := func(version string) {
		t.Helper()
		before := load.count(version)
		p.wait(version, func() bool { return load.count(version) > before+50 })
	}
	serves("v1")
	srv.Set(plugin(t, "v2"))
	serves("v2")
	srv.Set(plugin(t, "broken"))
	p.nacked(srv, source.ExtensionType, "plug")
	serves("v2")
	srv.Set(plugin(t, "v1"))
	serves("v1")
	if n := load.count("broken"); n != 0 {
		t.Errorf("%d answers of the broken version", n)
	}
	load.lossless(t)
	if n := p.stat("http.l.downstream_cx_destroy_local"); n != 0 {
		t.Errorf("%d connections were closed", n)
	}
}

// fileSource writes resources to a file, moved into place, and is the config source for it.
type fileSource struct {
	t    testing.TB
	path string
}

func newFile(t testing.TB, dir, name string) fileSource {
	t.Helper()
	return fileSource{t, filepath.Join(dir, name+".yaml")}
}

func (f fileSource) source() string {
	return "{path_config_source: {path: " + f.path + ", watched_directory: {path: " + filepath.Dir(f.path) + "}}}"
}

func (f fileSource) write(version, typ string, texts ...string) {
	f.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "version_info: %q\nresources:\n", version)
	for _, text := range texts {
		b.WriteString("- \"@type\": " + typ + "\n")
		for line := range strings.Lines(text) {
			b.WriteString("  " + line)
		}
		b.WriteString("\n")
	}
	tmp := f.path + ".new"
	if err := os.WriteFile(tmp, []byte(b.String()), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(tmp, f.path); err != nil {
		f.t.Fatal(err)
	}
}

// TestFileXDS configures everything from watched files.
func TestFileXDS(t *testing.T) {
	one, two := upstream(t, "one"), upstream(t, "two")
	dir := t.TempDir()
	lds, cds, eds := newFile(t, dir, "lds"), newFile(t, dir, "cds"), newFile(t, dir, "eds")
	rds, ecds := newFile(t, dir, "rds"), newFile(t, dir, "ecds")
	assign := func(addr string) string {
		return "cluster_name: a\nendpoints: [{lb_endpoints: [{endpoint: {address: " + socketAddress(addr) + "}}]}]"
	}
	plug := func(version string) string {
		return `name: plug
typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm, config: ` + pluginConfig(version) + "}"
	}
	eds.write("1", source.EndpointType, assign(one))
	cds.write("1", source.ClusterType, "name: a\ntype: eds\neds_cluster_config: {eds_config: "+eds.source()+"}")
	rds.write("1", source.RouteType,
		"name: r\nvirtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: a}}]}]")
	ecds.write("1", source.ExtensionType, plug("broken"))
	lds.write("1", source.ListenerType, listenerText("l", "r",
		`      - {name: plug, config_discovery: {config_source: `+ecds.source()+
			`, type_urls: ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"]}}`, "", rds.source()))
	p := live(t, "dynamic_resources: {lds_config: "+lds.source()+", cds_config: "+cds.source()+"}\n")
	addr := p.waitListener("l")
	// As in Envoy a plugin that fails at first leaves the listener without its configuration.
	if a := p.get(addr, "/"); a.status != 500 {
		t.Errorf("got %+v", a)
	}
	ecds.write("2", source.ExtensionType, plug("v1"))
	serves := func(version, body string) {
		t.Helper()
		p.wait(version+" "+body, func() bool {
			a := p.get(addr, "/")
			return a.header.Get("X-Plugin-Version") == version && a.body == body
		})
	}
	serves("v1", "one")
	eds.write("2", source.EndpointType, assign(two))
	serves("v1", "two")
	ecds.write("3", source.ExtensionType, plug("v2"))
	serves("v2", "two")
	lds.write("2", source.ListenerType)
	p.wait("removal", func() bool { return p.listener("l") == "" })
}
