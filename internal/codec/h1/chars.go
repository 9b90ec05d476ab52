package h1

// class is a set of roles that a byte may have.
type class uint8

const (
	tokenChar     class = 1 << iota // header names and custom methods (RFC 9110 token)
	targetChar                      // path and query of a request target
	hostChar                        // authority of an absolute-form target, as Balsa sees it
	authorityChar                   // value of Host (nghttp2_check_authority)
	badChar                         // may stand nowhere in a head
)

//nolint:gochecknoglobals // immutable table
var classes = makeClasses()

func makeClasses() (t [256]class) {
	set := func(s string, c class) {
		for i := range len(s) {
			t[s[i]] |= c
		}
	}
	for c := range 256 {
		b := byte(c)
		if b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'z' {
			t[c] |= tokenChar | hostChar | authorityChar
		}
		// Tab, form feed and DEL are what http-parser took and Balsa kept; badChar refuses the
		// latter two.
		if b == '\t' || b == '\f' || b > ' ' && b <= 0x7f {
			t[c] |= targetChar
		}
		if b < ' ' && b != '\t' && b != '\r' && b != '\n' || b == 0x7f {
			t[c] |= badChar
		}
	}
	set("!#$%&'*+-.^_`|~", tokenChar)
	set("!$%&'()*+,-.:;=@[]_~", hostChar)
	set("!$%&'()*+,-.:;=@[]_~", authorityChar)
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

// trim cuts bytes up to and including the space from both ends; a head has no control characters
// but tab, CR and LF when it is called.
func trim(s []byte) []byte {
	for len(s) > 0 && s[0] <= ' ' {
		s = s[1:]
	}
	for len(s) > 0 && s[len(s)-1] <= ' ' {
		s = s[:len(s)-1]
	}
	return s
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// fold compares s with a lower-case text, ASCII letters without their case.
func fold[T ~string | ~[]byte](s T, low string) bool {
	if len(s) != len(low) {
		return false
	}
	for i := range len(low) {
		if lower(s[i]) != low[i] {
			return false
		}
	}
	return true
}

// nextToken cuts the first element off a comma-separated list, without the space around it.
func nextToken(list string) (token, rest string) {
	i := 0
	for i < len(list) && list[i] != ',' {
		i++
	}
	token = list[:i]
	if i < len(list) {
		rest = list[i+1:]
	}
	for token != "" && (token[0] == ' ' || token[0] == '\t') {
		token = token[1:]
	}
	for token != "" && (token[len(token)-1] == ' ' || token[len(token)-1] == '\t') {
		token = token[:len(token)-1]
	}
	return token, rest
}

// hasToken tells whether a comma-separated list has a lower-case token.
func hasToken(list, low string) bool {
	for list != "" {
		var tok string
		if tok, list = nextToken(list); fold(tok, low) {
			return true
		}
	}
	return false
}
