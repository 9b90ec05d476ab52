package server_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const forwardCluster = `
  - name: c
    lb_policy: CLUSTER_PROVIDED
    cluster_type:
      name: envoy.clusters.dynamic_forward_proxy
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig
        dns_cache_config:
          name: cache
          dns_lookup_family: V4_ONLY
          dns_query_timeout: 0.2s
          typed_dns_resolver_config:
            name: envoy.network.dns_resolver.cares
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig
              resolvers: [{socket_address: {address: 127.0.0.1, port_value: %s}}]
`

// silentDNS is the port of a DNS server that never answers.
func silentDNS(t *testing.T) string {
	t.Helper()
	c, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, port, _ := net.SplitHostPort(c.LocalAddr().String())
	return port
}

// forwarding is a bootstrap whose one cluster is a dynamic forward proxy.
func forwarding(text, dns string) string {
	return text[:strings.Index(text, "  clusters:")] + "  clusters:" + fmt.Sprintf(forwardCluster, dns)
}

// TestForwardProxy sends each request to where its authority says.
func TestForwardProxy(t *testing.T) {
	t.Parallel()
	p := live(t, forwarding(versions("127.0.0.1:1", false, ""), silentDNS(t)))
	addr := p.listener("l")
	rt := &http.Transport{}
	t.Cleanup(rt.CloseIdleConnections)
	for _, name := range []string{"one", "two"} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprint(w, name, " ", r.Host)
		}))
		t.Cleanup(srv.Close)
		_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
		for _, host := range []string{"localhost:" + port, "127.0.0.1:" + port, "localhost:" + port} {
			if got := p.getAs(rt, addr, host); got != name+" "+host {
				t.Errorf("%s: got %q", host, got)
			}
		}
	}
	if got := p.getAs(rt, addr, "nowhere.example"); got != "no healthy upstream" {
		t.Errorf("got %q", got)
	}
	if a, b := p.stat("dns_cache.cache.host_added"), p.stat("dns_cache.cache.dns_query_timeout"); a != 5 || b != 1 {
		t.Errorf("%d hosts, %d timeouts", a, b)
	}
}

const dnsCacheOf = `
            "@type": type.googleapis.com/%s
            dns_cache_config:
              name: cache
              dns_lookup_family: V4_ONLY
              dns_query_timeout: 0.2s
              typed_dns_resolver_config:
                name: envoy.network.dns_resolver.cares
                typed_config:
                  "@type": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig
                  resolvers: [{socket_address: {address: 127.0.0.1, port_value: %s}}]
`

// TestForwardProxy_Filter has the filter resolve names before the router, and answer for those that have
// no address.
func TestForwardProxy_Filter(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.Host) }))
	t.Cleanup(srv.Close)
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	dns := silentDNS(t)
	text := versions("127.0.0.1:1", false, `
          - name: envoy.filters.http.dynamic_forward_proxy
            typed_config:`+strings.ReplaceAll(fmt.Sprintf(dnsCacheOf,
		"envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig", dns), "\n", "\n  "))
	text = strings.Replace(text, "routes: [", `routes: [{match: {prefix: /, headers: [{name: x-rewrite, present_match: true}]}, route: {cluster: c},
              typed_per_filter_config: {envoy.filters.http.dynamic_forward_proxy:
                {"@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.PerRouteConfig,
                 host_rewrite_header: x-rewrite}}}, `, 1)
	p := live(t, forwarding(text, dns))
	addr := p.listener("l")
	for range 2 {
		if got := p.getAs(noReuse(t), addr, "localhost:"+port); got != "localhost:"+port {
			t.Errorf("got %q", got)
		}
		if got := p.getAs(noReuse(t), addr, "x", "x-rewrite", "127.0.0.1:"+port); got != "127.0.0.1:"+port {
			t.Errorf("got %q", got)
		}
		if got := p.getAs(noReuse(t), addr, "nowhere.example"); got != "DNS resolution failure" {
			t.Errorf("got %q", got)
		}
	}
	if n := p.stat("dns_cache.cache.host_added"); n != 3 {
		t.Errorf("%d names in the cache that filter and cluster share", n)
	}
}

// TestForwardProxy_SNI connects to the name that a TLS client asks for.
func TestForwardProxy_SNI(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.TLS.ServerName)
	}))
	t.Cleanup(srv.Close)
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	dns := silentDNS(t)
	text := strings.Replace(tcpProxy("127.0.0.1:1", ""), "    filter_chains:\n    - filters:", `    listener_filters:
    - {name: tls_inspector, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.sni_dynamic_forward_proxy
        typed_config:`+fmt.Sprintf(dnsCacheOf, "envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig", dns)+
		"            port_value: "+port, 1)
	p := live(t, forwarding(text, dns))
	addr := p.listener("l")
	for name, want := range map[string]string{"localhost": "localhost", "nowhere.example": ""} {
		tr := &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{ServerName: name, InsecureSkipVerify: true}, //nolint:gosec // the certificate has other names
		}
		t.Cleanup(tr.CloseIdleConnections)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+"/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := tr.RoundTrip(req)
		if (err == nil) != (want != "") {
			t.Errorf("%s: error %v", name, err)
		}
		if err != nil {
			continue
		}
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if string(b) != want {
			t.Errorf("%s: got %q", name, b)
		}
	}
}
