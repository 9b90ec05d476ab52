package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"sidecar/xds/xdstest"
)

// meshCA issues the certificates of a test's workloads.
type meshCA struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

// workload is what a workload shows: its certificate and its key, in PEM.
type workload struct{ cert, key string }

func newMeshCA(t testing.TB) *meshCA {
	t.Helper()
	ca := &meshCA{t: t}
	id := ca.issue("ca")
	block, _ := pem.Decode([]byte(id.cert))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	ca.cert, ca.pem = cert, id.cert
	return ca
}

// issue makes the certificate of spiffe://mesh/NAME and NAME.mesh; the first is the authority's own.
func (ca *meshCA) issue(name string) workload {
	ca.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		ca.t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	parent, signer := tmpl, key
	if ca.cert == nil {
		ca.key = key
		tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
	} else {
		tmpl.DNSNames = []string{name + ".mesh"}
		tmpl.URIs = []*url.URL{{Scheme: "spiffe", Host: "mesh", Path: "/" + name}}
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		ca.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		ca.t.Fatal(err)
	}
	return workload{
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})),
	}
}

// common is a CommonTlsContext that shows id and trusts the authority.
func (ca *meshCA) common(id workload, more string) string {
	return fmt.Sprintf(`{%s tls_certificates: [{certificate_chain: {inline_string: %q}, private_key: {inline_string: %q}}], `+
		`validation_context: {trusted_ca: {inline_string: %q}}}`, more, id.cert, id.key, ca.pem)
}

func (ca *meshCA) config(id workload, alpn ...string) *tls.Config {
	ca.t.Helper()
	pair, err := tls.X509KeyPair([]byte(id.cert), []byte(id.key))
	if err != nil {
		ca.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return &tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool, NextProtos: alpn,
		MinVersion: tls.VersionTLS12,
	}
}

const tlsSocket = `{name: envoy.transport_sockets.tls, typed_config: {"@type": ` +
	`type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.%s, %s}}`

// secured puts a transport socket on the listener of versions, and options on its manager.
func secured(text, socket, manager string) string {
	text = strings.Replace(text, "    - filters:\n", "    - transport_socket: "+socket+"\n      filters:\n", 1)
	return strings.Replace(text, "          stat_prefix: in\n", "          stat_prefix: in\n"+manager, 1)
}

// TestMTLS_Sidecars sends requests from one sidecar to another: plaintext outside, mutual TLS with HTTP/2
// between them. The server's tells its application who the client is.
func TestMTLS_Sidecars(t *testing.T) {
	t.Parallel()
	ca := newMeshCA(t)
	app := h2cServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-seen", r.Header.Get("x-forwarded-client-cert"))
		echoRequest(w, r)
	}))
	server := live(t, secured(versions(app, false, ""),
		fmt.Sprintf(tlsSocket, "DownstreamTlsContext", "require_client_certificate: true, common_tls_context: "+
			ca.common(ca.issue("server"), "alpn_protocols: [h2, http/1.1],")),
		"          forward_client_cert_details: APPEND_FORWARD\n"+
			"          set_current_client_cert_details: {subject: true, uri: true, dns: true}\n"))
	client := func(id workload) *proxy {
		return live(t, versions(server.listener("l"), true, "")+"    transport_socket: "+
			fmt.Sprintf(tlsSocket, "UpstreamTlsContext", "sni: server.mesh, common_tls_context: "+
				ca.common(id, "alpn_protocols: [h2],"))+"\n")
	}
	p := client(ca.issue("client"))
	exchange(t, h2cClient(t), "http://"+p.listener("l"), false)
	res, err := http.Get("http://" + p.listener("l")) //nolint:noctx // ends with the test's proxy
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	seen := res.Header.Get("x-seen")
	for _, part := range []string{
		"By=spiffe://mesh/server;", "Hash=", `Subject="CN=client"`, "URI=spiffe://mesh/client", "DNS=client.mesh",
	} {
		if !strings.Contains(seen, part) {
			t.Errorf("the application saw %q, without %q", seen, part)
		}
	}
	for name, want := range map[string]int{"http.in.downstream_cx_http2_total": 1, "http.in.downstream_rq_http2_total": 3} {
		if n := server.stat(name); n != want {
			t.Errorf("%s is %d, want %d", name, n, want)
		}
	}
	strange := client(newMeshCA(t).issue("client"))
	if a := strange.get(strange.listener("l"), "/"); a.status != http.StatusServiceUnavailable {
		t.Errorf("a client of another authority got %d", a.status)
	}
	if server.stat("http.in.downstream_rq_total") != 3 {
		t.Error("its request was taken")
	}
}

// TestMTLS_TCP has a TCP proxy speak TLS to its upstream, and end with it on both sides.
func TestMTLS_TCP(t *testing.T) {
	t.Parallel()
	ca := newMeshCA(t)
	cfg := ca.config(ca.issue("server"))
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	ln, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	t.Cleanup(func() { _ = ln.Close(); done.Wait() })
	done.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	p := live(t, fmt.Sprintf(`
static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}
  clusters:
  - name: c
    load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: %s}}]}]}
    transport_socket: %s
`, socketAddress(ln.Addr().String()), fmt.Sprintf(tlsSocket, "UpstreamTlsContext",
		"sni: server.mesh, common_tls_context: "+ca.common(ca.issue("client"), ""))))
	conn, err := net.Dial("tcp", p.listener("l"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	done.Go(func() {
		_, _ = conn.Write(sent)
		_ = conn.(*net.TCPConn).CloseWrite() //nolint:forcetypeassert // of net.Dial
	})
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d of %d bytes came back, %v", len(got), len(sent), err)
	}
	if n := p.stat("cluster.c.ssl.handshake"); n != 1 {
		t.Errorf("%d handshakes", n)
	}
	p.waitStat("cluster.c.upstream_cx_active", 0)
}

// TestHandshakeTimeout cuts off a client that doesn't get through its handshake, on its filter chain's
// time.
func TestHandshakeTimeout(t *testing.T) {
	t.Parallel()
	ca := newMeshCA(t)
	text := secured(versions("127.0.0.1:1", false, ""),
		fmt.Sprintf(tlsSocket, "DownstreamTlsContext", "common_tls_context: "+ca.common(ca.issue("server"), "")), "")
	text = strings.Replace(text, "    - transport_socket:", "    - transport_socket_connect_timeout: 0.1s\n      transport_socket:", 1)
	text = strings.Replace(text, "  - name: l\n", "  - name: l\n    stat_prefix: l\n", 1)
	p := live(t, text)
	conn, err := net.Dial("tcp", p.listener("l"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("\x16\x03\x01\x02\x00")); err != nil { // the beginning of a record
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && n != 0 {
		t.Errorf("got %d bytes, %v", n, err)
	}
	p.waitStat("listener.l.downstream_cx_transport_socket_connect_timeout", 1)
	p.waitStat("listener.l.downstream_cx_active", 0)
}

// behindTLS makes a server of plaintext one of TLS.
func behindTLS(t testing.TB, addr string, cfg *tls.Config) (secure string) {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	t.Cleanup(func() { cancel(); _ = ln.Close(); done.Wait() })
	done.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				up, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
				if err != nil {
					_ = c.Close()
					return
				}
				stop := context.AfterFunc(ctx, func() { _, _ = c.Close(), up.Close() })
				defer stop()
				done.Go(func() { _, _ = io.Copy(up, c); _ = up.Close() })
				_, _ = io.Copy(c, up)
				_ = c.Close()
			})
		}
	})
	return ln.Addr().String()
}

// TestADS_TLS talks to a management server over mutual TLS, has a cluster whose certificates are an SDS
// secret of the same server wait for it alone, and serves once it has come.
func TestADS_TLS(t *testing.T) {
	t.Parallel()
	ca := newMeshCA(t)
	srv := xdstest.New(t)
	cfg := ca.config(ca.issue("istiod"), "h2")
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	addr := behindTLS(t, srv.Addr(), cfg)

	app := ca.config(ca.issue("app"), "h2", "http/1.1")
	app.ClientAuth = tls.RequireAndVerifyClientCert
	plain := h2cServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secure") }))
	secure := behindTLS(t, plain, app)

	text := adsBootstrap("GRPC", addr) // with a cluster, at its end
	text += "    transport_socket: " + fmt.Sprintf(tlsSocket, "UpstreamTlsContext",
		"sni: istiod.mesh, common_tls_context: "+ca.common(ca.issue("sidecar"), "alpn_protocols: [h2],")) + "\n"
	open := upstream(t, "open")
	cluster := func(name, addr, more string) *clusterv3.Cluster {
		return resource(t, &clusterv3.Cluster{}, fmt.Sprintf(
			"{name: %s, load_assignment: {cluster_name: %s, endpoints: [{lb_endpoints: [{endpoint: {address: %s}}]}]}%s}",
			name, name, socketAddress(addr), more))
	}
	sds := ", transport_socket: " + fmt.Sprintf(tlsSocket, "UpstreamTlsContext", "common_tls_context: {"+
		"tls_certificate_sds_secret_configs: [{name: late, sds_config: {ads: {}, resource_api_version: V3}}], "+
		fmt.Sprintf("validation_context: {trusted_ca: {inline_string: %q}}}", ca.pem))
	srv.Set(cluster("open", open, ""), rdsListener(t, "l1", "r1", "", ""), routes(t, "r1", "open"))
	p := start(t, text)
	l1 := p.waitListener("l1")
	p.wait("the first cluster", func() bool { return p.get(l1, "/").body == "open" })
	srv.Set(cluster("secure", secure, sds), rdsListener(t, "l2", "r2", "", ""), routes(t, "r2", "secure"))
	p.waitStat("cluster_manager.warming_clusters", 1)
	l2 := p.waitListener("l2")
	if one, two := p.get(l1, "/"), p.get(l2, "/"); one.body != "open" || two.status != http.StatusServiceUnavailable {
		t.Errorf("while the secret is awaited: %d %q, %d", one.status, one.body, two.status)
	}
	id := ca.issue("sidecar")
	srv.Set(resource(t, &tlsv3.Secret{}, fmt.Sprintf(
		"{name: late, tls_certificate: {certificate_chain: {inline_string: %q}, private_key: {inline_string: %q}}}", id.cert, id.key)))
	p.waitStat("cluster_manager.warming_clusters", 0)
	p.wait("the second cluster", func() bool { return p.get(l2, "/").body == "secure" })
	if a := p.get(l1, "/"); a.body != "open" {
		t.Errorf("the first: %d %q", a.status, a.body)
	}
}
