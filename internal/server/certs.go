package server

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"slices"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// certificates are those of the secrets in use, for /certs.
//
// DIVERGES(certs-by-secret): Envoy lists one entry for each context, so that a secret that several
// name is there several times. Here each secret has one entry.
func (s *Server) certificates() []*adminv3.Certificate {
	var out []*adminv3.Certificate
	add := func(c *adminv3.Certificate) {
		if c == nil {
			return
		}
		c, _ = proto.Clone(c).(*adminv3.Certificate)
		for _, d := range slices.Concat(c.GetCaCert(), c.GetCertChain()) {
			d.DaysUntilExpiration = daysUntil(d.GetExpirationTime().AsTime())
		}
		out = append(out, c)
	}
	for _, name := range s.secrets.order {
		if st := s.secrets.static[name]; st.used.Load() {
			add(st.shown)
		}
	}
	list := s.secrets.list()
	slices.SortFunc(list, func(a, b *secret) int { return cmp.Compare(a.name, b.name) })
	for _, x := range list {
		x.mu.Lock()
		c := x.certificate
		x.mu.Unlock()
		add(c)
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

// describeSecret is what /certs shows of a secret: the certificate itself without those that vouch
// for it, or the first authority of a bundle. It is nil for secrets without certificates.
func describeSecret(m *tlsv3.Secret) *adminv3.Certificate {
	out := &adminv3.Certificate{}
	if d := describeCertificate(m.GetTlsCertificate().GetCertificateChain()); d != nil {
		out.CertChain = append(out.CertChain, d)
	}
	if d := describeCertificate(m.GetValidationContext().GetTrustedCa()); d != nil {
		out.CaCert = append(out.CaCert, d)
	}
	if len(out.GetCertChain())+len(out.GetCaCert()) == 0 {
		return nil
	}
	return out
}

// describeCertificate is for a source that was compiled before: one that has no certificate has been
// refused there.
func describeCertificate(src *corev3.DataSource) *adminv3.CertificateDetails {
	data, path := src.GetInlineBytes(), "<inline>"
	switch x := src.GetSpecifier().(type) {
	case *corev3.DataSource_InlineString:
		data = []byte(x.InlineString)
	case *corev3.DataSource_EnvironmentVariable:
		data = []byte(os.Getenv(x.EnvironmentVariable))
	case *corev3.DataSource_Filename:
		path = x.Filename
		var err error
		if data, err = readSecretFile(path); err != nil {
			return nil
		}
	}
	block, _ := pem.Decode(bytes.TrimSpace(data))
	if block == nil {
		return nil
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	d := &adminv3.CertificateDetails{
		Path: path, SerialNumber: hex.EncodeToString(c.SerialNumber.Bytes()),
		ValidFrom: timestamppb.New(c.NotBefore), ExpirationTime: timestamppb.New(c.NotAfter),
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
