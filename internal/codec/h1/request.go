package h1

import (
	"bytes"

	"sidecar/api/header"
)

// knownMethod has Envoy's list, which is http-parser's. (The dash of M-SEARCH is missing there
// too.)
func knownMethod(m []byte) bool {
	switch string(m) {
	case "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE",
		"ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL",
		"MOVE", "MSEARCH", "NOTIFY", "PROPFIND", "PROPPATCH", "PURGE", "REBIND", "REPORT", "SEARCH",
		"SOURCE", "SUBSCRIBE", "UNBIND", "UNLINK", "UNLOCK", "UNSUBSCRIBE":
		return true
	}
	return false
}

// cutWord splits off the first run of bytes above the space, skipping what is before it.
func cutWord(s []byte) (word, rest []byte) {
	i := 0
	for i < len(s) && s[i] <= ' ' {
		i++
	}
	j := i
	for j < len(s) && s[j] > ' ' {
		j++
	}
	return s[i:j], s[j:]
}

// requestLine parses the first line into pseudo-headers in Envoy's order: :authority (to be filled
// from Host), :path, :method; :scheme follows for an absolute-form target, before :path. short says
// that the line had no version: no headers follow (HTTP/0.9).
func requestLine(line []byte, o *ServerOptions, m *header.Map, h *head) (short bool, err *problem) {
	if o.Strict && !singleSpaced(line) {
		return false, errSpaces
	}
	method, rest := cutWord(line)
	target, rest := cutWord(rest)
	version := trim(rest)
	known := knownMethod(method)
	if !known && !(o.AllowCustomMethods && len(method) > 0 && all(method, tokenChar)) {
		return false, errMethod
	}
	h.connect, h.isHead = string(method) == "CONNECT", string(method) == "HEAD"
	if !validTarget(target, h.connect) {
		return false, errTarget
	}
	if len(version) > 0 && !validVersion(version) {
		return false, errVersion
	}
	h.http10 = string(version) != "HTTP/1.1"
	m.AddID(header.Authority, "")
	if err := addTarget(target, method, o, m, h); err != nil {
		// The target is judged with the headers: characters that no head may have come first.
		h.targetErr = err
	}
	m.AddIDBytes(header.Method, method)
	return len(version) == 0, nil
}

// singleSpaced wants no white space but two single spaces.
func singleSpaced(line []byte) bool {
	line = bytes.TrimSuffix(line, []byte("\r"))
	n := 0
	for i, c := range line {
		if c > ' ' {
			continue
		}
		if n++; c != ' ' || i == 0 || i == len(line)-1 || line[i+1] <= ' ' {
			return false
		}
	}
	return n == 2
}

// validVersion is HTTP/ and one digit on each side of a dot.
func validVersion(v []byte) bool {
	const name = "HTTP/"
	return len(v) == len(name)+3 && string(v[:len(name)]) == name && digit(v[5]) && v[6] == '.' && digit(v[7])
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// framing decides what the head means for the body and the connection, in the order of Envoy's
// codec: the first thing that is wrong is what the client and the access log see.
func (f *fieldReader) framing() *problem {
	m, h := f.m, f.h
	if h.hasLength && h.length == badLength && !h.chunked && !(f.isResponse() && h.bodiless()) {
		return errLength
	}
	if f.isResponse() {
		return f.responseFraming()
	}
	f.findUpgrade()
	if h.connect {
		if h.hasLength {
			if h.length != 0 {
				return errConnectBody
			}
			m.RemoveID(header.ContentLength)
			h.hasLength = false
		}
		h.upgrade = true
	}
	if err := f.encodings(); err != nil {
		return err
	}
	if h.connect && h.hasEncoding {
		return errEncoding
	}
	connection, _ := m.GetID(header.Connection)
	f.keepAlive(connection)
	if !h.upgrade && connection != "" {
		if !sanitizeConnection(m, connection, h.ownAuthority) {
			return errConnection
		}
	}
	return f.requestRest()
}

// requestRest is what Envoy checks after the connection header.
func (f *fieldReader) requestRest() *problem {
	m, h := f.m, f.h
	if h.targetErr != nil {
		return h.targetErr
	}
	if h.http10 && !f.server.AcceptHTTP10 {
		return errLowVersion
	}
	if !f.hasHost && !h.ownAuthority {
		if h.http10 && f.server.DefaultHost != "" {
			m.SetID(header.Authority, f.server.DefaultHost)
		} else {
			m.RemoveID(header.Authority)
		}
	}
	if a := m.Value(header.Authority); !validAuthority(a) {
		return errAuthority
	}
	if v, ok := m.GetID(header.Expect); ok && fold(v, "100-continue") {
		h.expect = true
	}
	return nil
}

func validAuthority(a string) bool {
	for i := range len(a) {
		if classes[a[i]]&authorityChar == 0 {
			return false
		}
	}
	return true
}

// encodings never lets both lengths through (RFC 9112 section 6.1).
func (f *fieldReader) encodings() *problem {
	h := f.h
	if h.hasEncoding && h.hasLength {
		if !h.chunked || !f.opt.AllowChunkedLength {
			return errBothLengths
		}
		f.m.RemoveID(header.ContentLength)
		h.hasLength, h.length = false, 0
	}
	if h.hasEncoding && !h.chunked {
		return errEncoding
	}
	return nil
}

// findUpgrade looks for an upgrade that ends HTTP on the connection. One to h2c is taken out, since
// Envoy serves HTTP/2 only from the first byte, and so are those that are to be ignored.
func (f *fieldReader) findUpgrade() {
	m := f.m
	up, ok := m.GetID(header.Upgrade)
	if !ok || !hasToken(m.Value(header.Connection), "upgrade") {
		return
	}
	ignored := f.server.IgnoreUpgrade != nil && f.server.IgnoreUpgrade(up)
	if !fold(up, "h2c") && !ignored {
		f.h.upgrade = true
		return
	}
	m.RemoveID(header.Upgrade)
	removeTokens(m, func(tok string) bool { return fold(tok, "upgrade") || fold(tok, "http2-settings") })
	m.RemoveID(header.HTTP2Settings)
}

// keepAlive tells from version and headers whether the connection may be used again
// (HeaderUtility::shouldCloseConnection).
func (f *fieldReader) keepAlive(connection string) {
	h := f.h
	h.closeToken = hasToken(connection, "close")
	if h.http10 {
		h.close = !hasToken(connection, "keep-alive")
		return
	}
	h.close = h.closeToken || hasToken(f.m.Value(header.ProxyConnection), "close")
}

// removeTokens takes elements out of the connection header.
func removeTokens(m *header.Map, drop func(string) bool) {
	list := m.Value(header.Connection)
	var kept []byte
	for list != "" {
		var tok string
		if tok, list = nextToken(list); tok == "" || drop(tok) {
			continue
		}
		if len(kept) > 0 {
			kept = append(kept, ',')
		}
		kept = append(kept, tok...)
	}
	if len(kept) == 0 {
		m.RemoveID(header.Connection)
		return
	}
	m.SetBytes(header.Connection, kept)
}

const (
	maxNominated = 10  // headers that Connection may name, less one
	maxTEBytes   = 256 // of TE when Connection names it, less one
)

// sanitizeConnection removes the headers that Connection names, so that they end here (RFC 9110
// section 7.6.1); false refuses the request (Utility::sanitizeConnectionHeader).
func sanitizeConnection(m *header.Map, list string, ownAuthority bool) bool {
	n, named := 0, false
	for rest := list; rest != ""; {
		var tok string
		tok, rest = nextToken(rest)
		if tok == "" {
			continue
		}
		if n++; n >= maxNominated {
			return false
		}
		if !connectionOption(tok) {
			named = true
		}
	}
	if !named {
		return true
	}
	for rest := list; rest != ""; {
		var tok string
		if tok, rest = nextToken(rest); tok == "" || connectionOption(tok) {
			continue
		}
		if ownAuthority && fold(tok, "host") {
			continue
		}
		if !removeNominated(m, tok) {
			return false
		}
	}
	removeTokens(m, func(tok string) bool {
		return !connectionOption(tok) && !(fold(tok, "te") && m.Has(header.TE))
	})
	return true
}

// connectionOption tells the tokens that are no headers' names.
func connectionOption(tok string) bool {
	return fold(tok, "close") || fold(tok, "keep-alive") || fold(tok, "upgrade") || fold(tok, "http2-settings")
}

func removeNominated(m *header.Map, tok string) bool {
	name := lowerString(tok)
	switch name {
	case "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto":
		return false
	case "host":
		m.RemoveID(header.Authority)
		return true
	case "te":
		return sanitizeTE(m)
	}
	if name[0] == ':' {
		return false
	}
	m.Remove(name)
	return true
}

// sanitizeTE leaves of TE what a proxy may send on: trailers.
func sanitizeTE(m *header.Map) bool {
	v, ok := m.GetID(header.TE)
	if !ok {
		return true
	}
	if len(v) >= maxTEBytes {
		return false
	}
	if hasToken(v, "trailers") {
		m.SetStatic(header.TE, "trailers")
		return true
	}
	m.RemoveID(header.TE)
	return true
}

// lowerString allocates only for names that are not lower-case.
func lowerString(s string) string {
	for i := range len(s) {
		if s[i] != lower(s[i]) {
			b := []byte(s)
			for j := range b {
				b[j] = lower(b[j])
			}
			return string(b)
		}
	}
	return s
}
