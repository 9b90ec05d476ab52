package tlsctx

import (
	"crypto/sha1" //nolint:gosec // a fingerprint that users ask for by name
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"slices"
	"strings"

	"sidecar/api/stream"
)

// certInfo makes what log lines and XFCC show of a certificate.
func certInfo(c *x509.Certificate) stream.CertInfo {
	sum1, sum256 := sha1.Sum(c.Raw), sha256.Sum256(c.Raw) //nolint:gosec // see above
	info := stream.CertInfo{
		Subject: distinguishedName(c.RawSubject), Issuer: distinguishedName(c.RawIssuer),
		Serial: serial(c),
		SHA256: hex.EncodeToString(sum256[:]), SHA1: hex.EncodeToString(sum1[:]),
		PEM:    pemText(c.Raw),
		DNSSAN: c.DNSNames, EmailSAN: c.EmailAddresses, OtherSAN: otherNames(c, nil),
		NotBefore: c.NotBefore, NotAfter: c.NotAfter,
	}
	for _, u := range c.URIs {
		info.URISAN = append(info.URISAN, u.String())
	}
	for _, ip := range c.IPAddresses {
		info.IPSAN = append(info.IPSAN, ip.String())
	}
	return info
}

func serial(c *x509.Certificate) string { return hex.EncodeToString(c.SerialNumber.Bytes()) }

// The kinds of names in a certificate (RFC 5280, 4.2.1.6).
const (
	nameOther = 0
	nameEmail = 1
	nameDNS   = 2
	nameURI   = 6
	nameIP    = 7
)

// generalNames are a certificate's subject alternative names.
func generalNames(c *x509.Certificate) []asn1.RawValue {
	for i := range c.Extensions {
		var names []asn1.RawValue
		if !c.Extensions[i].Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		if _, err := asn1.Unmarshal(c.Extensions[i].Value, &names); err == nil {
			return slices.DeleteFunc(names, func(n asn1.RawValue) bool { return n.Class != asn1.ClassContextSpecific })
		}
	}
	return nil
}

// otherNames are the values of a certificate's otherNames, of all types if oid is empty.
func otherNames(c *x509.Certificate, oid asn1.ObjectIdentifier) []string {
	var out []string
	for _, n := range generalNames(c) {
		if n.Tag != nameOther {
			continue
		}
		if kind, text, ok := otherName(n.Bytes); ok && (len(oid) == 0 || kind.Equal(oid)) {
			out = append(out, text)
		}
	}
	return out
}

// otherName takes an otherName apart.
func otherName(p []byte) (kind asn1.ObjectIdentifier, text string, ok bool) {
	rest, err := asn1.Unmarshal(p, &kind)
	if err != nil {
		return nil, "", false
	}
	var explicit, value asn1.RawValue
	if _, err := asn1.Unmarshal(rest, &explicit); err != nil {
		return nil, "", false
	}
	if _, err := asn1.Unmarshal(explicit.Bytes, &value); err != nil {
		return nil, "", false
	}
	return kind, string(value.Bytes), true
}

// pemText is a certificate in PEM; whoever shows it encodes it for its place.
func pemText(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// distinguishedName renders a name as OpenSSL's XN_FLAG_RFC2253 does, which Envoy uses: last
// attribute first, "+" between those of one RDN.
func distinguishedName(raw []byte) string {
	var seq []asn1.RawValue
	if _, err := asn1.Unmarshal(raw, &seq); err != nil {
		return ""
	}
	var b strings.Builder
	for i, rdn := range slices.Backward(seq) {
		var set []pkix.AttributeTypeAndValue
		if i < len(seq)-1 {
			b.WriteByte(',')
		}
		if _, err := asn1.UnmarshalWithParams(rdn.FullBytes, &set, "set"); err != nil {
			continue
		}
		for j, a := range slices.Backward(set) {
			if j < len(set)-1 {
				b.WriteByte('+')
			}
			b.WriteString(attributeName(a.Type))
			b.WriteByte('=')
			text, _ := a.Value.(string)
			escapeValue(&b, text)
		}
	}
	return b.String()
}

func attributeName(oid asn1.ObjectIdentifier) string {
	s := oid.String()
	switch s {
	case "2.5.4.3":
		return "CN"
	case "2.5.4.4":
		return "SN"
	case "2.5.4.5":
		return "serialNumber"
	case "2.5.4.6":
		return "C"
	case "2.5.4.7":
		return "L"
	case "2.5.4.8":
		return "ST"
	case "2.5.4.9":
		return "street"
	case "2.5.4.10":
		return "O"
	case "2.5.4.11":
		return "OU"
	case "2.5.4.12":
		return "title"
	case "2.5.4.42":
		return "GN"
	case "1.2.840.113549.1.9.1":
		return "emailAddress"
	case "0.9.2342.19200300.100.1.25":
		return "DC"
	case "0.9.2342.19200300.100.1.1":
		return "UID"
	}
	return s
}

// escapeValue writes a value with what RFC 2253 reserves, controls and bytes beyond ASCII escaped.
func escapeValue(b *strings.Builder, s string) {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		switch {
		case c < ' ' || c >= 0x7f:
			b.WriteByte('\\')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		case strings.IndexByte(`,+"\<>;`, c) >= 0 || (c == ' ' && (i == 0 || i == len(s)-1)) || (c == '#' && i == 0):
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
}
