package format

import (
	"testing"
	"time"

	"sidecar/api/stream"
)

// TestTLS holds each operator of TLS on both sides; Envoy 1.40 has no others.
func TestTLS(t *testing.T) {
	t.Parallel()
	in := proxied()
	in.Conn.JA3, in.Conn.JA4 = "ja3", "ja4"
	in.Conn.TLS = &stream.TLSInfo{
		Version: "TLSv1.3", Cipher: "TLS_AES_128_GCM_SHA256", Group: "X25519", PeerPresented: true,
		PeerChainSHA256: "a,b", PeerChainSHA1: "c,d", PeerChainSerials: "1,2", IssuerSHA256: "b", IssuerSerial: "2",
		Peer: stream.CertInfo{
			Subject: "CN=client", Issuer: "CN=ca", Serial: "1", SHA256: "a", SHA1: "c", PEM: "-+/=\n",
			DNSSAN: []string{"x", "y"}, URISAN: []string{"spiffe://td/c"}, IPSAN: []string{"10.1.2.3"},
			EmailSAN: []string{"a@b"}, OtherSAN: []string{"upn", "other"},
			NotBefore: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), NotAfter: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC),
		},
		Own: stream.CertInfo{Subject: "CN=own", DNSSAN: []string{"o"}, OtherSAN: []string{"z"}},
	}
	in.Upstream.TLS = &stream.TLSInfo{
		Version: "TLSv1.2", SNI: "up.test", PeerPresented: true,
		Peer: stream.CertInfo{Subject: "CN=up", Issuer: "CN=upca", URISAN: []string{"spiffe://td/up"}},
	}
	for name, want := range map[string]string{
		"DOWNSTREAM_TLS_VERSION": "TLSv1.3", "DOWNSTREAM_TLS_CIPHER": "TLS_AES_128_GCM_SHA256",
		"DOWNSTREAM_TLS_GROUP": "X25519", "DOWNSTREAM_TLS_SESSION_ID": "-",
		"DOWNSTREAM_PEER_SUBJECT": "CN=client", "DOWNSTREAM_PEER_ISSUER": "CN=ca", "DOWNSTREAM_PEER_SERIAL": "1",
		"DOWNSTREAM_PEER_FINGERPRINT_256": "a", "DOWNSTREAM_PEER_FINGERPRINT_1": "c",
		"DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256": "a,b", "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1": "c,d",
		"DOWNSTREAM_PEER_CHAIN_SERIALS": "1,2", "DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256": "b",
		"DOWNSTREAM_PEER_ISSUER_SERIAL": "2", "DOWNSTREAM_PEER_DNS_SAN": "x,y", "DOWNSTREAM_PEER_URI_SAN": "spiffe://td/c",
		"DOWNSTREAM_PEER_IP_SAN": "10.1.2.3", "DOWNSTREAM_PEER_EMAIL_SAN": "a@b",
		"DOWNSTREAM_PEER_OTHERNAME_SAN": "upn,other", "DOWNSTREAM_PEER_CERT": "-%2B%2F%3D%0A",
		"DOWNSTREAM_PEER_CERT_V_START": "2026-01-02T03:04:05.000Z", "DOWNSTREAM_PEER_CERT_V_END(%Y)": "2027",
		"DOWNSTREAM_LOCAL_SUBJECT": "CN=own", "DOWNSTREAM_LOCAL_DNS_SAN": "o", "DOWNSTREAM_LOCAL_URI_SAN": "-",
		"DOWNSTREAM_LOCAL_IP_SAN": "-", "DOWNSTREAM_LOCAL_EMAIL_SAN": "-", "DOWNSTREAM_LOCAL_OTHERNAME_SAN": "z",
		"TLS_JA3_FINGERPRINT": "ja3", "TLS_JA4_FINGERPRINT": "ja4",
		"UPSTREAM_TLS_VERSION": "TLSv1.2", "UPSTREAM_SERVER_NAME": "up.test", "UPSTREAM_PEER_SUBJECT": "CN=up",
		"UPSTREAM_PEER_ISSUER": "CN=upca", "UPSTREAM_PEER_URI_SAN": "spiffe://td/up", "UPSTREAM_PEER_DNS_SAN": "-",
		"UPSTREAM_LOCAL_URI_SAN": "-",
	} {
		f, err := Compile("%"+name+"%", Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := string(f.Append(nil, in)); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{
		"UPSTREAM_PEER_SERIAL", "UPSTREAM_PEER_FINGERPRINT_256", "UPSTREAM_PEER_EMAIL_SAN", "UPSTREAM_LOCAL_SUBJECT",
		"UPSTREAM_PEER_CHAIN_SERIALS", "UPSTREAM_PEER_OTHERNAME_SAN", "DOWNSTREAM_PEER_NOPE_SAN",
	} {
		if _, err := Compile("%"+name+"%", Options{}); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
