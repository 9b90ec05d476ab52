package tlsctx

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"sidecar/internal/match"
)

// failure is which stat counts a certificate that is refused.
type failure uint8

const (
	failChain failure = iota
	failSAN
	failHash
)

// verifyError is why a peer's certificate is refused, in Envoy's words.
type verifyError struct {
	text string
	kind failure
}

func (e *verifyError) Error() string { return "verify cert failed: " + e.text }

// wants tells whether a peer's certificate is asked for at all.
func (v *Validation) wants() bool {
	return v != nil && (v.roots != nil || len(v.sans) > 0 || len(v.spki) > 0 || len(v.hash) > 0)
}

// demands tells whether a client must have a certificate because something is asked of it: Envoy
// requires one for matchers and pins, whatever require_client_certificate says.
func (v *Validation) demands() bool {
	return v != nil && !v.acceptUntrusted && len(v.sans)+len(v.spki)+len(v.hash) > 0
}

// verify checks a peer's chain, and that it has one of the names if any are given. The result holds
// until the given time.
func (v *Validation) verify(chain []*x509.Certificate, use x509.ExtKeyUsage, names []string, now time.Time,
) (good verified, err error) {
	good.until = now.Add(keepVerified)
	if v.roots == nil && (len(names) > 0 || len(v.sans) > 0) {
		// A name that nobody vouches for says nothing. Envoy refuses such a context; here the CA may have
		// been expected from a secret.
		return good, &verifyError{"no trusted CA, and SAN matchers", failChain}
	}
	if v.roots != nil {
		path, err := v.verifyChain(chain, use, now)
		if err != nil {
			return good, err
		}
		for _, c := range path {
			if c.NotAfter.Before(good.until) {
				good.until = c.NotAfter
			}
		}
		for _, l := range v.crls {
			if !l.NextUpdate.IsZero() && l.NextUpdate.Before(good.until) {
				good.until = l.NextUpdate
			}
		}
		if len(path) > 1 {
			good.issuer = path[1]
		}
	}
	return good, v.verifyLeaf(chain[0], names)
}

// keepVerified bounds how long a certificate that was found good is taken for good.
const keepVerified = 5 * time.Minute

var errKeyUsage = errors.New("tls: key usage of the peer's certificate is not for this handshake")

// usable tells whether the key usage of a peer's certificate, if it has one, is for what the key was
// used for: to sign, or with TLS 1.2's plain RSA key exchange to decrypt. BoringSSL doesn't ask that of
// clients with an RSA key and TLS 1.2.
func usable(cs *tls.ConnectionState, use x509.ExtKeyUsage) bool {
	leaf := cs.PeerCertificates[0]
	client := use == x509.ExtKeyUsageClientAuth
	if leaf.KeyUsage == 0 || cs.Version < tls.VersionTLS13 && client && leaf.PublicKeyAlgorithm == x509.RSA {
		return true
	}
	want := x509.KeyUsageDigitalSignature
	switch {
	case client:
	case slices.Contains([]uint16{
		tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA,
		tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
	}, cs.CipherSuite):
		want = x509.KeyUsageKeyEncipherment
	}
	return leaf.KeyUsage&want != 0
}

// verifyLeaf checks a certificate's names and pins.
func (v *Validation) verifyLeaf(leaf *x509.Certificate, names []string) error {
	if len(names) > 0 && !hasName(leaf, names) {
		return &verifyError{"verify SAN list", failSAN}
	}
	if len(v.sans) > 0 && !v.matchSAN(leaf) {
		return &verifyError{"SAN matcher, certificate SANs are [" + strings.Join(allNames(leaf), ", ") + "]", failSAN}
	}
	if len(v.spki) == 0 && len(v.hash) == 0 {
		return nil
	}
	if _, ok := v.hash[sha256.Sum256(leaf.Raw)]; ok {
		return nil
	}
	if _, ok := v.spki[sha256.Sum256(leaf.RawSubjectPublicKeyInfo)]; ok {
		return nil
	}
	return &verifyError{"cert hash and spki", failHash}
}

func (v *Validation) verifyChain(chain []*x509.Certificate, use x509.ExtKeyUsage, now time.Time,
) ([]*x509.Certificate, error) {
	opts := x509.VerifyOptions{
		Roots: v.roots, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use},
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	verified, err := chain[0].Verify(opts)
	var invalid x509.CertificateInvalidError
	for i := 0; i < len(chain) && v.allowExpired && errors.As(err, &invalid) && invalid.Reason == x509.Expired; i++ {
		// A time when the certificates were valid: Envoy doesn't look at times at all then.
		opts.CurrentTime = within(chain[i], now)
		verified, err = chain[0].Verify(opts)
	}
	if err != nil {
		return nil, chainError(chain, err, now)
	}
	if !purposeful(chain[0], use) {
		return nil, atDepth(0, "unsupported certificate purpose")
	}
	if v.maxDepth >= 0 {
		verified = shorter(verified, v.maxDepth)
		if len(verified) == 0 {
			return nil, atDepth(max(1, v.maxDepth), "unable to get local issuer certificate")
		}
	}
	if len(v.crls) > 0 {
		return verified[0], v.checkRevoked(verified[0], now)
	}
	return verified[0], nil
}

// within is the time closest to now at which c is valid.
func within(c *x509.Certificate, now time.Time) time.Time {
	switch {
	case now.Before(c.NotBefore):
		return c.NotBefore
	case now.After(c.NotAfter):
		return c.NotAfter
	}
	return now
}

// purposeful tells whether the key usage of a certificate, if it has one, is for one side of TLS
// (BoringSSL: check_purpose_ssl_client and _server).
func purposeful(c *x509.Certificate, use x509.ExtKeyUsage) bool {
	want := x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement
	if use == x509.ExtKeyUsageServerAuth {
		want |= x509.KeyUsageKeyEncipherment
	}
	return c.KeyUsage == 0 || c.KeyUsage&want != 0
}

// shorter keeps chains with at most depth certificates behind the peer's, the trusted one included; that
// alone is never too many (max_verify_depth, as Envoy heeds it).
func shorter(chains [][]*x509.Certificate, depth int) [][]*x509.Certificate {
	var out [][]*x509.Certificate
	for _, c := range chains {
		if len(c) <= max(2, depth+1) {
			out = append(out, c)
		}
	}
	return out
}

func atDepth(depth int, text string) error {
	return &verifyError{fmt.Sprintf("X509_verify_cert: certificate verification error at depth %d: %s", depth, text), failChain}
}

// chainError tells in OpenSSL's words why a chain isn't trusted.
func chainError(chain []*x509.Certificate, err error, now time.Time) error {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		depth := 0
		for i, c := range chain {
			if invalid.Cert != nil && c.Equal(invalid.Cert) {
				depth = i
			}
		}
		switch invalid.Reason {
		case x509.Expired:
			if invalid.Cert != nil && now.Before(invalid.Cert.NotBefore) {
				return atDepth(depth, "certificate is not yet valid")
			}
			return atDepth(depth, "certificate has expired")
		case x509.IncompatibleUsage:
			return atDepth(depth, "unsupported certificate purpose")
		case x509.TooManyIntermediates:
			return atDepth(depth, "path length constraint exceeded")
		case x509.NotAuthorizedToSign:
			return atDepth(depth, "invalid CA certificate")
		case x509.CANotAuthorizedForThisName:
			return atDepth(depth, "permitted subtree violation")
		default:
		}
		return atDepth(depth, "unspecified certificate verification error")
	}
	last := len(chain) - 1
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		switch selfSigned := bytes.Equal(chain[last].RawIssuer, chain[last].RawSubject); {
		case selfSigned && last == 0:
			return atDepth(0, "self signed certificate")
		case selfSigned:
			return atDepth(last, "self signed certificate in certificate chain")
		}
		return atDepth(last, "unable to get local issuer certificate")
	}
	if _, ok := errors.AsType[x509.UnhandledCriticalExtension](err); ok {
		return atDepth(0, "unhandled critical extension")
	}
	return atDepth(0, "unspecified certificate verification error")
}

const crlFailed = "certificate revocation check against provided CRLs failed: "

// checkRevoked looks a chain up in the CRLs. Each certificate's issuer must have one.
func (v *Validation) checkRevoked(chain []*x509.Certificate, now time.Time) error {
	for i, c := range chain {
		issuer := chain[min(i+1, len(chain)-1)]
		if i == len(chain)-1 && i > 0 && !bytes.Equal(c.RawIssuer, c.RawSubject) {
			return nil // a trusted intermediate: who issued it is no matter
		}
		found := false
		for _, l := range v.crls {
			if !bytes.Equal(l.RawIssuer, c.RawIssuer) || l.CheckSignatureFrom(issuer) != nil {
				continue
			}
			found = true
			if !l.NextUpdate.IsZero() && now.After(l.NextUpdate) {
				return atDepth(i, crlFailed+"CRL has expired")
			}
			for j := range l.RevokedCertificateEntries {
				if l.RevokedCertificateEntries[j].SerialNumber.Cmp(c.SerialNumber) == 0 {
					return atDepth(i, crlFailed+"certificate revoked")
				}
			}
		}
		if !found {
			return atDepth(i, crlFailed+"unable to get certificate CRL")
		}
		if v.leafCRLOnly {
			return nil
		}
	}
	return nil
}

// allNames lists a certificate's names in the order in which it has them, as Envoy prints them.
func allNames(c *x509.Certificate) []string {
	var out []string
	for _, n := range generalNames(c) {
		switch n.Tag {
		case nameEmail, nameDNS, nameURI:
			out = append(out, string(n.Bytes))
		case nameIP:
			if a, ok := netip.AddrFromSlice(n.Bytes); ok {
				out = append(out, a.String())
			}
		case nameOther:
			if _, text, ok := otherName(n.Bytes); ok {
				out = append(out, text)
			}
		}
	}
	return out
}

// hasName tells whether a certificate has one of the names, as DNS name (wildcards count), URI or IP
// address (Envoy: verifySubjectAltName).
func hasName(c *x509.Certificate, names []string) bool {
	for _, n := range names {
		for _, d := range c.DNSNames {
			if dnsMatch(n, d) {
				return true
			}
		}
		for _, u := range c.URIs {
			if u.String() == n {
				return true
			}
		}
		want, err := netip.ParseAddr(n)
		for _, ip := range c.IPAddresses {
			if have, ok := netip.AddrFromSlice(ip); err == nil && ok && have.Unmap() == want.Unmap() {
				return true
			}
		}
	}
	return false
}

// dnsMatch compares a name with one of a certificate, whose wildcard stands for one label, in Envoy
// also as a part of it ("w*.example.com").
func dnsMatch(n, pattern string) bool {
	if match.EqualFold(n, pattern) {
		return true
	}
	label, rest, ok := strings.Cut(pattern, ".")
	nLabel, nRest, nOK := strings.Cut(n, ".")
	front, back, wild := strings.Cut(label, "*")
	return ok && nOK && wild && !strings.Contains(back, "*") && match.EqualFold(rest, nRest) &&
		!strings.HasPrefix(match.ToLower(label), "xn--") && len(nLabel) >= len(front)+len(back) && nLabel != "" &&
		match.EqualFold(nLabel[:len(front)], front) && match.EqualFold(nLabel[len(nLabel)-len(back):], back)
}

func (v *Validation) matchSAN(c *x509.Certificate) bool {
	for i := range v.sans {
		if v.sans[i].match(c) {
			return true
		}
	}
	return false
}

func (s *sanMatcher) match(c *x509.Certificate) bool {
	is := func(k tlsv3.SubjectAltNameMatcher_SanType) bool {
		return s.kind == k || s.kind == tlsv3.SubjectAltNameMatcher_SAN_TYPE_UNSPECIFIED
	}
	if is(tlsv3.SubjectAltNameMatcher_DNS) {
		for _, d := range c.DNSNames {
			if s.dns != "" && dnsMatch(s.dns, d) || s.m.Match(d) {
				return true
			}
		}
	}
	if is(tlsv3.SubjectAltNameMatcher_URI) {
		for _, u := range c.URIs {
			if s.m.Match(u.String()) {
				return true
			}
		}
	}
	if is(tlsv3.SubjectAltNameMatcher_EMAIL) {
		if slices.ContainsFunc(c.EmailAddresses, s.m.Match) {
			return true
		}
	}
	if is(tlsv3.SubjectAltNameMatcher_IP_ADDRESS) {
		for _, ip := range c.IPAddresses {
			if s.m.Match(ip.String()) {
				return true
			}
		}
	}
	return s.kind == tlsv3.SubjectAltNameMatcher_OTHER_NAME && slices.ContainsFunc(otherNames(c, s.oid), s.m.Match)
}
