package tlsctx

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/wire"
)

// authority signs the certificates of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	k := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{c, k, encode("CERTIFICATE", der)}
}

// issue makes a certificate with a DNS name and a SPIFFE name.
func (a *authority) issue(t testing.TB, name string, life time.Duration) *tlsv3.TlsCertificate {
	t.Helper()
	k := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(42), Subject: pkix.Name{CommonName: name, Organization: []string{"x"}},
		DNSNames: []string{name}, URIs: []*url.URL{{Scheme: "spiffe", Host: "td", Path: "/" + name}},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(life),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return &tlsv3.TlsCertificate{
		CertificateChain: text(encode("CERTIFICATE", der)), PrivateKey: text(encode("PRIVATE KEY", keyDER)),
	}
}

func text(s string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
}

func trust(ca *authority, dns string) *tlsv3.CommonTlsContext_ValidationContext {
	v := &tlsv3.CertificateValidationContext{TrustedCa: text(ca.pem)}
	if dns != "" {
		v.MatchTypedSubjectAltNames = []*tlsv3.SubjectAltNameMatcher{{
			SanType: tlsv3.SubjectAltNameMatcher_DNS,
			Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: dns}},
		}}
	}
	return &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: v}
}

type rig struct {
	down  *Downstream
	up    *Upstream
	store *stats.Store
}

func newRig(t testing.TB, d *tlsv3.DownstreamTlsContext, u *tlsv3.UpstreamTlsContext) *rig {
	t.Helper()
	r := &rig{store: stats.New()}
	scope := func(name string) filter.TransportContext {
		s := r.store.Root().Sub(name)
		return filter.TransportContext{Scope: func() *stats.Scope { return s }}
	}
	var err error
	if r.down, err = CompileDownstream(d, scope("l"), &Env{}); err != nil {
		t.Fatal(err)
	}
	if r.up, err = CompileUpstream(u, scope("c"), &Env{}); err != nil {
		t.Fatal(err)
	}
	return r
}

// shake makes a connection and the handshake of both sides.
func (r *rig) shake(t testing.TB, o *filter.ConnectOptions,
) (info *stream.ConnInfo, up *stream.TLSInfo, fault *filter.TransportError, down error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	cw, err := wire.New(client, wire.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sw, err := wire.New(server, wire.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cw.Close()
	defer sw.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	info = &stream.ConnInfo{}
	done := make(chan error, 1)
	go func() {
		err := r.down.Accept(ctx, sw, info)
		if err != nil {
			sw.Close()
		}
		done <- err
	}()
	up, fault = r.up.Connect(ctx, cw, o)
	if fault != nil {
		cw.Close()
	}
	return info, up, fault, <-done
}

func TestMutual(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	r := newRig(t, &tlsv3.DownstreamTlsContext{
		RequireClientCertificate: wrapperspb.Bool(true),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsCertificates:       []*tlsv3.TlsCertificate{ca.issue(t, "server.test", time.Hour)},
			ValidationContextType: trust(ca, "client.test"), AlpnProtocols: []string{"h2", "http/1.1"},
		},
	}, &tlsv3.UpstreamTlsContext{
		Sni: "server.test",
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsCertificates:       []*tlsv3.TlsCertificate{ca.issue(t, "client.test", time.Hour)},
			ValidationContextType: trust(ca, "server.test"), AlpnProtocols: []string{"h2"},
			TlsParams: &tlsv3.TlsParameters{TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3},
		},
	})
	info, up, fault, err := r.shake(t, nil)
	if err != nil || fault != nil {
		t.Fatal(err, fault)
	}
	if up.Version != "TLSv1.3" || up.Group != "X25519" || up.ALPN != "h2" || up.Peer.DNSSAN[0] != "server.test" {
		t.Errorf("upstream session: %+v", up)
	}
	d := info.TLS
	if !d.Mutual || !d.PeerValidated || d.Peer.Subject != "CN=client.test,O=x" ||
		d.Peer.URISAN[0] != "spiffe://td/client.test" || d.Peer.Serial != "2a" || info.SNI != "" || info.ALPN != "h2" {
		t.Errorf("downstream session: %+v", d)
	}
	s := r.down.stats.ssl
	if s.Handshake.Value() != 1 || s.ConnectionError.Value() != 0 || s.NoCertificate.Value() != 0 {
		t.Error("handshake is not counted as such")
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	const verify = "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify cert failed: "
	for _, c := range []struct {
		name string
		cert *tlsv3.TlsCertificate
		want string
		stat func(*sslStats) *stats.Counter
	}{
		{
			"no certificate", nil, "TLS_error:|268435648:SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE" +
				":peer did not provide required client certificate:TLS_error_end",
			func(s *sslStats) *stats.Counter { return &s.FailVerifyNoCert },
		},
		{
			"unknown authority", other.issue(t, "client.test", time.Hour), verify +
				"X509_verify_cert: certificate verification error at depth 0: unable to get local issuer certificate:TLS_error_end",
			func(s *sslStats) *stats.Counter { return &s.FailVerifyError },
		},
		{
			"expired", ca.issue(t, "client.test", -time.Hour), verify +
				"X509_verify_cert: certificate verification error at depth 0: certificate has expired:TLS_error_end",
			func(s *sslStats) *stats.Counter { return &s.FailVerifyError },
		},
		{
			"another name", ca.issue(t, "foe.test", time.Hour), verify +
				"SAN matcher, certificate SANs are [foe.test, spiffe://td/foe.test]:TLS_error_end",
			func(s *sslStats) *stats.Counter { return &s.FailVerifySAN },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			up := &tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{}}
			if c.cert != nil {
				up.CommonTlsContext.TlsCertificates = []*tlsv3.TlsCertificate{c.cert}
			}
			r := newRig(t, &tlsv3.DownstreamTlsContext{
				RequireClientCertificate: wrapperspb.Bool(true),
				CommonTlsContext: &tlsv3.CommonTlsContext{
					TlsCertificates:       []*tlsv3.TlsCertificate{ca.issue(t, "server.test", time.Hour)},
					ValidationContextType: trust(ca, "client.test"),
				},
			}, up)
			info, _, _, err := r.shake(t, nil)
			if err == nil || info.TransportFailure != c.want {
				t.Fatalf("got %v, %q, want %q", err, info.TransportFailure, c.want)
			}
			if n := c.stat(r.down.stats.ssl).Value(); n != 1 {
				t.Errorf("counted %d times", n)
			}
		})
	}
}

func TestResumption(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	r := newRig(t, &tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsCertificates: []*tlsv3.TlsCertificate{ca.issue(t, "server.test", time.Hour)},
	}}, &tlsv3.UpstreamTlsContext{Sni: "server.test", CommonTlsContext: &tlsv3.CommonTlsContext{
		ValidationContextType: trust(ca, ""), // TLS 1.2: the ticket comes in the handshake
	}})
	for range 2 {
		if _, _, fault, err := r.shake(t, nil); err != nil || fault != nil {
			t.Fatal(err, fault)
		}
	}
	if n := r.down.stats.ssl.SessionReused.Value(); n != 1 {
		t.Errorf("session_reused = %d", n)
	}
	_, _, fault, _ := r.shake(t, &filter.ConnectOptions{SANs: []string{"other.test"}})
	if fault == nil || !strings.Contains(fault.Transport, "verify SAN list") {
		t.Errorf("a resumed session is not checked: %v", fault)
	}
}

func TestCompileSecret_Refuses(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	good, other := ca.issue(t, "a.test", time.Hour), ca.issue(t, "b.test", time.Hour)
	for _, c := range []struct {
		name        string
		chain, key  string
		path, wants string
	}{
		{"no PEM in the chain", "x", good.GetPrivateKey().GetInlineString(), "certificate_chain", "Failed to load certificate chain from <inline>"},
		{"no PEM in the key", good.GetCertificateChain().GetInlineString(), "secret-text", "private_key", "Failed to load private key from <inline>"},
		{"another's key", good.GetCertificateChain().GetInlineString(), other.GetPrivateKey().GetInlineString(), "private_key", "KEY_VALUES_MISMATCH"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var errs config.Errors
			m := CompileSecret(nil, &tlsv3.Secret{Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
				CertificateChain: text(c.chain), PrivateKey: text(c.key),
			}}}, &SecretEnv{}, &errs)
			err := errs.Err()
			if m != nil || err == nil || !strings.Contains(err.Error(), c.wants) || !strings.Contains(err.Error(), c.path) {
				t.Fatalf("got %v", err)
			}
			if strings.Contains(err.Error(), "secret-text") {
				t.Error("the key is in the error")
			}
		})
	}
}

func FuzzCompileSecret(f *testing.F) {
	ca := newAuthority(f)
	good := ca.issue(f, "a.test", time.Hour)
	f.Add([]byte(good.GetCertificateChain().GetInlineString()), []byte(good.GetPrivateKey().GetInlineString()))
	f.Add([]byte(ca.pem), []byte("-----BEGIN PRIVATE KEY-----\n\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), []byte{})
	f.Fuzz(func(t *testing.T, chain, key []byte) {
		inline := func(b []byte) *corev3.DataSource {
			return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
		}
		for _, s := range []*tlsv3.Secret{
			{Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(chain), PrivateKey: inline(key)}}},
			{Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(chain), Crl: inline(key)}}},
		} {
			var errs config.Errors
			if m := CompileSecret(nil, s, &SecretEnv{}, &errs); (m == nil) != (errs.Err() != nil) {
				t.Fatal("neither a secret nor an error", errs.Err())
			}
		}
	})
}
