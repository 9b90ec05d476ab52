package tlsctx

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"reflect"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"sidecar/api/stream"
	"sidecar/internal/config"
)

// Certificate is a compiled TlsCertificate. It never changes.
type Certificate struct {
	// Leaf and Chain are what is shown to peers; Chain begins with Leaf.
	Leaf  *x509.Certificate
	Chain []*x509.Certificate
	// Path is where the chain was read from, "<inline>" if from the configuration.
	Path string

	// Staple is the OCSP response that is sent with it, nil if there is none.
	Staple *Staple

	name       string // that stats have
	tls        tls.Certificate
	bare       tls.Certificate // tls without its OCSP response
	stapleErr  error           // what is wrong with the response, for those who would send it
	mustStaple bool
	info       stream.CertInfo
}

// compileCertificate reads a certificate chain and its key.
func compileCertificate(p *config.Path, c *tlsv3.TlsCertificate, env *SecretEnv, m *Material,
	errs *config.Errors,
) *Certificate {
	certificateFields.Check(p, c, errs)
	before := errs.Len()
	if c.GetCertificateChain() == nil {
		errs.Add(p, "Failed to load incomplete certificate from : certificate chain not set")
	}
	if c.GetPrivateKey() == nil {
		errs.Addf(p, "Failed to load incomplete private key from path: %s", "")
	}
	if errs.Len() != before {
		return nil
	}
	chainPath, keyPath := p.Field("certificate_chain"), p.Field("private_key")
	chainPEM, ok1 := m.read(chainPath, c.GetCertificateChain(), errs)
	keyPEM, ok2 := m.read(keyPath, c.GetPrivateKey(), errs)
	out := &Certificate{Path: sourceName(c.GetCertificateChain())}
	out.name = m.nameOr("unnamed_cert_")
	if o := c.GetOcspStaple(); o != nil {
		if _, text := o.GetSpecifier().(*corev3.DataSource_InlineString); text {
			errs.Add(p.Field("ocsp_staple"), "OCSP staple cannot be provided via inline_string")
		}
		out.tls.OCSPStaple, _ = m.read(p.Field("ocsp_staple"), o, errs)
	}
	m.watchOnly(p.Field("watched_directory"), c.GetWatchedDirectory(), errs)
	if !ok1 || !ok2 {
		return nil
	}
	var err error
	if out.Chain, err = parseCertificates(chainPEM); err != nil {
		errs.Addf(chainPath, "Failed to load certificate chain from %s", out.Path)
		return nil
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		errs.Addf(keyPath, "Failed to load private key from %s, Cause: %w", sourceName(c.GetPrivateKey()), err)
		return nil
	}
	out.Leaf = out.Chain[0]
	if err := checkPublic(out.Leaf); err != nil {
		errs.Addf(chainPath, "Failed to load certificate chain from %s, %w", out.Path, err)
		return nil
	}
	if err := checkKey(out.Leaf, key); err != nil {
		errs.Addf(keyPath, "Failed to load private key from %s, Cause: %w", sourceName(c.GetPrivateKey()), err)
		return nil
	}
	for _, one := range out.Chain {
		out.tls.Certificate = append(out.tls.Certificate, one.Raw)
	}
	out.tls.PrivateKey, out.tls.Leaf = key, out.Leaf
	out.info = certInfo(out.Leaf)
	out.bare = out.tls
	out.bare.OCSPStaple = nil
	out.mustStaple = mustStaple(out.Leaf)
	if len(out.tls.OCSPStaple) > 0 {
		out.Staple, out.stapleErr = parseStaple(out.tls.OCSPStaple)
	}
	if env != nil && env.Log != nil && env.now().After(out.Leaf.NotAfter) {
		env.Log.Warn("tls: certificate has expired", "path", p.String(), "not_after", out.Leaf.NotAfter)
	}
	return out
}

var errNoCertificate = errors.New("no certificate")

// parseCertificates reads all certificates of a PEM text; what else is in it is passed over, as by
// Envoy.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for len(text) > 0 {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" && block.Type != "X509 CERTIFICATE" && block.Type != "TRUSTED CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errNoCertificate
	}
	return out, nil
}

// parseKey reads the first private key of a PEM text. Its errors have nothing of the text in them.
func parseKey(text []byte) (crypto.Signer, error) {
	for len(text) > 0 {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, errors.New("encrypted private keys are not supported")
		}
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			continue
		}
		if err != nil {
			return nil, errors.New("malformed private key")
		}
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
		return nil, errors.New("unsupported kind of private key")
	}
	return nil, errors.New("error:0900006e:PEM routines:OPENSSL_internal:NO_START_LINE")
}

// minRSABits is what Envoy asks of an RSA key.
const minRSABits = 2048

// checkKey tells whether key is that of leaf, in BoringSSL's words.
func checkKey(leaf *x509.Certificate, key crypto.Signer) error {
	type equaler interface{ Equal(crypto.PublicKey) bool }
	pub, ok := leaf.PublicKey.(equaler)
	switch {
	case !ok || reflect.TypeOf(leaf.PublicKey) != reflect.TypeOf(key.Public()):
		return errors.New("error:0b000073:X.509 certificate routines:OPENSSL_internal:KEY_TYPE_MISMATCH")
	case !pub.Equal(key.Public()):
		return errors.New("error:0b000074:X.509 certificate routines:OPENSSL_internal:KEY_VALUES_MISMATCH")
	}
	return nil
}

// checkPublic tells whether a certificate's key is one that Envoy takes.
func checkPublic(leaf *x509.Certificate) error {
	switch k := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return fmt.Errorf("only RSA certificates with %d-bit or larger keys are supported", minRSABits)
		}
	case *ecdsa.PublicKey:
		if c := k.Curve; c != elliptic.P256() && c != elliptic.P384() && c != elliptic.P521() {
			return errors.New("only P-256, P-384 or P-521 ECDSA certificates are supported")
		}
	}
	return nil
}

// ticketKey derives a key of crypto/tls from one of Envoy's.
func ticketKey(data []byte) [32]byte { return sha256.Sum256(data) }
