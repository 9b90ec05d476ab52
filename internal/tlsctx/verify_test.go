package tlsctx

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/internal/config"
)

// sign makes a certificate of a template, valid for an hour unless the template says otherwise.
func (a *authority) sign(t testing.TB, tmpl *x509.Certificate, pub crypto.PublicKey) *x509.Certificate {
	t.Helper()
	if tmpl.SerialNumber == nil {
		tmpl.SerialNumber = big.NewInt(time.Now().UnixNano())
	}
	if tmpl.NotAfter.IsZero() {
		tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sub makes an authority below a.
func (a *authority) sub(t testing.TB, name string) *authority {
	t.Helper()
	k := newKey(t)
	c := a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, k.Public())
	return &authority{c, k, encode("CERTIFICATE", c.Raw)}
}

// revoke makes a CRL that is good until the given time from now.
func (a *authority) revoke(t testing.TB, until time.Duration, serials ...*big.Int) string {
	t.Helper()
	l := &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: time.Now().Add(until),
	}
	for _, n := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: n, RevocationTime: time.Now().Add(-time.Hour)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return encode("X509 CRL", der)
}

// otherNameExtension is a SubjectAlternativeName with one otherName.
func otherNameExtension(t testing.TB, oid asn1.ObjectIdentifier, value string) pkix.Extension {
	t.Helper()
	must := func(v any, params string) []byte {
		b, err := asn1.MarshalWithParams(v, params)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	body := append(must(oid, ""), must(asn1.RawValue{
		Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: must(value, "utf8"),
	}, "")...)
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: must([]asn1.RawValue{
		{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: body},
	}, "")}
}

func matcher(kind tlsv3.SubjectAltNameMatcher_SanType, exact string) *tlsv3.SubjectAltNameMatcher {
	return &tlsv3.SubjectAltNameMatcher{
		SanType: kind,
		Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: exact}},
	}
}

// people are certificates of all sorts.
type people struct {
	ca, inter                       *authority
	leaf, below, old, young, self   *x509.Certificate
	other, noSigning, agreement, no *x509.Certificate
}

func newPeople(t testing.TB) *people {
	t.Helper()
	p := &people{ca: newAuthority(t)}
	p.inter = p.ca.sub(t, "inter")
	pub := newKey(t).Public()
	named := func() *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: "client"}, DNSNames: []string{"client.test", "*.wild.test"},
			URIs: []*url.URL{{Scheme: "spiffe", Host: "td", Path: "/client"}}, EmailAddresses: []string{"a@b.test"},
			IPAddresses: []net.IP{net.IPv4(10, 1, 2, 3)},
		}
	}
	span := func(from, to time.Duration) *x509.Certificate {
		c := named()
		c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to)
		return c
	}
	p.leaf, p.below = p.ca.sign(t, named(), pub), p.inter.sign(t, named(), pub)
	p.old, p.young = p.ca.sign(t, span(-50*time.Minute, -time.Minute), pub), p.ca.sign(t, span(time.Minute, 50*time.Minute), pub)
	k := newKey(t)
	own := &authority{cert: named(), key: k}
	p.self = own.sign(t, own.cert, k.Public())
	other := named()
	other.ExtraExtensions = []pkix.Extension{otherNameExtension(t, asn1.ObjectIdentifier{1, 3, 6, 1, 4}, "upn@x.test")}
	p.other = p.ca.sign(t, other, pub)
	usage := func(u x509.KeyUsage) *x509.Certificate {
		c := named()
		c.KeyUsage = u
		return p.ca.sign(t, c, pub)
	}
	p.noSigning, p.agreement = usage(x509.KeyUsageKeyEncipherment), usage(x509.KeyUsageKeyAgreement)
	server := named()
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	p.no = p.ca.sign(t, server, pub)
	return p
}

const chainFailed = "X509_verify_cert: certificate verification error at depth "

// TestVerify holds what is asked of a client's chain; the answers are those of Envoy 1.40 to the same.
func TestVerify(t *testing.T) {
	t.Parallel()
	p := newPeople(t)
	type context = tlsv3.CertificateValidationContext
	leaf, below := []*x509.Certificate{p.leaf}, []*x509.Certificate{p.below, p.inter.cert}
	crl := func(s ...string) func(*context) { return func(v *context) { v.Crl = text(strings.Join(s, "")) } }
	leafOnly := func(f func(*context)) func(*context) {
		return func(v *context) {
			f(v)
			v.OnlyVerifyLeafCertCrl = true
		}
	}
	depth := func(n uint32) func(*context) {
		return func(v *context) { v.MaxVerifyDepth = wrapperspb.UInt32(n) }
	}
	san := func(m ...*tlsv3.SubjectAltNameMatcher) func(*context) {
		return func(v *context) { v.MatchTypedSubjectAltNames = m }
	}
	expired := func(v *context) { v.AllowExpiredCertificate = true }
	sum := sha256.Sum256(p.leaf.Raw)
	key := sha256.Sum256(p.leaf.RawSubjectPublicKeyInfo)
	hash, bad := hex.EncodeToString(sum[:]), strings.Repeat("ab", sha256.Size)
	spki := base64.StdEncoding.EncodeToString(key[:])
	clean, stale := p.ca.revoke(t, time.Hour), p.ca.revoke(t, -time.Minute)
	oid := func(m *tlsv3.SubjectAltNameMatcher, s string) *tlsv3.SubjectAltNameMatcher {
		m.Oid = s
		return m
	}
	const revoked = crlFailed + "certificate revoked"
	sans := "SAN matcher, certificate SANs are [client.test, *.wild.test, a@b.test, 10.1.2.3, spiffe://td/client]"
	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		set   func(*context)
		want  string
	}{
		{"good", leaf, nil, ""},
		{"good through another", below, nil, ""},
		{"the other is missing", below[:1], nil, chainFailed + "0: unable to get local issuer certificate"},
		{"expired", []*x509.Certificate{p.old}, nil, chainFailed + "0: certificate has expired"},
		{"not yet valid", []*x509.Certificate{p.young}, nil, chainFailed + "0: certificate is not yet valid"},
		{"expired, allowed", []*x509.Certificate{p.old}, expired, ""},
		{"not yet valid, allowed", []*x509.Certificate{p.young}, expired, ""},
		{"signed by itself", []*x509.Certificate{p.self}, nil, chainFailed + "0: self signed certificate"},
		{"of a server", []*x509.Certificate{p.no}, nil, chainFailed + "0: unsupported certificate purpose"},
		{"not for signing", []*x509.Certificate{p.noSigning}, nil, chainFailed + "0: unsupported certificate purpose"},
		{"for key agreement", []*x509.Certificate{p.agreement}, nil, ""},

		{"DNS", leaf, san(matcher(tlsv3.SubjectAltNameMatcher_DNS, "client.test")), ""},
		{"DNS by wildcard", leaf, san(matcher(tlsv3.SubjectAltNameMatcher_DNS, "x.wild.test")), ""},
		{"DNS by a wildcard's depth", leaf, san(matcher(tlsv3.SubjectAltNameMatcher_DNS, "x.y.wild.test")), sans},
		{"DNS of a URI", leaf, san(matcher(tlsv3.SubjectAltNameMatcher_DNS, "spiffe://td/client")), sans},
		{"URI", leaf, san(matcher(tlsv3.SubjectAltNameMatcher_URI, "spiffe://td/client")), ""},
		{"e-mail", leaf, san(matcher(tlsv3.SubjectAltNameMatcher_EMAIL, "a@b.test")), ""},
		{"IP address", leaf, san(matcher(tlsv3.SubjectAltNameMatcher_IP_ADDRESS, "10.1.2.3")), ""},
		{"another IP address", leaf, san(matcher(tlsv3.SubjectAltNameMatcher_IP_ADDRESS, "10.1.2.4")), sans},
		{
			"the second of two", leaf, san(matcher(tlsv3.SubjectAltNameMatcher_DNS, "foe.test"),
				matcher(tlsv3.SubjectAltNameMatcher_DNS, "client.test")), "",
		},
		{
			"other name",
			[]*x509.Certificate{p.other},
			san(oid(matcher(tlsv3.SubjectAltNameMatcher_OTHER_NAME, "upn@x.test"), "1.3.6.1.4")), "",
		},
		{
			"other name of another type",
			[]*x509.Certificate{p.other},
			san(oid(matcher(tlsv3.SubjectAltNameMatcher_OTHER_NAME, "upn@x.test"), "1.3.6.1.5")),
			"SAN matcher, certificate SANs are [upn@x.test]",
		},

		{"hash", leaf, func(v *context) { v.VerifyCertificateHash = []string{bad, hash} }, ""},
		{"another hash", leaf, func(v *context) { v.VerifyCertificateHash = []string{bad} }, "cert hash and spki"},
		{"key", leaf, func(v *context) { v.VerifyCertificateSpki = []string{spki} }, ""},
		{
			"key but not hash", leaf, func(v *context) {
				v.VerifyCertificateSpki, v.VerifyCertificateHash = []string{spki}, []string{bad}
			}, "",
		},
		{
			"hash without CA", []*x509.Certificate{p.self}, func(v *context) {
				v.TrustedCa, v.VerifyCertificateHash = nil, []string{hash}
			}, "cert hash and spki",
		},

		{"CRL", leaf, crl(clean), ""},
		{"revoked", leaf, crl(p.ca.revoke(t, time.Hour, p.leaf.SerialNumber)), chainFailed + "0: " + revoked},
		{"stale CRL", leaf, crl(stale), chainFailed + "0: " + crlFailed + "CRL has expired"},
		{"no CRL of the other", below, crl(clean), chainFailed + "0: " + crlFailed + "unable to get certificate CRL"},
		{"both CRLs", below, crl(clean, p.inter.revoke(t, time.Hour)), ""},
		{
			"the other is revoked", below, crl(p.ca.revoke(t, time.Hour, p.inter.cert.SerialNumber), p.inter.revoke(t, time.Hour)),
			chainFailed + "1: " + revoked,
		},
		{
			"the other is revoked, leaf only", below,
			leafOnly(crl(p.ca.revoke(t, time.Hour, p.inter.cert.SerialNumber), p.inter.revoke(t, time.Hour))), "",
		},
		{
			"revoked below", below, crl(clean, p.inter.revoke(t, time.Hour, p.below.SerialNumber)),
			chainFailed + "0: " + revoked,
		},

		{"depth 0", leaf, depth(0), ""},
		{"depth 0 through another", below, depth(0), chainFailed + "1: unable to get local issuer certificate"},
		{"depth 1 through another", below, depth(1), chainFailed + "1: unable to get local issuer certificate"},
		{"depth 2 through another", below, depth(2), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := &context{TrustedCa: text(p.ca.pem)}
			if c.set != nil {
				c.set(m)
			}
			var errs config.Errors
			v := compileValidation(nil, m, &Material{}, &errs)
			if err := errs.Err(); err != nil {
				t.Fatal(err)
			}
			if err := v.whole(); err != nil {
				t.Fatal(err)
			}
			_, err := v.verify(c.chain, x509.ExtKeyUsageClientAuth, nil, time.Now())
			got := ""
			if err != nil {
				got = strings.TrimPrefix(err.Error(), "verify cert failed: ")
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestVerify_Kept holds that what was found good is not taken for good longer than it is.
func TestVerify_Kept(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	soon := time.Now().Add(time.Minute).Truncate(time.Second)
	c := ca.sign(t, &x509.Certificate{NotBefore: time.Now().Add(-time.Hour), NotAfter: soon}, newKey(t).Public())
	v := &Validation{roots: x509.NewCertPool(), maxDepth: -1}
	v.roots.AddCert(ca.cert)
	good, err := v.verify([]*x509.Certificate{c}, x509.ExtKeyUsageClientAuth, nil, time.Now())
	if err != nil || !good.until.Equal(soon) || good.issuer == nil || !good.issuer.Equal(ca.cert) {
		t.Errorf("good until %v by %v, %v; want %v", good.until, good.issuer, err, soon)
	}
}

// TestWhole holds what Envoy says of contexts that mean nothing without a CA.
func TestWhole(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert := ca.issue(t, "a.test", time.Hour)
	for _, c := range []struct {
		name string
		v    *tlsv3.CertificateValidationContext
		want string
	}{
		{"CRL", &tlsv3.CertificateValidationContext{Crl: text(ca.revoke(t, time.Hour))}, "Failed to load CRL from <inline> without trusted CA"},
		{
			"SAN matchers", &tlsv3.CertificateValidationContext{
				MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{matcher(tlsv3.SubjectAltNameMatcher_DNS, "a")},
				TrustChainVerification:    tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED,
			}, "SAN-based verification of peer certificates without trusted CA is insecure and not allowed",
		},
		{
			"expired", &tlsv3.CertificateValidationContext{AllowExpiredCertificate: true},
			"Certificate validity period is always ignored without trusted CA",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			secrets := slots{"v": {}}
			direct := &tlsv3.CommonTlsContext{
				TlsCertificates:       []*tlsv3.TlsCertificate{cert},
				ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: c.v},
			}
			_, err := CompileDownstream(&tlsv3.DownstreamTlsContext{CommonTlsContext: direct}, scoped(), &Env{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("direct: %v", err)
			}
			combined := &tlsv3.CommonTlsContext{
				TlsCertificates: []*tlsv3.TlsCertificate{cert},
				ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{
					CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
						DefaultValidationContext:         c.v,
						ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: "v"},
					},
				},
			}
			d, err := CompileDownstream(&tlsv3.DownstreamTlsContext{CommonTlsContext: combined}, scoped(), &Env{Secrets: secrets})
			if err != nil {
				t.Fatal(err)
			}
			set := func(v *tlsv3.CertificateValidationContext) {
				secrets["v"].set(t, &tlsv3.Secret{Type: &tlsv3.Secret_ValidationContext{ValidationContext: v}})
			}
			set(&tlsv3.CertificateValidationContext{})
			if d.Ready() {
				t.Error("a secret without a CA is taken")
			}
			set(&tlsv3.CertificateValidationContext{TrustedCa: text(ca.pem)})
			good := d.current()
			set(&tlsv3.CertificateValidationContext{})
			if good == nil || d.current() != good {
				t.Error("a secret without a CA takes the place of one with it")
			}
		})
	}
}

// TestKeyUsage holds that a key is only used for what its certificate says.
func TestKeyUsage(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	key, err := rsa.GenerateKey(rand.Reader, minRSABits)
	if err != nil {
		t.Fatal(err)
	}
	ec := newKey(t)
	pair := func(usage x509.KeyUsage, k crypto.Signer) *tlsv3.TlsCertificate {
		c := ca.sign(t, &x509.Certificate{DNSNames: []string{"a.test"}, KeyUsage: usage}, k.Public())
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return &tlsv3.TlsCertificate{
			CertificateChain: text(encode("CERTIFICATE", c.Raw)), PrivateKey: text(encode("PRIVATE KEY", der)),
		}
	}
	const incorrect = "TLS_error:|268435758:SSL routines:OPENSSL_internal:KEY_USAGE_BIT_INCORRECT:TLS_error_end"
	for _, c := range []struct {
		name    string
		key     crypto.Signer
		usage   x509.KeyUsage
		version tlsv3.TlsParameters_TlsProtocol
		suite   string
		server  string // what the client says of the server
		client  string // what the server says of the client
	}{
		{"RSA to sign, 1.3", key, x509.KeyUsageDigitalSignature, tlsv3.TlsParameters_TLSv1_3, "", "", ""},
		{"RSA to decrypt, 1.3", key, x509.KeyUsageKeyEncipherment, tlsv3.TlsParameters_TLSv1_3, "", incorrect, incorrect},
		{"RSA to decrypt, 1.2 with signatures", key, x509.KeyUsageKeyEncipherment, tlsv3.TlsParameters_TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256", incorrect, ""},
		{"RSA to decrypt, 1.2 without", key, x509.KeyUsageKeyEncipherment, tlsv3.TlsParameters_TLSv1_2, "AES128-GCM-SHA256", "", ""},
		{"RSA to sign, 1.2 without", key, x509.KeyUsageDigitalSignature, tlsv3.TlsParameters_TLSv1_2, "AES128-GCM-SHA256", incorrect, ""},
		{"ECDSA to agree, 1.2", ec, x509.KeyUsageKeyAgreement, tlsv3.TlsParameters_TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256", incorrect, incorrect},
		{"ECDSA to agree, 1.3", ec, x509.KeyUsageKeyAgreement, tlsv3.TlsParameters_TLSv1_3, "", incorrect, incorrect},
	} {
		params := &tlsv3.TlsParameters{TlsMinimumProtocolVersion: c.version, TlsMaximumProtocolVersion: c.version}
		if c.suite != "" {
			params.CipherSuites = []string{c.suite}
		}
		plain := func() *tlsv3.TlsCertificate {
			if _, is := c.key.(*ecdsa.PrivateKey); is {
				return pair(0, ec)
			}
			return pair(0, key)
		}
		t.Run(c.name+", of a server", func(t *testing.T) {
			t.Parallel()
			r := newRig(t, &tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
				TlsParams: params, TlsCertificates: []*tlsv3.TlsCertificate{pair(c.usage, c.key)},
			}}, &tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{TlsParams: params}})
			_, _, fault, _ := r.shake(t, nil)
			got := ""
			if fault != nil {
				got = fault.Transport
			}
			if got != c.server {
				t.Errorf("got %q, want %q", got, c.server)
			}
		})
		t.Run(c.name+", of a client", func(t *testing.T) {
			t.Parallel()
			r := newRig(t, &tlsv3.DownstreamTlsContext{
				RequireClientCertificate: wrapperspb.Bool(true),
				CommonTlsContext: &tlsv3.CommonTlsContext{
					TlsParams: params, TlsCertificates: []*tlsv3.TlsCertificate{plain()},
				},
			}, &tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
				TlsParams: params, TlsCertificates: []*tlsv3.TlsCertificate{pair(c.usage, c.key)},
			}})
			info, _, _, err := r.shake(t, nil)
			if info.TransportFailure != c.client || (err != nil) != (c.client != "") {
				t.Errorf("got %v, %q, want %q", err, info.TransportFailure, c.client)
			}
		})
	}
}
