package server_test

import (
	"fmt"
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

// TestForwardProxy sends each request to where its authority says.
func TestForwardProxy(t *testing.T) {
	t.Parallel()
	silent, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0") // a DNS server that never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	_, dns, _ := net.SplitHostPort(silent.LocalAddr().String())
	text := versions("127.0.0.1:1", false, "")
	text = text[:strings.Index(text, "  clusters:")] + "  clusters:" + fmt.Sprintf(forwardCluster, dns)
	p := live(t, text)
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
