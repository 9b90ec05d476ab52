package server_test

import (
	"bufio"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

const tlsTransport = `
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: configured.example
        common_tls_context: {validation_context: {trusted_ca: {inline_string: %q}}}
`

func upstreamOptions(options string) string {
	return `
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http_protocol_options: {}}
        upstream_http_protocol_options: ` + options
}

// getAs asks for a name, with headers.
func (p *proxy) getAs(rt http.RoundTripper, addr, host string, header ...string) string {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "http://"+addr+"/", http.NoBody)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Host = host
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := rt.RoundTrip(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// TestAutoSNI has each authority named to the host in the handshake, on connections of its own.
func TestAutoSNI(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.TLS.ServerName)
	}))
	t.Cleanup(srv.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	p := live(t, versions(srv.Listener.Addr().String(), false, "")+
		upstreamOptions("{auto_sni: true, override_auto_sni_header: x-sni}")+fmt.Sprintf(tlsTransport, ca))
	addr := p.listener("l")
	rt := &http.Transport{}
	t.Cleanup(rt.CloseIdleConnections)
	for range 2 {
		for _, x := range [][]string{
			{"a.example:8080", "a.example"},
			{"b.example", "b.example"},
			{"1.2.3.4:80", "configured.example"}, // an address is no name
			{"[::1]:80", "configured.example"},
			{"c.example", "d.example", "x-sni", "d.example:77"},
		} {
			if got := p.getAs(rt, addr, x[0], x[2:]...); got != x[1] {
				t.Errorf("%s: the host was named %q, want %q", x[0], got, x[1])
			}
		}
	}
	if n := p.stat("cluster.c.upstream_cx_total"); n != 4 {
		t.Errorf("%d connections for four names", n)
	}
}

// TestAutoSANValidation checks the certificate for the authority's name.
func TestAutoSANValidation(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, "served")
	}))
	t.Cleanup(srv.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	p := live(t, versions(srv.Listener.Addr().String(), false, "")+
		upstreamOptions("{auto_sni: true, auto_san_validation: true}")+fmt.Sprintf(tlsTransport, ca))
	addr := p.listener("l")
	for host, want := range map[string]string{
		"example.com": "served", "127.0.0.1:80": "served", "example.org": "remote connection failure",
	} {
		if got := p.getAs(noReuse(t), addr, host); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q in it", host, got, want)
		}
	}
}

// proxied is an upstream that reads a PROXY header of version 1 from each connection and answers every
// request with it and the number of the connection.
func proxied(t *testing.T) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for n := 1; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				first, err := r.ReadString('\n')
				if err != nil {
					return
				}
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_ = req.Body.Close()
					body := fmt.Sprintf("%d %s", n, strings.TrimSpace(first))
					_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", len(body), body)
				}
			})
		}
	})
	return ln.Addr().String()
}

const proxyTransport = `
    transport_socket:
      name: envoy.transport_sockets.upstream_proxy_protocol
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport
        transport_socket:
          name: envoy.transport_sockets.raw_buffer
          typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}
`

// TestUpstreamProxyProtocol tells the host of each client, on connections that no two share.
func TestUpstreamProxyProtocol(t *testing.T) {
	t.Parallel()
	p := live(t, versions(proxied(t), false, "")+proxyTransport)
	addr := p.listener("l")
	seen := map[string]bool{}
	for range 3 {
		var local string
		rt := &http.Transport{DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, to)
			if err == nil {
				local = c.LocalAddr().String()
			}
			return c, err
		}}
		t.Cleanup(rt.CloseIdleConnections)
		var first string
		for range 3 {
			got := p.getAs(rt, addr, "x")
			if first == "" {
				first = got
			}
			_, port, _ := net.SplitHostPort(local)
			_, to, _ := net.SplitHostPort(addr)
			if want := "PROXY TCP4 127.0.0.1 127.0.0.1 " + port + " " + to; !strings.HasSuffix(got, want) || got != first {
				t.Errorf("got %q at first and then %q, want %q", first, got, want)
			}
		}
		if seen[first] {
			t.Errorf("two clients share %q", first)
		}
		seen[first] = true
	}
}

// TestUpstreamProxyProtocol_TCP is the same through a TCP proxy.
func TestUpstreamProxyProtocol_TCP(t *testing.T) {
	t.Parallel()
	p := live(t, tcpProxy(proxied(t), "")+proxyTransport)
	addr := p.listener("l")
	if got := p.getAs(noReuse(t), addr, "x"); !strings.HasPrefix(got, "1 PROXY TCP4 127.0.0.1 127.0.0.1 ") {
		t.Errorf("got %q", got)
	}
}

// tcpProxy is a bootstrap with one TCP proxy, whose cluster may be continued.
func tcpProxy(upstream, options string) string {
	return fmt.Sprintf(`
static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: t
          cluster: c%s
  clusters:
  - name: c
    load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: %s}}]}]}
`, options, socketAddress(upstream))
}

// TestPerDownstreamPools gives each downstream connection connections of its own.
func TestPerDownstreamPools(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.RemoteAddr)
	}))
	t.Cleanup(srv.Close)
	p := live(t, versions(srv.Listener.Addr().String(), false, "")+"    connection_pool_per_downstream_connection: true\n")
	addr := p.listener("l")
	got := map[string]int{}
	for range 2 {
		rt := &http.Transport{}
		t.Cleanup(rt.CloseIdleConnections)
		for range 2 {
			got[p.getAs(rt, addr, "x")]++
		}
	}
	if len(got) != 2 {
		t.Errorf("%d connections for two clients: %v", len(got), got)
	}
}

// TestMaxConnectionPools answers as Envoy does when there may be no further pool.
func TestMaxConnectionPools(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Host == "slow" {
			<-hold
		}
	}))
	t.Cleanup(srv.Close)
	p := live(t, versions(srv.Listener.Addr().String(), false, "")+`
    connection_pool_per_downstream_connection: true
    circuit_breakers: {thresholds: [{max_connection_pools: 1, track_remaining: true}]}
`)
	addr := p.listener("l")
	for range 3 { // an idle pool makes room
		if got := p.getAs(noReuse(t), addr, "x"); got != "" {
			t.Fatalf("got %q", got)
		}
	}
	done := make(chan string)
	go func() { done <- p.getAs(noReuse(t), addr, "slow") }()
	p.waitStat("cluster.c.upstream_rq_active", 1)
	if got := p.getAs(noReuse(t), addr, "x"); got != "no healthy upstream" {
		t.Errorf("got %q", got)
	}
	if a, b := p.stat("cluster.c.upstream_cx_pool_overflow"), p.stat("cluster.c.circuit_breakers.default.cx_pool_open"); a != 1 || b != 1 {
		t.Errorf("overflow %d, open %d", a, b)
	}
	close(hold)
	if got := <-done; got != "" {
		t.Errorf("got %q", got)
	}
}

// TestPreconnect makes connections in advance.
func TestPreconnect(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(srv.Close)
	p := live(t, versions(srv.Listener.Addr().String(), false, "")+"    preconnect_policy: {per_upstream_preconnect_ratio: 3}\n")
	p.getAs(noReuse(t), p.listener("l"), "x")
	p.waitStat("cluster.c.upstream_cx_total", 3)
	if n := p.stat("cluster.c.upstream_rq_total"); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// TestPreconnect_Predictive makes a connection to the host that the next request will go to.
func TestPreconnect_Predictive(t *testing.T) {
	t.Parallel()
	var addrs []string
	for range 3 {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprint(w, r.Context().Value(http.LocalAddrContextKey))
		}))
		t.Cleanup(srv.Close)
		addrs = append(addrs, "{endpoint: {address: "+socketAddress(srv.Listener.Addr().String())+"}}")
	}
	text := versions("127.0.0.1:1", false, "")
	text = text[:strings.Index(text, "lb_endpoints: [")] + "lb_endpoints: [" + strings.Join(addrs, ", ") + "]}]}\n" +
		"    preconnect_policy: {predictive_preconnect_ratio: 2}\n"
	p := live(t, text)
	addr := p.listener("l")
	got := map[string]int{p.getAs(noReuse(t), addr, "x"): 1}
	p.waitStat("cluster.c.upstream_cx_total", 2)
	for range 2 {
		got[p.getAs(noReuse(t), addr, "x")]++
	}
	if len(got) != 3 {
		t.Errorf("three requests went to %v", got)
	}
}
