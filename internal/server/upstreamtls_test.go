package server_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestUpstreamTLS sends requests over TLS: the certificate is checked, and the version of HTTP is the
// one configured or negotiated.
func TestUpstreamTLS(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.Proto, " ", r.TLS.ServerName)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	for _, tt := range []struct {
		name, options, san string
		status             int
		want               string
	}{
		{"HTTP/1", "explicit_http_config: {http_protocol_options: {}}", "example.com", 200, "HTTP/1.1 example.com"},
		{"HTTP/2", "explicit_http_config: {http2_protocol_options: {}}", "example.com", 200, "HTTP/2.0 example.com"},
		{"negotiated", "auto_config: {}", "example.com", 200, "HTTP/2.0 example.com"},
		{"another name", "explicit_http_config: {http_protocol_options: {}}", "other.org", 503, "remote connection failure"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := live(t, versions(srv.Listener.Addr().String(), false, "")+fmt.Sprintf(`
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        %s
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: example.com
        common_tls_context:
          validation_context:
            trusted_ca: {inline_string: %q}
            match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: %s}}]
`, tt.options, ca, tt.san))
			for range 3 {
				a := p.get(p.listener("l"), "/")
				if a.status != tt.status || !strings.Contains(a.body, tt.want) {
					t.Fatalf("got %d %q", a.status, a.body)
				}
			}
			if n := p.stat("cluster.c.ssl.fail_verify_san"); (n > 0) != (tt.status == 503) {
				t.Errorf("%d failures for the name", n)
			}
		})
	}
}
