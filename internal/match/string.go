package match

import (
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"sidecar/internal/config"
)

var stringFields = config.Fields[*matcherv3.StringMatcher]{
	Used:    "exact prefix suffix contains safe_regex ignore_case",
	Refused: "custom",
}

type stringKind uint8

const (
	never stringKind = iota
	exact
	prefix
	suffix
	contains
	regex
)

// String is a compiled StringMatcher. The zero value matches nothing.
type String struct {
	value string
	re    *Regex
	kind  stringKind
	fold  bool
}

// CompileString reads a StringMatcher.
func CompileString(p *config.Path, m *matcherv3.StringMatcher, errs *config.Errors) String {
	stringFields.Check(p, m, errs)
	s := String{fold: m.GetIgnoreCase()}
	switch v := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		s.kind, s.value = exact, v.Exact
	case *matcherv3.StringMatcher_Prefix:
		s.kind, s.value = prefix, v.Prefix
	case *matcherv3.StringMatcher_Suffix:
		s.kind, s.value = suffix, v.Suffix
	case *matcherv3.StringMatcher_Contains:
		s.kind, s.value = contains, v.Contains
	case *matcherv3.StringMatcher_SafeRegex:
		if s.fold {
			errs.Add(p.Field("ignore_case"), "ignore_case has no effect for safe_regex.")
		}
		if s.re = CompileRegex(p.Field("safe_regex"), v.SafeRegex, errs); s.re != nil {
			s.kind = regex
		}
	case *matcherv3.StringMatcher_Custom: // refused by the table
	default:
		errs.Add(p, "needs one of exact, prefix, suffix, contains, safe_regex")
	}
	return s
}

// Match tells whether v matches.
func (s *String) Match(v string) bool {
	switch s.kind {
	case exact:
		return v == s.value || s.fold && EqualFold(v, s.value)
	case prefix:
		return len(v) >= len(s.value) && s.equal(v[:len(s.value)])
	case suffix:
		return len(v) >= len(s.value) && s.equal(v[len(v)-len(s.value):])
	case contains:
		if !s.fold {
			return strings.Contains(v, s.value)
		}
		for ; len(v) >= len(s.value); v = v[1:] {
			if EqualFold(v[:len(s.value)], s.value) {
				return true
			}
			if v == "" {
				return false
			}
		}
		return false
	case regex:
		return s.re.Match(v)
	case never:
	}
	return false
}

func (s *String) equal(v string) bool {
	if s.fold {
		return EqualFold(v, s.value)
	}
	return v == s.value
}

// EqualFold compares as Envoy does where case doesn't matter: only A to Z fold.
func EqualFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if a[i] != b[i] && Lower(a[i]) != Lower(b[i]) {
			return false
		}
	}
	return true
}

// Lower turns A to Z into a to z.
func Lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// ToLower turns A to Z into a to z and leaves all else, unlike strings.ToLower.
func ToLower(s string) string {
	for i := range len(s) {
		if Lower(s[i]) != s[i] {
			b := []byte(s)
			for j := range b {
				b[j] = Lower(b[j])
			}
			return string(b)
		}
	}
	return s
}
