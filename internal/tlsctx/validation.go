package tlsctx

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"sidecar/internal/config"
	"sidecar/internal/match"
)

// Validation is a compiled CertificateValidationContext. It never changes.
type Validation struct {
	// CAs are the trusted ones, empty if none are given or the system's are used.
	CAs []*x509.Certificate
	// Path is where they were read from, "<inline>" if from the configuration.
	Path string

	name            string // that stats have
	crlPath         string
	roots           *x509.CertPool
	spki, hash      map[[sha256.Size]byte]struct{}
	sans            []sanMatcher
	crls            []*x509.RevocationList
	leafCRLOnly     bool
	allowExpired    bool
	acceptUntrusted bool
	suppressCAList  bool
	maxDepth        int // -1 if there is no limit
}

// sanMatcher is one of match_typed_subject_alt_names.
type sanMatcher struct {
	kind tlsv3.SubjectAltNameMatcher_SanType
	m    match.String
	dns  string // an exact DNS name, which a wildcard of the certificate may stand for
	oid  asn1.ObjectIdentifier
}

// compileValidation reads how peers are checked.
func compileValidation(p *config.Path, v *tlsv3.CertificateValidationContext, m *Material, errs *config.Errors) *Validation {
	validationFields.Check(p, v, errs)
	out := &Validation{
		leafCRLOnly: v.GetOnlyVerifyLeafCertCrl(), allowExpired: v.GetAllowExpiredCertificate(),
		acceptUntrusted: v.GetTrustChainVerification() == tlsv3.CertificateValidationContext_ACCEPT_UNTRUSTED,
		suppressCAList:  v.GetSuppressClientCaList(), maxDepth: -1, name: m.nameOr("unnamed_ca_cert_"),
	}
	if d := v.GetMaxVerifyDepth(); d != nil {
		out.maxDepth = int(min(d.GetValue(), 100))
	}
	out.compileRoots(p, v, m, errs)
	out.compilePins(p, v, errs)
	for i, s := range v.GetMatchTypedSubjectAltNames() {
		out.compileSAN(p.Field("match_typed_subject_alt_names").Index(i), s, errs)
	}
	for i, s := range v.GetMatchSubjectAltNames() { //nolint:staticcheck // deprecated, still in use
		// Envoy: a matcher of the old field is for every kind of name.
		at := p.Field("match_subject_alt_names").Index(i)
		out.sans = append(out.sans, sanMatcher{m: match.CompileString(at, s, errs)})
	}
	m.watchOnly(p.Field("watched_directory"), v.GetWatchedDirectory(), errs)
	return out
}

func (v *Validation) compileRoots(p *config.Path, c *tlsv3.CertificateValidationContext, m *Material, errs *config.Errors) {
	if ca := c.GetTrustedCa(); ca != nil {
		at := p.Field("trusted_ca")
		if data, ok := m.read(at, ca, errs); ok {
			v.Path = sourceName(ca)
			var err error
			if v.CAs, err = parseCertificates(data); err != nil {
				errs.Addf(at, "Failed to load trusted CA certificates from %s", v.Path)
			}
			v.roots = x509.NewCertPool()
			for _, c := range v.CAs {
				v.roots.AddCert(c)
			}
		}
	} else if c.GetSystemRootCerts() != nil {
		pool, err := x509.SystemCertPool()
		if err != nil {
			errs.Addf(p.Field("system_root_certs"), "%w", err)
		}
		v.roots = pool
	}
	if c.GetCrl() == nil {
		return
	}
	at := p.Field("crl")
	v.crlPath = sourceName(c.GetCrl())
	data, ok := m.read(at, c.GetCrl(), errs)
	for ok && len(data) > 0 {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "X509 CRL" {
			continue
		}
		l, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			v.crls = nil
			break
		}
		v.crls = append(v.crls, l)
	}
	// DIVERGES(tls-crl): Envoy takes a text without a CRL, and trusts all then.
	if ok && len(v.crls) == 0 {
		errs.Addf(at, "Failed to load CRL from %s", sourceName(c.GetCrl()))
	}
}

func (v *Validation) compilePins(p *config.Path, c *tlsv3.CertificateValidationContext, errs *config.Errors) {
	pin := func(set *map[[sha256.Size]byte]struct{}, at *config.Path, raw []byte, err error, text, kind string) {
		if err != nil || len(raw) != sha256.Size {
			errs.Addf(at, "Invalid %s SHA-256 %s", kind, text)
			return
		}
		if *set == nil {
			*set = map[[sha256.Size]byte]struct{}{}
		}
		(*set)[[sha256.Size]byte(raw)] = struct{}{}
	}
	for i, s := range c.GetVerifyCertificateSpki() {
		raw, err := base64.StdEncoding.DecodeString(s)
		pin(&v.spki, p.Field("verify_certificate_spki").Index(i), raw, err, s, "base64-encoded")
	}
	for i, s := range c.GetVerifyCertificateHash() {
		raw, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
		pin(&v.hash, p.Field("verify_certificate_hash").Index(i), raw, err, s, "hex-encoded")
	}
}

func (v *Validation) compileSAN(p *config.Path, s *tlsv3.SubjectAltNameMatcher, errs *config.Errors) {
	sanFields.Check(p, s, errs)
	x := sanMatcher{kind: s.GetSanType(), m: match.CompileString(p.Field("matcher"), s.GetMatcher(), errs)}
	switch x.kind {
	case tlsv3.SubjectAltNameMatcher_DNS:
		x.dns = s.GetMatcher().GetExact()
	case tlsv3.SubjectAltNameMatcher_OTHER_NAME:
		for part := range strings.SplitSeq(s.GetOid(), ".") {
			n, err := strconv.Atoi(part)
			if err != nil || n < 0 {
				x.oid = nil
				break
			}
			x.oid = append(x.oid, n)
		}
		// What can't be encoded is no identifier (X.660: at least two arcs, the first at most 2).
		if _, err := asn1.Marshal(x.oid); err != nil {
			errs.Addf(p.Field("oid"), "Failed to create SAN matcher for OTHER_NAME with OID: %s", s.GetOid())
		}
	case tlsv3.SubjectAltNameMatcher_EMAIL, tlsv3.SubjectAltNameMatcher_URI, tlsv3.SubjectAltNameMatcher_IP_ADDRESS:
	case tlsv3.SubjectAltNameMatcher_SAN_TYPE_UNSPECIFIED:
		errs.Add(p.Field("san_type"), "is required")
	}
	v.sans = append(v.sans, x)
}

// whole tells what is wrong with a validation context once nothing is to be added to it, in Envoy's
// words.
func (v *Validation) whole() error {
	switch {
	case v == nil || v.roots != nil:
		return nil
	case v.crls != nil:
		return fmt.Errorf("Failed to load CRL from %s without trusted CA", v.crlPath) //nolint:staticcheck // Envoy's words
	case len(v.sans) > 0:
		return errSANAlone
	case v.allowExpired:
		return errExpiredAlone
	}
	return nil
}

// What only means something with a trusted CA.
var (
	errSANAlone     = errors.New("SAN-based verification of peer certificates without trusted CA is insecure and not allowed")
	errExpiredAlone = errors.New("Certificate validity period is always ignored without trusted CA") //nolint:staticcheck // Envoy's words
)

// merge puts what SDS brought over the defaults, as protobuf merges messages (Envoy:
// combined_validation_context): what is set there counts, and lists are joined.
func merge(def, got *Validation) *Validation {
	out := *def
	if got.roots != nil {
		out.CAs, out.Path, out.roots, out.name = got.CAs, got.Path, got.roots, got.name
	}
	if got.crls != nil {
		out.crls, out.crlPath = got.crls, got.crlPath
	}
	if got.maxDepth >= 0 {
		out.maxDepth = got.maxDepth
	}
	out.spki, out.hash = union(def.spki, got.spki), union(def.hash, got.hash)
	out.sans = slices.Concat(def.sans, got.sans)
	out.leafCRLOnly = def.leafCRLOnly || got.leafCRLOnly
	out.allowExpired = def.allowExpired || got.allowExpired
	out.acceptUntrusted = def.acceptUntrusted || got.acceptUntrusted
	out.suppressCAList = def.suppressCAList || got.suppressCAList
	return &out
}

func union(a, b map[[sha256.Size]byte]struct{}) map[[sha256.Size]byte]struct{} {
	if len(a) == 0 {
		return b
	}
	out := make(map[[sha256.Size]byte]struct{}, len(a)+len(b))
	for _, m := range []map[[sha256.Size]byte]struct{}{a, b} {
		for k := range m {
			out[k] = struct{}{}
		}
	}
	return out
}
