package cel

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

type kind uint8

const (
	end kind = iota
	ident
	punct
	intLit
	uintLit
	floatLit
	stringLit
	bytesLit
)

type token struct {
	kind kind
	text string // of an identifier, a punctuation, or a decoded string
	num  uint64
	f    float64
	at   int
}

// lexer splits a source into tokens.
type lexer struct {
	src string
	at  int
}

func (l *lexer) errorf(at int, format string, args ...any) error {
	return fmt.Errorf("at %d: %s", at, fmt.Sprintf(format, args...))
}

func (l *lexer) space() {
	for l.at < len(l.src) {
		switch c := l.src[l.at]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f':
			l.at++
		case strings.HasPrefix(l.src[l.at:], "//"):
			for l.at < len(l.src) && l.src[l.at] != '\n' {
				l.at++
			}
		default:
			return
		}
	}
}

func letter(c byte) bool {
	return c == '_' || (c|0x20 >= 'a' && c|0x20 <= 'z')
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func (l *lexer) next() (token, error) {
	l.space()
	start := l.at
	if start == len(l.src) {
		return token{kind: end, at: start}, nil
	}
	c := l.src[start]
	if prefix, ok := l.stringStart(); ok {
		return l.str(prefix)
	}
	switch {
	case letter(c):
		for l.at < len(l.src) && (letter(l.src[l.at]) || digit(l.src[l.at])) {
			l.at++
		}
		return token{kind: ident, text: l.src[start:l.at], at: start}, nil
	case digit(c) || (c == '.' && start+1 < len(l.src) && digit(l.src[start+1])):
		return l.number()
	}
	for _, p := range [...]string{"&&", "||", "==", "!=", "<=", ">="} {
		if strings.HasPrefix(l.src[start:], p) {
			l.at += 2
			return token{kind: punct, text: p, at: start}, nil
		}
	}
	if strings.IndexByte("+-*/%<>!?:.,()[]{}", c) >= 0 {
		l.at++
		return token{kind: punct, text: l.src[start:l.at], at: start}, nil
	}
	return token{}, l.errorf(start, "unexpected %q", c)
}

func (l *lexer) number() (token, error) {
	start := l.at
	t := token{kind: intLit, at: start}
	hex := strings.HasPrefix(l.src[start:], "0x") || strings.HasPrefix(l.src[start:], "0X")
	if hex {
		l.at += 2
	}
	for l.at < len(l.src) {
		c := l.src[l.at]
		switch {
		case digit(c) || (hex && strings.IndexByte("abcdefABCDEF", c) >= 0):
		case !hex && c == '.' && l.at+1 < len(l.src) && digit(l.src[l.at+1]):
			t.kind = floatLit
		case !hex && (c == 'e' || c == 'E'):
			t.kind = floatLit
			if l.at+1 < len(l.src) && (l.src[l.at+1] == '+' || l.src[l.at+1] == '-') {
				l.at++
			}
		default:
			return l.numberEnd(t, start)
		}
		l.at++
	}
	return l.numberEnd(t, start)
}

func (l *lexer) numberEnd(t token, start int) (token, error) {
	text := l.src[start:l.at]
	var err error
	switch {
	case t.kind == floatLit:
		t.f, err = strconv.ParseFloat(text, 64)
	case strings.HasPrefix(text, "0x") || strings.HasPrefix(text, "0X"):
		t.num, err = strconv.ParseUint(text[2:], 16, 64)
	default:
		t.num, err = strconv.ParseUint(text, 10, 64)
	}
	if err != nil {
		return t, l.errorf(start, "%q is no number", text)
	}
	if t.kind == intLit && l.at < len(l.src) && (l.src[l.at] == 'u' || l.src[l.at] == 'U') {
		l.at++
		t.kind = uintLit
	}
	return t, nil
}

// stringStart tells whether a string literal begins here, and gives its prefix letters.
func (l *lexer) stringStart() (string, bool) {
	for n := 0; n <= 2 && l.at+n < len(l.src); n++ {
		c := l.src[l.at+n]
		if c == '"' || c == '\'' {
			return l.src[l.at : l.at+n], true
		}
		if strings.IndexByte("rRbB", c) < 0 {
			break
		}
	}
	return "", false
}

func (l *lexer) str(prefix string) (token, error) {
	start := l.at
	l.at += len(prefix)
	raw := strings.ContainsAny(prefix, "rR")
	t := token{kind: stringLit, at: start}
	if strings.ContainsAny(prefix, "bB") {
		t.kind = bytesLit
	}
	quote := l.src[l.at : l.at+1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(l.src[l.at:], triple) {
		quote = triple
	}
	l.at += len(quote)
	var b strings.Builder
	for {
		if l.at >= len(l.src) {
			return t, l.errorf(start, "the string does not end")
		}
		if strings.HasPrefix(l.src[l.at:], quote) {
			l.at += len(quote)
			t.text = b.String()
			return t, nil
		}
		c := l.src[l.at]
		switch {
		case len(quote) == 1 && (c == '\n' || c == '\r'):
			return t, l.errorf(start, "the string does not end on its line")
		case c == '\\' && !raw:
			if err := l.escape(&b, t.kind == bytesLit); err != nil {
				return t, err
			}
		default:
			b.WriteByte(c)
			l.at++
		}
	}
}

// escape decodes one escape sequence.
func (l *lexer) escape(b *strings.Builder, isBytes bool) error {
	start := l.at
	l.at++
	if l.at >= len(l.src) {
		return l.errorf(start, "the string does not end")
	}
	c := l.src[l.at]
	l.at++
	if i := strings.IndexByte("abfnrtv\\?\"'`", c); i >= 0 {
		b.WriteByte("\a\b\f\n\r\t\v\\?\"'`"[i])
		return nil
	}
	digits, base := 0, 16
	switch c {
	case 'x', 'X':
		digits = 2
	case 'u':
		digits = 4
	case 'U':
		digits = 8
	case '0', '1', '2', '3':
		l.at--
		digits, base = 3, 8
	}
	if digits == 0 || l.at+digits > len(l.src) || (isBytes && digits > 3) {
		return l.errorf(start, "unknown escape sequence")
	}
	n, err := strconv.ParseUint(l.src[l.at:l.at+digits], base, 32)
	if err != nil {
		return l.errorf(start, "unknown escape sequence")
	}
	l.at += digits
	if isBytes {
		b.WriteByte(byte(n))
		return nil
	}
	if !utf8.ValidRune(rune(n)) {
		return l.errorf(start, "no code point")
	}
	b.WriteRune(rune(n))
	return nil
}
