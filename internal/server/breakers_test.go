package server_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestBreakers_Runtime has the runtime say what the circuit breakers of one cluster are.
func TestBreakers_Runtime(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Host == "slow" {
			<-hold
		}
	}))
	t.Cleanup(srv.Close)
	p := live(t, `
layered_runtime:
  layers: [{name: s, static_layer: {circuit_breakers: {c: {default: {max_requests: 1}}}}}]
`+versions(srv.Listener.Addr().String(), false, ""))
	addr := p.listener("l")
	done := make(chan string)
	go func() { done <- p.getAs(noReuse(t), addr, "slow") }()
	p.waitStat("cluster.c.upstream_rq_active", 1)
	if a := p.get(addr, "/"); a.status != 503 || a.header.Get("X-Envoy-Overloaded") != "true" {
		t.Errorf("got %d %v", a.status, a.header)
	}
	close(hold)
	if got := <-done; got != "" {
		t.Errorf("got %q", got)
	}
}

// TestBreakers_PerHost bounds the connections to a host, not those of the cluster.
func TestBreakers_PerHost(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hold }))
	t.Cleanup(srv.Close)
	p := live(t, versions(srv.Listener.Addr().String(), false, "")+
		"    circuit_breakers: {per_host_thresholds: [{max_connections: 1}]}\n")
	addr := p.listener("l")
	done := make(chan string)
	for range 2 {
		go func() { done <- p.getAs(noReuse(t), addr, "x") }()
	}
	p.waitStat("cluster.c.upstream_cx_overflow", 1)
	if n := p.stat("cluster.c.upstream_cx_total"); n != 1 {
		t.Errorf("%d connections to a host that may have one", n)
	}
	close(hold)
	for range 2 {
		<-done
	}
}
