package h2

import (
	"strings"

	"sidecar/api/header"
)

// problem is why a head or trailers are refused; the values below are all there are.
type problem struct {
	details string
	// reset says that the stream alone is reset, with INTERNAL_ERROR, as by Envoy; otherwise it is the
	// messaging that is wrong, which ends the connection unless
	// override_stream_error_on_invalid_http_message says that the stream is reset.
	reset bool
}

const listTooLarge = "http2.header_list_size_too_large"

//nolint:gochecknoglobals // never change
var (
	errField      = &problem{details: invalidField}
	errMessaging  = &problem{details: messagingRule}
	errTooMany    = &problem{details: tooManyHeaders, reset: true}
	errListSize   = &problem{details: listTooLarge, reset: true}
	errUnderscore = &problem{details: underscore, reset: true}
)

// pseudo judges a pseudo-header (nghttp2's http_request_on_header and http_response_on_header): none
// may be empty or come twice.
func (r *fieldReader) pseudo(id header.ID, value []byte) bool {
	if len(value) == 0 {
		return false
	}
	if r.kind == responseHead {
		return id == header.Status && r.once(seenStatus) && r.statusCode(value)
	}
	switch id {
	case header.Method:
		switch string(value) {
		case "CONNECT":
			r.method = true
		case "HEAD":
			r.isHead = true
		case "OPTIONS":
			r.isOptions = true
		}
		return r.once(seenMethod) && all(value, tokenChar)
	case header.Scheme:
		r.webScheme = fold(value, "http") || fold(value, "https")
		return r.once(seenScheme) && validScheme(value)
	case header.Path:
		switch {
		case value[0] == '/':
			r.path = pathOrigin
		case string(value) == "*":
			r.path = pathAsterisk
		}
		return r.once(seenPath) && all(value, pathChar)
	case header.Authority:
		return r.once(seenAuthority) && all(value, authorityChar)
	case header.Protocol:
		return r.o.AllowConnect && r.once(seenProtocol) && validValue(value, r.o.RejectObsText)
	}
	return false
}

func (r *fieldReader) once(s seen) bool {
	first := r.seen&s == 0
	r.seen |= s
	return first
}

// statusCode wants three digits. 101 is no status of HTTP/2 (RFC 9113 section 8.6).
func (r *fieldReader) statusCode(v []byte) bool {
	if len(v) != 3 || parseLength(v) < 100 {
		return false
	}
	r.status = int(parseLength(v))
	return r.status != 101
}

// class is a set of roles that a byte may have.
type class uint8

const (
	nameChar      class = 1 << iota // of a field's name: a token without capitals
	tokenChar                       // of a method
	valueChar                       // of a value, obs-text apart
	obsText                         // 0x80 and above
	pathChar                        // of :path
	authorityChar                   // of :authority and host, which RFC 9113 keeps free of user names
)

//nolint:gochecknoglobals // immutable table
var classes = makeClasses()

func makeClasses() (t [256]class) {
	for i := range t {
		c := byte(i)
		lower, upper, digit := c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9'
		switch {
		case lower || digit || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
			t[i] |= nameChar | tokenChar
		case upper:
			t[i] |= tokenChar
		}
		if lower || upper || digit || strings.IndexByte("!$%&'()*+,-.:;=[]_~", c) >= 0 {
			t[i] |= authorityChar
		}
		if c == '\t' || c >= ' ' && c < 0x7f {
			t[i] |= valueChar
		}
		if c >= 0x80 {
			t[i] |= obsText
		}
		if c > ' ' && c != 0x7f {
			t[i] |= pathChar
		}
	}
	return t
}

func all(s []byte, c class) bool {
	for _, b := range s {
		if classes[b]&c == 0 {
			return false
		}
	}
	return true
}

func validName(s []byte) bool { return len(s) > 0 && all(s, nameChar) }

func validValue(s []byte, rejectObsText bool) bool {
	if rejectObsText {
		return all(s, valueChar)
	}
	return all(s, valueChar|obsText)
}

// validScheme is that of RFC 3986 section 3.1.
func validScheme(s []byte) bool {
	for i, c := range s {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return len(s) > 0
}

// parseLength wants digits only; -1 is no number, or one that is too large.
func parseLength(v []byte) int64 {
	const most = 1<<63 - 1
	if len(v) == 0 {
		return -1
	}
	var n int64
	for _, c := range v {
		d := int64(c - '0')
		if c < '0' || c > '9' || n > (most-d)/10 {
			return -1
		}
		n = n*10 + d
	}
	return n
}

// fold compares s with a lower-case text, ASCII letters without their case.
func fold(s []byte, low string) bool {
	if len(s) != len(low) {
		return false
	}
	for i, c := range s {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != low[i] {
			return false
		}
	}
	return true
}
