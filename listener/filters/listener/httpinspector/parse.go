package httpinspector

import "bytes"

// The protocols, as filter chains match them (application_protocols).
const (
	http10 = "http/1.0"
	http11 = "http/1.1"
	http2  = "h2c"
)

const (
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	// maxLine is the longest request line, maxInspect how much of a longer one is waited for; both as
	// in Envoy.
	maxLine    = 8192
	maxInspect = 64 << 10
)

// parse tells which HTTP p is the beginning of, "" for none; decided is false while it may be either.
func parse(p []byte) (protocol string, decided bool) {
	if n := min(len(p), len(preface)); string(p[:n]) == preface[:n] {
		if n < len(preface) {
			return "", false
		}
		return http2, true
	}
	line, _, whole := bytes.Cut(p, []byte("\n"))
	method, rest, spaced := bytes.Cut(line, []byte(" "))
	for _, c := range method {
		if !isToken(c) {
			return "", true
		}
	}
	switch {
	case spaced && len(method) == 0, whole && !spaced, whole && len(line) > maxLine:
		return "", true
	case !whole:
		return "", false
	}
	return version(bytes.Fields(rest))
}

// version reads what follows the method: a target, and a version if it is no HTTP/0.9, which Envoy
// counts as HTTP/1.0 like every version it does not know.
func version(words [][]byte) (protocol string, decided bool) {
	switch {
	case len(words) == 1:
		return http10, true
	case len(words) != 2 || !isVersion(words[1]):
		return "", true
	case string(words[1]) == "HTTP/1.1":
		return http11, true
	}
	return http10, true
}

func isVersion(w []byte) bool {
	return len(w) == len("HTTP/1.1") && string(w[:5]) == "HTTP/" && isDigit(w[5]) && w[6] == '.' && isDigit(w[7])
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// isToken is tchar of RFC 9110, 5.6.2.
func isToken(c byte) bool {
	return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'z' || bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0
}
