package tlsctx

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"sidecar/api/stats"
)

func der(t testing.TB, v any) []byte {
	t.Helper()
	b, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ocspAnswer makes a response for the given serial numbers.
func ocspAnswer(t testing.TB, next time.Time, serials ...int64) []byte {
	t.Helper()
	b := ocspBasic{Data: ocspData{
		Responder:  asn1.RawValue{FullBytes: []byte{0xa2, 3, 4, 1, 0}},
		ProducedAt: time.Now().UTC(),
	}, Algorithm: asn1.RawValue{FullBytes: der(t, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840}})}, Signature: asn1.BitString{Bytes: []byte{0}, BitLength: 8}}
	for _, n := range serials {
		one := ocspSingle{ID: ocspID{
			Algorithm: pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}},
			Name:      []byte{1}, Key: []byte{2}, Serial: big.NewInt(n),
		}, Status: asn1.RawValue{FullBytes: []byte{0x80, 0}}, ThisUpdate: time.Now().Add(-time.Hour).UTC()}
		if !next.IsZero() {
			one.NextUpdate = next.UTC()
		}
		b.Data.Responses = append(b.Data.Responses, one)
	}
	return der(t, ocspResponse{Body: ocspBody{Type: oidBasicOCSP(), Response: der(t, b)}})
}

func TestParseStaple(t *testing.T) {
	t.Parallel()
	good := ocspAnswer(t, time.Now().Add(time.Hour), 42)
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"good", good, nil},
		{"no next update", ocspAnswer(t, time.Time{}, 42), nil},
		{"nothing", nil, errOCSPSequence},
		{"text", []byte("hello"), errOCSPSequence},
		{"cut short", good[:len(good)-1], errOCSPSequence},
		{"more", append(append([]byte(nil), good...), 0), errOCSPMore},
		{"unsuccessful", []byte{0x30, 3, 0x0a, 1, 2}, errOCSPStatus},
		{"no body", []byte{0x30, 3, 0x0a, 1, 0}, errOCSPBody},
		{"for two", ocspAnswer(t, time.Now(), 1, 2), errOCSPOne},
		{"for none", ocspAnswer(t, time.Now()), errOCSPOne},
		{"bad basic response", der(t, ocspResponse{Body: ocspBody{Type: oidBasicOCSP(), Response: []byte{1}}}), errOCSPBasic},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, err := parseStaple(c.in)
			if !errors.Is(err, c.want) || (s == nil) != (c.want != nil) {
				t.Fatalf("got %v, %v; want %v", s, err, c.want)
			}
			if s != nil && s.serial.Int64() != 42 {
				t.Errorf("for %v", s.serial)
			}
		})
	}
}

func FuzzParseStaple(f *testing.F) {
	f.Add(ocspAnswer(f, time.Now().Add(time.Hour), 42))
	f.Add(ocspAnswer(f, time.Time{}, 1, 2))
	f.Add([]byte{0x30, 3, 0x0a, 1, 0})
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		if s, err := parseStaple(p); (s == nil) == (err == nil) {
			t.Fatal("neither a response nor an error")
		}
	})
}

// TestStaple holds what the three policies do; the answers are those of Envoy 1.40.
func TestStaple(t *testing.T) {
	t.Parallel()
	const (
		lenient = tlsv3.DownstreamTlsContext_LENIENT_STAPLING
		strict  = tlsv3.DownstreamTlsContext_STRICT_STAPLING
		must    = tlsv3.DownstreamTlsContext_MUST_STAPLE
	)
	ca := newAuthority(t)
	feature := pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: der(t, []int{5})}
	k := newKey(t)
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	make1 := func(staple []byte, marked bool) *tlsv3.TlsCertificate {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(42), DNSNames: []string{"a.test"}}
		if marked {
			tmpl.ExtraExtensions = []pkix.Extension{feature}
		}
		c := &tlsv3.TlsCertificate{
			CertificateChain: text(encode("CERTIFICATE", ca.sign(t, tmpl, k.Public()).Raw)),
			PrivateKey:       text(encode("PRIVATE KEY", keyDER)),
		}
		if staple != nil {
			c.OcspStaple = &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: staple}}
		}
		return c
	}
	fresh, passed := ocspAnswer(t, time.Now().Add(time.Hour), 42), ocspAnswer(t, time.Now().Add(-time.Minute), 42)
	endless := ocspAnswer(t, time.Time{}, 42)
	type counts struct{ responses, omitted, failed uint64 }
	for _, c := range []struct {
		name   string
		policy tlsv3.DownstreamTlsContext_OcspStaplePolicy
		cert   *tlsv3.TlsCertificate
		err    error
		want   counts
	}{
		{"lenient, fresh", lenient, make1(fresh, false), nil, counts{1, 0, 0}},
		{"lenient, passed", lenient, make1(passed, false), nil, counts{0, 1, 0}},
		{"lenient, no next update", lenient, make1(endless, false), nil, counts{0, 1, 0}},
		{"lenient, none", lenient, make1(nil, false), nil, counts{0, 1, 0}},
		{"lenient, passed of a must-staple certificate", lenient, make1(passed, true), nil, counts{0, 0, 1}},
		{"lenient, fresh of a must-staple certificate", lenient, make1(fresh, true), nil, counts{1, 0, 0}},
		{"strict, fresh", strict, make1(fresh, false), nil, counts{1, 0, 0}},
		{"strict, passed", strict, make1(passed, false), nil, counts{0, 0, 1}},
		{"strict, no next update", strict, make1(endless, false), nil, counts{0, 0, 1}},
		{"strict, none", strict, make1(nil, false), nil, counts{0, 1, 0}},
		{"must, fresh", must, make1(fresh, false), nil, counts{1, 0, 0}},
		{"must, passed", must, make1(passed, false), nil, counts{0, 0, 1}},
		{"must, none", must, make1(nil, false), errOCSPRequired, counts{}},
		{"none of a must-staple certificate", lenient, make1(nil, true), errOCSPMust, counts{}},
		{"of another", lenient, make1(ocspAnswer(t, time.Now().Add(time.Hour), 7), false), errOCSPMatch, counts{}},
		{"malformed", strict, make1([]byte{0x30, 3, 0x0a, 1, 0}, false), errOCSPBody, counts{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			scope := stats.New().Root().Sub("l")
			tc := scoped()
			tc.Scope = func() *stats.Scope { return scope }
			d, err := CompileDownstream(&tlsv3.DownstreamTlsContext{
				OcspStaplePolicy: c.policy,
				CommonTlsContext: &tlsv3.CommonTlsContext{TlsCertificates: []*tlsv3.TlsCertificate{c.cert}},
			}, tc, &Env{})
			if !errors.Is(err, c.err) {
				t.Fatalf("got %v, want %v", err, c.err)
			}
			if err != nil {
				return
			}
			u, err := CompileUpstream(&tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{}}, scoped(), &Env{})
			if err != nil {
				t.Fatal(err)
			}
			r := &rig{down: d, up: u} // crypto/tls asks for a response
			info, _, _, err := r.shake(t, nil)
			s := d.stats.ssl
			got := counts{s.OCSPStapleResponses.Value(), s.OCSPStapleOmitted.Value(), s.OCSPStapleFailed.Value()}
			if got != c.want || s.OCSPStapleRequests.Value() != 1 {
				t.Errorf("counted %+v of %d requests, want %+v of one", got, s.OCSPStapleRequests.Value(), c.want)
			}
			const rejected = "TLS_error:|268435589:SSL routines:OPENSSL_internal:CONNECTION_REJECTED:TLS_error_end"
			if failed := c.want.failed > 0; failed != (err != nil) || failed != (info.TransportFailure == rejected) ||
				failed != (s.ConnectionError.Value() == 1) {
				t.Errorf("got %v, %q", err, info.TransportFailure)
			}
		})
	}
}
