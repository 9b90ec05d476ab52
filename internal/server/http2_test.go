package server_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

func h2cOnly() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// h2cClient speaks HTTP/2 on plaintext connections.
func h2cClient(t testing.TB) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: h2cOnly()}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// h2cServer answers HTTP/2 on plaintext connections.
func h2cServer(t testing.TB, h http.Handler) (addr string) {
	t.Helper()
	s := &http.Server{Handler: h, ReadHeaderTimeout: patience}
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-ended })
	return l.Addr().String()
}

// versions is a bootstrap with one cluster, of HTTP/1 or HTTP/2.
func versions(upstream string, two bool, filters string) string {
	options := ""
	if two {
		options = `
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}`
	}
	return fmt.Sprintf(`
static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c}}]}]
          http_filters:
%s
          - {name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: c%s
    load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: %s}}]}]}
`, filters, options, socketAddress(upstream))
}

// TestVersions sends the same exchange over versions of HTTP.
func TestVersions(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		down, up bool // HTTP/2
	}{
		{"HTTP/1 to HTTP/1", false, false},
		{"HTTP/2 to HTTP/1", true, false},
		{"HTTP/1 to HTTP/2", false, true},
		{"HTTP/2 to HTTP/2", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			addr := h2cServer(t, http.HandlerFunc(echoRequest))
			p := live(t, versions(addr, tt.up, ""))
			tr := &http.Transport{}
			t.Cleanup(tr.CloseIdleConnections)
			client := &http.Client{Transport: tr}
			if tt.down {
				client = h2cClient(t)
			}
			exchange(t, client, "http://"+p.listener("l"), tt.up)
			name := "http1"
			if tt.down {
				name = "http2"
			}
			if got := p.stat("http.in.downstream_rq_" + name + "_total"); got != 2 {
				t.Errorf("%d requests of %s", got, name)
			}
		})
	}
}

// echoRequest answers with the body.
func echoRequest(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 is, and says that it can't be told
	w.Header().Set("x-proto", r.Proto)
	_, _ = io.Copy(w, r.Body)
}

func exchange(t *testing.T, client *http.Client, url string, two bool) {
	t.Helper()
	head, err := http.NewRequestWithContext(t.Context(), http.MethodHead, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(head)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[two]; res.Header.Get("x-proto") != want || res.StatusCode != http.StatusOK {
		t.Errorf("HEAD: %s %v", res.Status, res.Header)
	}
	body := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB, without a length
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, io.MultiReader(strings.NewReader(body)))
	if err != nil {
		t.Fatal(err)
	}
	if res, err = client.Do(req); err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || !bytes.Equal(b, []byte(body)) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
}

// TestHTTP2Connection: many streams at once on one connection, one of which is given up.
func TestHTTP2Connection(t *testing.T) {
	t.Parallel()
	hang, gone := make(chan struct{}, 1), make(chan struct{}, 1)
	addr := h2cServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			hang <- struct{}{}
			<-r.Context().Done()
			gone <- struct{}{}
			return
		}
		_, _ = io.WriteString(w, r.URL.Path)
	}))
	p := live(t, versions(addr, false, ""))
	client, url := h2cClient(t), "http://"+p.listener("l")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/hang", http.NoBody)
		if err == nil {
			var res *http.Response
			if res, err = client.Do(req); err == nil {
				_ = res.Body.Close()
			}
		}
		failed <- err
	}()
	<-hang
	for i := range 20 {
		path := fmt.Sprint("/", i)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || string(b) != path || res.Header.Get("connection") != "" {
			t.Fatalf("%s: %q %v %v", path, b, err, res.Header)
		}
	}
	cancel()
	if err := <-failed; err == nil {
		t.Error("the request that was given up succeeded")
	}
	<-gone // the upstream is told
	p.waitStat("http.in.downstream_rq_rx_reset", 1)
	for name, want := range map[string]int{
		"downstream_cx_http2_total": 1, "downstream_cx_http2_active": 1, "downstream_rq_http2_total": 21,
		"downstream_rq_2xx": 20, "downstream_rq_active": 0, "downstream_cx_destroy": 0,
	} {
		if got := p.stat("http.in." + name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}

// TestGRPC_LocalReply: a caller is told of our failures in its own terms, with a head alone.
func TestGRPC_LocalReply(t *testing.T) {
	t.Parallel()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	_ = l.Close()
	p := live(t, versions(dead, false, `
          - name: envoy.filters.http.grpc_stats
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig
              stats_for_all_methods: true`))
	conn, err := grpc.NewClient(p.listener("l"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.Invoke(t.Context(), "/s.A/m", &emptypb.Empty{}, &emptypb.Empty{})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "upstream connect error") {
		t.Errorf("%v", err)
	}
	// Whether the message was read before the connection was refused is a matter of luck.
	for name, want := range map[string]int{"14": 1, "failure": 1, "total": 1} {
		if got := p.stat("cluster.c.grpc.s.A.m." + name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}

// TestHTTP2_ClientGone: a client that leaves in the middle of an answer ends the request upstream.
func TestHTTP2_ClientGone(t *testing.T) {
	t.Parallel()
	begun, ended := make(chan struct{}), make(chan struct{})
	addr := h2cServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		close(begun)
		<-r.Context().Done()
		close(ended)
	}))
	p := live(t, versions(addr, true, ""))
	conns := make(chan net.Conn, 1)
	tr := &http.Transport{
		Protocols: h2cOnly(),
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err == nil {
				conns <- nc
			}
			return nc, err
		},
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.listener("l")+"/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	<-begun
	_ = (<-conns).Close()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the upstream was not told")
	}
}
