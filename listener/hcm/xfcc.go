package hcm

import (
	"strings"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
)

// forwardCert is what becomes of x-forwarded-client-cert (forward_client_cert_details).
type forwardCert uint8

const (
	certSanitize forwardCert = iota
	certForward
	certAppend
	certSet
	certAlwaysForward
)

// xfcc is a compiled forward_client_cert_details with set_current_client_cert_details.
type xfcc struct {
	mode                                   forwardCert
	cert, chain, subject, uri, dns, issuer bool
	json                                   bool
}

func compileXFCC(m *hcmv3.HttpConnectionManager, errs *config.Errors) xfcc {
	d := m.GetSetCurrentClientCertDetails()
	xfccFields.Check(config.Field("set_current_client_cert_details"), d, errs)
	x := xfcc{
		cert: d.GetCert(), chain: d.GetChain(), subject: d.GetSubject().GetValue(), uri: d.GetUri(),
		dns: d.GetDns(), issuer: d.GetIssuer(), json: d.GetFormat() == hcmv3.HttpConnectionManager_JSON,
	}
	switch m.GetForwardClientCertDetails() {
	case hcmv3.HttpConnectionManager_SANITIZE:
	case hcmv3.HttpConnectionManager_FORWARD_ONLY:
		x.mode = certForward
	case hcmv3.HttpConnectionManager_APPEND_FORWARD:
		x.mode = certAppend
	case hcmv3.HttpConnectionManager_SANITIZE_SET:
		x.mode = certSet
	case hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY:
		x.mode = certAlwaysForward
	}
	return x
}

// presentedCert is what the connection's client certificate adds to x-forwarded-client-cert: made
// once, since every request of the connection has the same.
type presentedCert struct {
	present    bool
	text, json string
}

func (x *xfcc) of(i *stream.TLSInfo) presentedCert {
	if i == nil || !i.PeerPresented {
		return presentedCert{}
	}
	p := presentedCert{present: true}
	switch x.mode {
	case certAppend:
		// In the form of what is there already.
		p.text, p.json = x.text(i), x.object(i)
	case certSet:
		if x.json {
			p.json = x.object(i)
		} else {
			p.text = x.text(i)
		}
	case certSanitize, certForward, certAlwaysForward:
	}
	return p
}

// apply is ConnectionManagerUtility::mutateXfccRequestHeader.
func (x *xfcc) apply(h *header.Map, p *presentedCert) {
	switch {
	case x.mode == certAlwaysForward:
	case x.mode == certSanitize || !p.present:
		h.RemoveID(header.XForwardedClientCert)
	case x.mode == certForward:
	case x.mode == certSet:
		if x.json {
			h.SetConcat(header.XForwardedClientCert, "["+p.json, "]")
		} else {
			h.SetID(header.XForwardedClientCert, p.text)
		}
	default:
		x.append(h, p)
	}
}

func (x *xfcc) append(h *header.Map, p *presentedCert) {
	old, ok := h.GetID(header.XForwardedClientCert)
	list, isJSON := strings.CutPrefix(strings.TrimSpace(old), "[")
	switch {
	case !ok || old == "":
		if x.json {
			h.SetConcat(header.XForwardedClientCert, "["+p.json, "]")
		} else {
			h.SetID(header.XForwardedClientCert, p.text)
		}
	case isJSON && strings.HasSuffix(list, "]"):
		list = strings.TrimSpace(list[:len(list)-1])
		if list != "" {
			list += ","
		}
		h.SetConcat(header.XForwardedClientCert, "["+list, p.json+"]")
	default:
		h.SetConcat(header.XForwardedClientCert, old, ","+p.text)
	}
}

// text writes key=value pairs, divided by semicolons.
func (x *xfcc) text(i *stream.TLSInfo) string {
	var b strings.Builder
	add := func(key, value string, quoted bool) {
		if b.Len() > 0 {
			b.WriteByte(';')
		}
		b.WriteString(key)
		b.WriteByte('=')
		if quoted {
			value = `"` + value + `"`
		}
		b.WriteString(value)
	}
	for _, u := range i.Own.URISAN {
		add("By", u, false)
	}
	if i.Peer.SHA256 != "" {
		add("Hash", i.Peer.SHA256, false)
	}
	if x.cert && i.Peer.PEM != "" {
		add("Cert", encodePEM(i.Peer.PEM), true)
	}
	if x.chain && i.PeerChainPEM != "" {
		add("Chain", encodePEM(i.PeerChainPEM), true)
	}
	if x.subject {
		add("Subject", i.Peer.Subject, true) // even if it is empty
	}
	if x.uri {
		for _, u := range i.Peer.URISAN {
			add("URI", u, false)
		}
		if len(i.Peer.URISAN) == 0 {
			add("URI", "", false)
		}
	}
	if x.dns {
		for _, d := range i.Peer.DNSSAN {
			add("DNS", d, false)
		}
	}
	if x.issuer {
		add("Issuer", i.Peer.Issuer, true)
	}
	return b.String()
}

// encodePEM is Envoy's URL encoding of PEM, which leaves alone what PEM doesn't have.
func encodePEM(pem string) string {
	return strings.NewReplacer("\n", "%0A", " ", "%20", "+", "%2B", "/", "%2F", "=", "%3D").Replace(pem)
}

// object writes the same as an element of a JSON list.
func (x *xfcc) object(i *stream.TLSInfo) string {
	b := []byte{'{'}
	key := func(k string) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), k...), '"', ':')
	}
	one := func(k, v string) {
		if v != "" {
			key(k)
			b = appendJSON(b, v)
		}
	}
	list := func(k string, vs []string) {
		if len(vs) == 0 {
			return
		}
		key(k)
		for n, v := range vs {
			b = append(b, "[,"[min(n, 1)])
			b = appendJSON(b, v)
		}
		b = append(b, ']')
	}
	list("by", i.Own.URISAN)
	one("hash", i.Peer.SHA256)
	if x.cert {
		one("cert", i.Peer.PEM)
	}
	if x.chain {
		list("chain", splitPEM(i.PeerChainPEM))
	}
	if x.subject {
		one("subject", i.Peer.Subject)
	}
	if x.uri {
		list("uri", i.Peer.URISAN)
	}
	if x.dns {
		list("dns", i.Peer.DNSSAN)
	}
	if x.issuer {
		one("issuer", i.Peer.Issuer)
	}
	return string(append(b, '}'))
}

const pemEnd = "-----END CERTIFICATE-----\n"

// splitPEM takes the certificates of a chain apart.
func splitPEM(pem string) []string {
	var out []string
	for pem != "" {
		i := strings.Index(pem, pemEnd)
		if i < 0 {
			return append(out, pem)
		}
		out, pem = append(out, pem[:i+len(pemEnd)]), pem[i+len(pemEnd):]
	}
	return out
}

// appendJSON appends a JSON string; what a certificate holds is not to break out of it.
func appendJSON(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
