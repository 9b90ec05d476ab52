package hcm

import (
	"strings"

	"sidecar/api/filter"
	"sidecar/api/header"
)

// escapedSlashes is path_with_escaped_slashes_action.
type escapedSlashes uint8

const (
	keepEscapedSlashes escapedSlashes = iota
	rejectEscapedSlashes
	redirectEscapedSlashes
	forwardUnescapedSlashes
)

// normalizePath applies what is configured to :path, in Envoy's order: a fragment is refused, escaped
// slashes, dot segments, merged slashes (ConnectionManagerUtility::maybeNormalizePath). A reply ends
// the request.
func (s *Stream) normalizePath(h *header.Map, path string) *filter.Reply {
	c := s.cfg
	if strings.IndexByte(path, '#') >= 0 {
		if c.stripFragment {
			path, _, _ = strings.Cut(path, "#")
			h.SetID(header.Path, path)
		} else {
			c.stats.RqFailedPathNorm.Inc()
			return &pathNormFailed
		}
	}
	if !c.normalize && !c.mergeSlashes && c.escapedSlashes == keepEscapedSlashes {
		return nil
	}
	s.info.OriginalPath = path
	p, query := path, ""
	if i := strings.IndexByte(path, '?'); i >= 0 {
		p, query = path[:i], path[i:]
	}
	redirect := false
	if c.escapedSlashes != keepEscapedSlashes {
		if u, found := unescapeSlashes(p); found {
			p, redirect = u, c.escapedSlashes == redirectEscapedSlashes
			if c.escapedSlashes == rejectEscapedSlashes || (redirect && s.isGRPC) {
				// The log shows what was refused; a gRPC client follows no redirect.
				h.SetConcat(header.Path, p, query)
				c.stats.RqFailedPathNorm.Inc()
				return &pathNormFailed
			}
		}
	}
	if c.normalize {
		n, ok := normalizeDots(p)
		if !ok {
			c.stats.RqFailedPathNorm.Inc()
			return &pathNormFailed
		}
		p = n
	}
	if c.mergeSlashes {
		p = mergeSlashes(p)
	}
	if redirect {
		c.stats.RqRedirectedPathNorm.Inc()
		h.SetConcat(header.Path, p, query)
		location := p + query
		return &filter.Reply{
			Status: 307, Details: "path_normalization_failed", GRPCStatus: -1,
			Headers: func(h *header.Map) { h.SetID(header.Location, location) },
		}
	}
	if len(p)+len(query) != len(path) || p != path[:len(p)] {
		h.SetID(header.Path, p+query)
	}
	return nil
}

// unescapeSlashes decodes %2F and %5C.
func unescapeSlashes(p string) (string, bool) {
	if strings.IndexByte(p, '%') < 0 {
		return p, false
	}
	b := make([]byte, 0, len(p))
	found := false
	for i := 0; i < len(p); i++ {
		if p[i] == '%' && i+2 < len(p) {
			switch strings.ToLower(p[i+1 : i+3]) {
			case "2f":
				b, found = append(b, '/'), true
				i += 2
				continue
			case "5c":
				b, found = append(b, '\\'), true
				i += 2
				continue
			}
		}
		b = append(b, p[i])
	}
	return string(b), found
}

// normalizeDots canonicalises a path as browsers do (RFC 3986 §5.2.4; Envoy: PathUtil::canonicalPath):
// backslashes are slashes, "." and ".." segments go, also when escaped, and characters that have no
// place in a path are escaped. The plain case allocates nothing.
func normalizeDots(p string) (string, bool) {
	if p == "" || p[0] != '/' {
		return p, false
	}
	if isNormal(p) {
		return p, true
	}
	p, ok := unescapeUnreserved(p)
	if !ok {
		return p, false
	}
	out := make([]byte, 0, len(p)+8)
	for rest := p; rest != ""; {
		seg := rest[1:]
		end := strings.IndexAny(seg, `/\`)
		last := end < 0
		if last {
			end = len(seg)
		}
		rest = seg[end:]
		switch dots(seg[:end]) {
		case 1:
			if last {
				out = append(out, '/')
			}
		case 2:
			if i := strings.LastIndexByte(string(out), '/'); i >= 0 {
				out = out[:i]
			}
			if last {
				out = append(out, '/')
			}
		default:
			out = appendEscaped(append(out, '/'), seg[:end])
		}
	}
	return string(out), true
}

// unescapeUnreserved decodes the escapes of characters that need none; an escaped NUL is refused.
func unescapeUnreserved(p string) (string, bool) {
	if strings.IndexByte(p, '%') < 0 {
		return p, true
	}
	b := make([]byte, 0, len(p))
	for i := 0; i < len(p); i++ {
		if p[i] != '%' || i+2 >= len(p) {
			b = append(b, p[i])
			continue
		}
		hi, lo := unhex(p[i+1]), unhex(p[i+2])
		if hi < 0 || lo < 0 {
			b = append(b, p[i])
			continue
		}
		c := byte(hi<<4 | lo)
		if c == 0 {
			return p, false
		}
		if unreserved(c) && c != '.' {
			b = append(b, c)
			i += 2
			continue
		}
		b = append(b, p[i])
	}
	return string(b), true
}

// unreserved are the characters that RFC 3986 §2.3 never wants escaped.
func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func isNormal(p string) bool {
	for i := range len(p) {
		switch c := p[i]; {
		case c == '\\', mustEscape(c), c == '%':
			return false
		case c == '.' && p[i-1] == '/':
			return false
		}
	}
	return true
}

// dots tells how many dots a segment stands for: 1 for ".", 2 for "..", 0 for anything else.
func dots(seg string) int {
	n := 0
	for i := 0; i < len(seg); n++ {
		switch {
		case seg[i] == '.':
			i++
		case len(seg)-i >= 3 && strings.EqualFold(seg[i:i+3], "%2e"):
			i += 3
		default:
			return 0
		}
	}
	if n > 2 {
		return 0
	}
	return n
}

func mustEscape(c byte) bool {
	return c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>`{}", c) >= 0
}

func appendEscaped(b []byte, seg string) []byte {
	for i := 0; i < len(seg); i++ {
		c := seg[i]
		if c == '%' && len(seg)-i >= 3 && strings.EqualFold(seg[i:i+3], "%2e") {
			b = append(b, '.')
			i += 2
			continue
		}
		if mustEscape(c) {
			b = append(b, '%', "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
			continue
		}
		b = append(b, c)
	}
	return b
}

func mergeSlashes(p string) string {
	if !strings.Contains(p, "//") {
		return p
	}
	if strings.Trim(p, "/") == "" {
		return "//" // as Envoy, which joins an empty list between two slashes
	}
	b := make([]byte, 0, len(p))
	for i := range len(p) {
		if p[i] == '/' && len(b) > 0 && b[len(b)-1] == '/' {
			continue
		}
		b = append(b, p[i])
	}
	return string(b)
}
