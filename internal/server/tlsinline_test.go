package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// identity makes a certificate that vouches for itself, and its key, in PEM.
func identity(t testing.TB, name string, life time.Duration) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

// TestTLSInline serves a listener whose certificates are part of its configuration: a client that offers
// no application protocol is served too, /certs and stats show the certificates, and the log tells who
// the client is. As in Envoy files are read once.
func TestTLSInline(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := identity(t, "own.test", 73*time.Hour)
	client, clientKey := identity(t, "client.test", 49*time.Hour)
	chain := filepath.Join(dir, "chain.pem")
	if err := os.WriteFile(chain, []byte(cert), 0o600); err != nil {
		t.Fatal(err)
	}
	p := live(t, fmt.Sprintf(`
static_resources:
  listeners:
  - name: l
    stat_prefix: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    listener_filters:
    - name: envoy.filters.listener.tls_inspector
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector
        enable_ja4_fingerprinting: true
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_certificates:
            - {certificate_chain: {filename: %q}, private_key: {inline_string: %q}, watched_directory: {path: %q}}
            validation_context: {trusted_ca: {inline_string: %q}}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            virtual_hosts:
            - name: v
              domains: ["*"]
              routes:
              - match: {prefix: /}
                direct_response: {status: 200, body: {inline_string: hello}}
                response_headers_to_add:
                - header: {key: x-peer, value: "%%DOWNSTREAM_PEER_SUBJECT%% %%DOWNSTREAM_PEER_CHAIN_SERIALS%% %%TLS_JA4_FINGERPRINT%%"}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`, chain, key, dir, client))
	pair, err := tls.X509KeyPair([]byte(client), []byte(clientKey))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(cert))
	tr := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: "own.test", Certificates: []tls.Certificate{pair}},
		TLSNextProto:      map[string]func(string, *tls.Conn) http.RoundTripper{}, // no ALPN
		DisableKeepAlives: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	ask := func() http.Header {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+p.listener("l")+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello" {
			t.Fatalf("%v, %q", err, body)
		}
		return resp.Header
	}
	peer := strings.Fields(ask().Get("x-peer"))
	if len(peer) != 3 || peer[0] != "CN=client.test" || peer[1] != "4d" || !strings.HasPrefix(peer[2], "t13d") {
		t.Errorf("x-peer: %q", peer)
	}
	certs := p.adminGet("/certs")
	for _, want := range []string{`"path": "` + chain + `"`, `"path": "<inline>"`, `"serial_number": "4d"`, `"days_until_expiration": "3"`, `"days_until_expiration": "2"`} {
		if !strings.Contains(certs, want) {
			t.Errorf("/certs has no %s: %s", want, certs)
		}
	}
	if n := p.stat("listener.l.ssl.certificate.unnamed_cert_e3b0c442.expiration_unix_time_seconds"); time.Until(time.Unix(int64(n), 0)) < 72*time.Hour {
		t.Errorf("the certificate expires at %d", n)
	}
	if n := p.stat("server.days_until_first_cert_expiring"); n != 2 {
		t.Errorf("the first certificate expires in %d days", n)
	}

	if err := os.WriteFile(chain, []byte(client), 0o600); err != nil {
		t.Fatal(err)
	}
	ask()
	p.waitStat("listener.l.ssl.handshake", 2)
}
