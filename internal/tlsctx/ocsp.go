package tlsctx

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// Staple is an OCSP response for a certificate (RFC 6960). Like Envoy it is not asked who signed it:
// that is for the client, whom it is for.
type Staple struct {
	ThisUpdate time.Time
	NextUpdate time.Time // zero if there is none, which counts as passed

	serial *big.Int
}

type ocspResponse struct {
	Status asn1.Enumerated
	Body   ocspBody `asn1:"explicit,tag:0,optional"`
}

type ocspBody struct {
	Type     asn1.ObjectIdentifier
	Response []byte
}

type ocspBasic struct {
	Data      ocspData
	Algorithm asn1.RawValue
	Signature asn1.BitString
	Certs     asn1.RawValue `asn1:"explicit,tag:0,optional"`
}

type ocspData struct {
	Version    int `asn1:"explicit,tag:0,optional,default:0"`
	Responder  asn1.RawValue
	ProducedAt time.Time `asn1:"generalized"`
	Responses  []ocspSingle
	Extensions asn1.RawValue `asn1:"explicit,tag:1,optional"`
}

type ocspSingle struct {
	ID         ocspID
	Status     asn1.RawValue
	ThisUpdate time.Time     `asn1:"generalized"`
	NextUpdate time.Time     `asn1:"generalized,explicit,tag:0,optional"`
	Extensions asn1.RawValue `asn1:"explicit,tag:1,optional"`
}

type ocspID struct {
	Algorithm pkix.AlgorithmIdentifier
	Name, Key []byte
	Serial    *big.Int
}

// What Envoy says of a response that it doesn't take.
var (
	errOCSPSequence = errors.New("OCSP Response is not a well-formed ASN.1 SEQUENCE")
	errOCSPMore     = errors.New("Data contained more than a single OCSP response")                       //nolint:staticcheck // Envoy's words
	errOCSPStatus   = errors.New("OCSP response was unsuccessful")                                        //nolint:staticcheck // Envoy's words
	errOCSPBody     = errors.New("OCSP response has no body")                                             //nolint:staticcheck // Envoy's words
	errOCSPOne      = errors.New("OCSP Response must be for one certificate only")                        //nolint:staticcheck // Envoy's words
	errOCSPMatch    = errors.New("OCSP response does not match its TLS certificate")                      //nolint:staticcheck // Envoy's words
	errOCSPMust     = errors.New("OCSP response is required for must-staple certificate")                 //nolint:staticcheck // Envoy's words
	errOCSPRequired = errors.New("Required OCSP response is missing from TLS context")                    //nolint:staticcheck // Envoy's words
	errOCSPBasic    = errors.New("OCSP BasicOCSPResponse is not a wellf-formed ASN.1 SEQUENCE")           //nolint:staticcheck,misspell // Envoy's words
	errStaple       = errors.New("no valid OCSP response for a client that asks for one, and one is due") // fails a handshake
)

func oidBasicOCSP() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}
}

// parseStaple reads a response in DER, which must be for one certificate.
func parseStaple(der []byte) (*Staple, error) {
	var r ocspResponse
	rest, err := asn1.Unmarshal(der, &r)
	switch {
	case err != nil:
		return nil, errOCSPSequence
	case len(rest) > 0:
		return nil, errOCSPMore
	case r.Status != 0:
		return nil, errOCSPStatus
	case len(r.Body.Response) == 0:
		return nil, errOCSPBody
	case !r.Body.Type.Equal(oidBasicOCSP()):
		return nil, errors.New("Unknown OCSP Response type with OID: " + r.Body.Type.String()) //nolint:staticcheck // Envoy's words
	}
	var b ocspBasic
	if rest, err = asn1.Unmarshal(r.Body.Response, &b); err != nil || len(rest) > 0 {
		return nil, errOCSPBasic
	}
	if len(b.Data.Responses) != 1 {
		return nil, errOCSPOne
	}
	one := &b.Data.Responses[0]
	return &Staple{ThisUpdate: one.ThisUpdate, NextUpdate: one.NextUpdate, serial: one.ID.Serial}, nil
}

// mustStaple tells whether a certificate asks for a response with each handshake (RFC 7633).
func mustStaple(c *x509.Certificate) bool {
	for i := range c.Extensions {
		if !c.Extensions[i].Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}) {
			continue
		}
		var features []int
		if _, err := asn1.Unmarshal(c.Extensions[i].Value, &features); err == nil {
			return slices.Contains(features, extensionStatusRequest)
		}
	}
	return false
}

// extensionStatusRequest is the extension by which a client asks for a response (RFC 6066, 8).
const extensionStatusRequest = 5

// checkStaple is what is asked of a server's certificate as the context is made.
func (c *Certificate) checkStaple(policy tlsv3.DownstreamTlsContext_OcspStaplePolicy) error {
	switch {
	case c.stapleErr != nil:
		return c.stapleErr
	case c.Staple == nil && c.mustStaple:
		return errOCSPMust
	case c.Staple == nil && policy == tlsv3.DownstreamTlsContext_MUST_STAPLE:
		return errOCSPRequired
	case c.Staple != nil && c.Staple.serial.Cmp(c.Leaf.SerialNumber) != 0:
		return errOCSPMatch
	}
	return nil
}

// stapled gives the certificate as it is shown to a client, with or without its response, or an error
// where the policy wants none to go without (Envoy: ServerContextImpl::ocspStapleAction).
func (d *Downstream) stapled(c *Certificate, h *tls.ClientHelloInfo, now time.Time) (*tls.Certificate, error) {
	if !slices.Contains(h.Extensions, extensionStatusRequest) {
		return &c.tls, nil
	}
	d.stats.ssl.OCSPStapleRequests.Inc()
	valid := c.Staple != nil && now.Before(c.Staple.NextUpdate)
	policy := d.staples
	if c.mustStaple {
		policy = tlsv3.DownstreamTlsContext_MUST_STAPLE
	}
	switch {
	case valid:
		d.stats.ssl.OCSPStapleResponses.Inc()
		return &c.tls, nil
	case policy == tlsv3.DownstreamTlsContext_MUST_STAPLE,
		policy == tlsv3.DownstreamTlsContext_STRICT_STAPLING && c.Staple != nil:
		d.stats.ssl.OCSPStapleFailed.Inc()
		return nil, errStaple
	}
	d.stats.ssl.OCSPStapleOmitted.Inc()
	return &c.bare, nil
}
