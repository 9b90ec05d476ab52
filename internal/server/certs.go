package server

import (
	"crypto/x509"
	"encoding/hex"
	"slices"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// certificates are those of the TLS contexts in use, for /certs: of each its own without those that
// vouch for them, and the first authority of its bundle.
func (s *Server) certificates() []*adminv3.Certificate {
	var out []*adminv3.Certificate
	for _, h := range s.secrets.contexts.Held() {
		c := &adminv3.Certificate{}
		if h.CA != nil {
			c.CaCert = append(c.CaCert, describeCertificate(h.CA, h.CAPath))
		}
		for _, own := range h.Certificates {
			d := describeCertificate(own.Leaf, own.Path)
			if o := own.Staple; o != nil {
				d.OcspDetails = &adminv3.CertificateDetails_OcspDetails{ValidFrom: timestamppb.New(o.ThisUpdate)}
				if !o.NextUpdate.IsZero() {
					d.OcspDetails.Expiration = timestamppb.New(o.NextUpdate)
				}
			}
			c.CertChain = append(c.CertChain, d)
		}
		out = append(out, c)
	}
	return out
}

// daysToExpiry is the least of all certificates, as in Envoy; those of authorities count.
func (s *Server) daysToExpiry() int64 {
	least := int64(noCertificate)
	for _, c := range s.certificates() {
		for _, d := range slices.Concat(c.GetCaCert(), c.GetCertChain()) {
			least = min(least, int64(d.GetDaysUntilExpiration()))
		}
	}
	return least
}

func daysUntil(t time.Time) uint64 {
	return uint64(max(time.Until(t)/(24*time.Hour), 0))
}

func describeCertificate(c *x509.Certificate, path string) *adminv3.CertificateDetails {
	d := &adminv3.CertificateDetails{
		Path: path, SerialNumber: hex.EncodeToString(c.SerialNumber.Bytes()),
		DaysUntilExpiration: daysUntil(c.NotAfter),
		ValidFrom:           timestamppb.New(c.NotBefore), ExpirationTime: timestamppb.New(c.NotAfter),
	}
	for _, name := range c.DNSNames {
		d.SubjectAltNames = append(d.SubjectAltNames, &adminv3.SubjectAlternateName{
			Name: &adminv3.SubjectAlternateName_Dns{Dns: name},
		})
	}
	for _, u := range c.URIs {
		d.SubjectAltNames = append(d.SubjectAltNames, &adminv3.SubjectAlternateName{
			Name: &adminv3.SubjectAlternateName_Uri{Uri: u.String()},
		})
	}
	for _, ip := range c.IPAddresses {
		d.SubjectAltNames = append(d.SubjectAltNames, &adminv3.SubjectAlternateName{
			Name: &adminv3.SubjectAlternateName_IpAddress{IpAddress: ip.String()},
		})
	}
	return d
}
