package hcm

import (
	"testing"

	"sidecar/api/header"
	"sidecar/api/stream"
)

// What Envoy 1.40 sent for a client certificate with these names, and for one without any.
const (
	wantBy   = `By=spiffe://td/server;By=spiffe://td/server2;Hash=d136`
	wantText = wantBy + `;Cert="-----BEGIN%20CERTIFICATE-----%0Aa%2Bb%2Fc%3D%0A-----END%20CERTIFICATE-----%0A"` +
		`;Chain="-----BEGIN%20CERTIFICATE-----%0Aa%2Bb%2Fc%3D%0A-----END%20CERTIFICATE-----%0A` +
		`-----BEGIN%20CERTIFICATE-----%0Aca%0A-----END%20CERTIFICATE-----%0A"` +
		`;Subject="CN=client\+x,OU=Team A,O=Lyft\, Inc.,C=US";URI=spiffe://td/ns/a/sa/b;URI=spiffe://td/second` +
		`;DNS=a.example;DNS=b.example;Issuer="CN=ca,O=Root"`
	wantObject = `{"by":["spiffe://td/server","spiffe://td/server2"],"hash":"d136",` +
		`"cert":"-----BEGIN CERTIFICATE-----\na+b/c=\n-----END CERTIFICATE-----\n",` +
		`"chain":["-----BEGIN CERTIFICATE-----\na+b/c=\n-----END CERTIFICATE-----\n",` +
		`"-----BEGIN CERTIFICATE-----\nca\n-----END CERTIFICATE-----\n"],` +
		`"subject":"CN=client\\+x,OU=Team A,O=Lyft\\, Inc.,C=US",` +
		`"uri":["spiffe://td/ns/a/sa/b","spiffe://td/second"],"dns":["a.example","b.example"],` +
		`"issuer":"CN=ca,O=Root"}`
	allDetails = "set_current_client_cert_details: {subject: true, cert: true, chain: true, dns: true, uri: true, issuer: true"
)

func mutualTLS() *stream.TLSInfo {
	const leaf = "-----BEGIN CERTIFICATE-----\na+b/c=\n-----END CERTIFICATE-----\n"
	return &stream.TLSInfo{
		PeerPresented: true,
		PeerChainPEM:  leaf + "-----BEGIN CERTIFICATE-----\nca\n-----END CERTIFICATE-----\n",
		Peer: stream.CertInfo{
			Subject: `CN=client\+x,OU=Team A,O=Lyft\, Inc.,C=US`, Issuer: "CN=ca,O=Root", SHA256: "d136", PEM: leaf,
			URISAN: []string{"spiffe://td/ns/a/sa/b", "spiffe://td/second"}, DNSSAN: []string{"a.example", "b.example"},
		},
		Own: stream.CertInfo{URISAN: []string{"spiffe://td/server", "spiffe://td/server2"}},
	}
}

func TestXFCC(t *testing.T) {
	t.Parallel()
	plain := mutualTLS()
	plain.Peer.URISAN, plain.Peer.DNSSAN = nil, nil
	for _, tt := range []struct {
		name, mode, details string
		tls                 *stream.TLSInfo
		sent, want          string
	}{
		{"sanitize", "SANITIZE", allDetails + "}", mutualTLS(), "By=old", ""},
		{"forward", "FORWARD_ONLY", allDetails + "}", mutualTLS(), "By=old", "By=old"},
		{"forward without a certificate", "FORWARD_ONLY", "", &stream.TLSInfo{}, "By=old", ""},
		{"forward on plaintext", "FORWARD_ONLY", "", nil, "By=old", ""},
		{"append", "APPEND_FORWARD", "", mutualTLS(), "By=old", "By=old," + wantBy},
		{"append to nothing", "APPEND_FORWARD", "", mutualTLS(), "", wantBy},
		{"append on plaintext", "APPEND_FORWARD", "", nil, "By=old", ""},
		{"set", "SANITIZE_SET", allDetails + "}", mutualTLS(), "By=old", wantText},
		{"set on plaintext", "SANITIZE_SET", allDetails + "}", nil, "By=old", ""},
		{
			"no names", "SANITIZE_SET", "set_current_client_cert_details: {uri: true, dns: true}", plain, "",
			wantBy + ";URI=",
		},
		{"always", "ALWAYS_FORWARD_ONLY", allDetails + "}", nil, "By=old", "By=old"},
		{"JSON", "SANITIZE_SET", allDetails + ", format: JSON}", mutualTLS(), "By=old", "[" + wantObject + "]"},
		{"JSON to nothing", "APPEND_FORWARD", allDetails + ", format: JSON}", mutualTLS(), "", "[" + wantObject + "]"},
		{
			"JSON to text", "APPEND_FORWARD", "set_current_client_cert_details: {format: JSON}", mutualTLS(), "By=old",
			"By=old," + wantBy,
		},
		{
			"text to JSON", "APPEND_FORWARD", "", mutualTLS(), `[{"Hash":"z"}]`,
			`[{"Hash":"z"},{"by":["spiffe://td/server","spiffe://td/server2"],"hash":"d136"}]`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "forward_client_cert_details: "+tt.mode+"\n"+tt.details+"\n")
			r.conn.info.TLS = tt.tls
			r.conn.describe()
			lines := []string{}
			if tt.sent != "" {
				lines = append(lines, "x-forwarded-client-cert: "+tt.sent)
			}
			r.request(true, lines...)
			r.respHeaders(true)
			// The record outlives the stream in the rig.
			if got := r.ended()[0].Request.Value(header.XForwardedClientCert); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			want := "http"
			if tt.tls != nil {
				want = "https"
			}
			if got := r.ended()[0].Request.Value(header.XForwardedProto); got != want {
				t.Errorf("x-forwarded-proto %s", got)
			}
		})
	}
}
