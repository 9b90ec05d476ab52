package format

import (
	"strings"
	"time"

	"sidecar/api/stream"
)

func downstreamTLS(in *stream.Info) *stream.TLSInfo { return in.Conn.TLS }
func upstreamTLS(in *stream.Info) *stream.TLSInfo   { return in.Upstream.TLS }

// cert reads a certificate, nil if there is none.
type cert func(*stream.Info) *stream.CertInfo

func downstreamPeer(in *stream.Info) *stream.CertInfo { return peer(in.Conn.TLS) }
func upstreamPeer(in *stream.Info) *stream.CertInfo   { return peer(in.Upstream.TLS) }

func peer(t *stream.TLSInfo) *stream.CertInfo {
	if t == nil || !t.PeerPresented {
		return nil
	}
	return &t.Peer
}

func own(tls func(*stream.Info) *stream.TLSInfo) cert {
	return func(in *stream.Info) *stream.CertInfo {
		if t := tls(in); t != nil {
			return &t.Own
		}
		return nil
	}
}

// simpleTLS makes the operators for TLS data: absent on plaintext.
func simpleTLS(name string) op {
	switch name {
	case "TLS_JA3_FINGERPRINT":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) { return appendString(dst, in.Conn.JA3) }}
	case "TLS_JA4_FINGERPRINT":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) { return appendString(dst, in.Conn.JA4) }}
	}
	if rest, ok := strings.CutPrefix(name, "DOWNSTREAM_"); ok {
		if o := clientOp(rest); o.text != nil {
			return o
		}
		return tlsOp(rest, downstreamTLS, downstreamPeer)
	}
	if rest, ok := strings.CutPrefix(name, "UPSTREAM_"); ok {
		if rest == "SERVER_NAME" {
			return sessionOp(upstreamTLS, func(t *stream.TLSInfo) string { return t.SNI })
		}
		return tlsOp(rest, upstreamTLS, upstreamPeer)
	}
	return op{}
}

// tlsOp finds an operator of both sides; those of the client alone are clientOp's.
func tlsOp(rest string, tls func(*stream.Info) *stream.TLSInfo, peer cert) op {
	switch rest {
	case "TLS_VERSION":
		return sessionOp(tls, func(t *stream.TLSInfo) string { return t.Version })
	case "TLS_CIPHER":
		return sessionOp(tls, func(t *stream.TLSInfo) string { return t.Cipher })
	case "TLS_GROUP":
		return sessionOp(tls, func(t *stream.TLSInfo) string { return t.Group })
	case "TLS_SESSION_ID":
		return sessionOp(tls, func(t *stream.TLSInfo) string { return t.SessionID })
	case "PEER_SUBJECT":
		return certOp(peer, func(c *stream.CertInfo) string { return c.Subject })
	case "PEER_ISSUER":
		return certOp(peer, func(c *stream.CertInfo) string { return c.Issuer })
	case "PEER_CERT":
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			if c := peer(in); c != nil && c.PEM != "" {
				return appendPEM(dst, c.PEM), true
			}
			return dst, false
		}}
	}
	side, kind, ok := strings.Cut(rest, "_")
	if !ok || side != "PEER" && side != "LOCAL" {
		return op{}
	}
	from := peer
	if side == "LOCAL" {
		from = own(tls)
	}
	switch kind {
	case "URI_SAN":
		return sanOp(from, func(c *stream.CertInfo) []string { return c.URISAN })
	case "DNS_SAN":
		return sanOp(from, func(c *stream.CertInfo) []string { return c.DNSSAN })
	case "IP_SAN":
		return sanOp(from, func(c *stream.CertInfo) []string { return c.IPSAN })
	}
	return op{}
}

// clientOp finds an operator that Envoy has for the client's session only.
func clientOp(rest string) op {
	switch rest {
	case "LOCAL_SUBJECT":
		return certOp(own(downstreamTLS), func(c *stream.CertInfo) string { return c.Subject })
	case "LOCAL_EMAIL_SAN":
		return sanOp(own(downstreamTLS), func(c *stream.CertInfo) []string { return c.EmailSAN })
	case "LOCAL_OTHERNAME_SAN":
		return sanOp(own(downstreamTLS), func(c *stream.CertInfo) []string { return c.OtherSAN })
	case "PEER_EMAIL_SAN":
		return sanOp(downstreamPeer, func(c *stream.CertInfo) []string { return c.EmailSAN })
	case "PEER_OTHERNAME_SAN":
		return sanOp(downstreamPeer, func(c *stream.CertInfo) []string { return c.OtherSAN })
	case "PEER_SERIAL":
		return certOp(downstreamPeer, func(c *stream.CertInfo) string { return c.Serial })
	case "PEER_FINGERPRINT_256":
		return certOp(downstreamPeer, func(c *stream.CertInfo) string { return c.SHA256 })
	case "PEER_FINGERPRINT_1":
		return certOp(downstreamPeer, func(c *stream.CertInfo) string { return c.SHA1 })
	case "PEER_CHAIN_FINGERPRINTS_256":
		return sessionOp(downstreamTLS, func(t *stream.TLSInfo) string { return t.PeerChainSHA256 })
	case "PEER_CHAIN_FINGERPRINTS_1":
		return sessionOp(downstreamTLS, func(t *stream.TLSInfo) string { return t.PeerChainSHA1 })
	case "PEER_CHAIN_SERIALS":
		return sessionOp(downstreamTLS, func(t *stream.TLSInfo) string { return t.PeerChainSerials })
	case "PEER_ISSUER_FINGERPRINT_256":
		return sessionOp(downstreamTLS, func(t *stream.TLSInfo) string { return t.IssuerSHA256 })
	case "PEER_ISSUER_SERIAL":
		return sessionOp(downstreamTLS, func(t *stream.TLSInfo) string { return t.IssuerSerial })
	}
	return op{}
}

// appendPEM writes PEM as a URL would hold it, as Envoy does it: what PEM doesn't have is left alone.
func appendPEM(dst []byte, pem string) []byte {
	for i := range len(pem) {
		switch pem[i] {
		case '\n':
			dst = append(dst, "%0A"...)
		case ' ':
			dst = append(dst, "%20"...)
		case '+':
			dst = append(dst, "%2B"...)
		case '/':
			dst = append(dst, "%2F"...)
		case '=':
			dst = append(dst, "%3D"...)
		default:
			dst = append(dst, pem[i])
		}
	}
	return dst
}

func sessionOp(tls func(*stream.Info) *stream.TLSInfo, get func(*stream.TLSInfo) string) op {
	return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
		if t := tls(in); t != nil {
			return appendString(dst, get(t))
		}
		return dst, false
	}}
}

func certOp(from cert, get func(*stream.CertInfo) string) op {
	return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
		if c := from(in); c != nil {
			return appendString(dst, get(c))
		}
		return dst, false
	}}
}

func sanOp(from cert, get func(*stream.CertInfo) []string) op {
	return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
		c := from(in)
		if c == nil {
			return dst, false
		}
		names := get(c)
		for i, s := range names {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, s...)
		}
		return dst, len(names) > 0
	}}
}

func makeCertStart(from cert) func(string, *Options) (op, error) {
	return makeCertTime(from, func(c *stream.CertInfo) time.Time { return c.NotBefore })
}

func makeCertEnd(from cert) func(string, *Options) (op, error) {
	return makeCertTime(from, func(c *stream.CertInfo) time.Time { return c.NotAfter })
}

func makeCertTime(from cert, get func(*stream.CertInfo) time.Time) func(string, *Options) (op, error) {
	return func(param string, _ *Options) (op, error) {
		return clockOp(param, false, func(in *stream.Info) time.Time {
			if c := from(in); c != nil {
				return get(c)
			}
			return time.Time{}
		})
	}
}
