package format

import (
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// appendQuoted appends s as a JSON string, escaped as Envoy's JSON sanitizer does.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	n := len(dst)
	dst = append(dst, s...)
	return append(escapeFrom(dst, n), '"')
}

// escapeFrom escapes dst[n:], in place and without allocating when there is nothing to escape. Text
// that is not UTF-8 has every byte that is not plain ASCII, and the quote and the backslash,
// written as \u00xx.
func escapeFrom(dst []byte, n int) []byte {
	raw := dst[n:]
	plain := true
	for _, c := range raw {
		if c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			plain = false
			break
		}
	}
	if plain {
		return dst
	}
	// The escaped text goes behind the raw one, then over it: raw may move when dst grows, and the
	// old array still holds it then.
	end := len(dst)
	valid := utf8.Valid(raw)
	for _, c := range raw {
		dst = appendEscaped(dst, c, valid)
	}
	escaped := copy(dst[n:], dst[end:])
	return dst[:n+escaped]
}

func appendEscaped(dst []byte, c byte, valid bool) []byte {
	switch {
	case c >= ' ' && c != '"' && c != '\\' && c < 0x7f:
		return append(dst, c)
	case !valid || c == 0x7f:
		return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
	case c >= 0x80:
		return append(dst, c)
	}
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}
