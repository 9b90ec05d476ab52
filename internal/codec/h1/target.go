package h1

import (
	"bytes"
	"strconv"

	"sidecar/api/header"
)

// validTarget is Balsa's look at the request target (isUrlValid): origin and asterisk form, scheme
// and authority, or CONNECT's authority.
func validTarget(t []byte, connect bool) bool {
	if len(t) == 0 {
		return false
	}
	if t[0] == '/' || t[0] == '*' {
		return all(t[1:], targetChar)
	}
	if !connect {
		i := 0
		for i < len(t) && schemeChar(t[i], i) {
			i++
		}
		if i == 0 || !bytes.HasPrefix(t[i:], []byte("://")) {
			return false
		}
		t = t[i+3:]
	}
	host, path := cutAt(t, "/?")
	return all(host, hostChar) && !bytes.Contains(host, []byte("@@")) && all(path, targetChar)
}

// schemeChar tells what a scheme is made of (RFC 3986 section 3.1); which ones are served is asked
// later.
func schemeChar(c byte, at int) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || at > 0 && (digit(c) || c == '+' || c == '-' || c == '.')
}

// cutAt splits before the first of some bytes.
func cutAt(s []byte, set string) (before, from []byte) {
	if i := bytes.IndexAny(s, set); i >= 0 {
		return s[:i], s[i:]
	}
	return s, nil
}

// addTarget adds :path, and replaces :authority and adds :scheme where the target holds them
// (ServerConnectionImpl::handlePath).
func addTarget(t, method []byte, o *ServerOptions, m *header.Map, h *head) *problem {
	if !h.connect && (t[0] == '/' || t[0] == '*' && string(method) == "OPTIONS") {
		m.AddIDBytes(header.Path, t)
		return nil
	}
	if h.connect {
		if !validAuthorityForm(t) {
			return errURL
		}
		h.ownAuthority = true
		m.SetBytes(header.Authority, t)
		return nil
	}
	if !o.AllowAbsoluteURL {
		m.AddIDBytes(header.Path, t)
		return nil
	}
	scheme, rest, ok := bytes.Cut(t, []byte("://"))
	if !ok {
		return errURL
	}
	host, path := cutAt(rest, "/?#")
	if at := bytes.LastIndexByte(host, '@'); at >= 0 {
		host = host[at+1:]
	}
	if !validURLHost(host) {
		return errURL
	}
	switch {
	case fold(scheme, "http"):
		m.AddID(header.Scheme, "http")
	case fold(scheme, "https"):
		m.AddID(header.Scheme, "https")
	default:
		return errScheme
	}
	h.ownAuthority = true
	m.SetBytes(header.Authority, host)
	if len(path) == 0 {
		m.AddID(header.Path, "/")
	} else {
		m.AddIDBytes(header.Path, path)
	}
	return nil
}

// validURLHost is a host with an optional port, as Envoy's URL parser takes them: no
// percent-encoding, IPv6 in brackets.
func validURLHost(s []byte) bool {
	name, port, hasPort := splitPort(s)
	if hasPort && !validPort(port) {
		return false
	}
	return validHostname(name)
}

// validAuthorityForm wants the port, too (RFC 9112 section 3.2.3).
func validAuthorityForm(s []byte) bool {
	name, port, hasPort := splitPort(s)
	return hasPort && validPort(port) && validHostname(name)
}

func splitPort(s []byte) (name, port []byte, hasPort bool) {
	if len(s) > 0 && s[0] == '[' {
		end := bytes.IndexByte(s, ']')
		if end < 0 {
			return nil, nil, false
		}
		if end+1 == len(s) {
			return s, nil, false
		}
		if s[end+1] != ':' {
			return nil, nil, false
		}
		return s[:end+1], s[end+2:], true
	}
	return bytes.Cut(s, []byte{':'})
}

func validPort(p []byte) bool {
	if len(p) == 0 || len(p) > 5 {
		return false
	}
	for _, c := range p {
		if !digit(c) {
			return false
		}
	}
	n, err := strconv.Atoi(string(p))
	return err == nil && n <= 65535
}

// validHostname is what Envoy's URL parser leaves of hostChar.
func validHostname(s []byte) bool {
	if len(s) == 0 {
		return false
	}
	if s[0] == '[' {
		return len(s) > 2 && s[len(s)-1] == ']' && all(s[1:len(s)-1], hostChar)
	}
	for i, c := range s {
		alnum := digit(c) || c|0x20 >= 'a' && c|0x20 <= 'z'
		if !alnum && !(i > 0 && (c == '-' || c == '.' || c == '_')) {
			return false
		}
	}
	return true
}
