package match

import (
	"math"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"sidecar/api/header"
	"sidecar/internal/config"
)

var headerFields = config.Fields[*routev3.HeaderMatcher]{
	Used: `name exact_match safe_regex_match range_match present_match prefix_match suffix_match
		contains_match string_match invert_match treat_missing_header_as_empty`,
}

var int64RangeFields = config.Fields[*typev3.Int64Range]{Used: "start end"}

type headerKind uint8

const (
	byPresence headerKind = iota
	byText
	byRange
	anyValue
)

// Header is a compiled HeaderMatcher.
type Header struct {
	name           string
	text           String
	start, end     int64
	id             header.ID
	kind           headerKind
	present        bool
	invert         bool
	missingIsEmpty bool
}

// Headers matches if each of its matchers does.
type Headers []Header

// CompileHeaders reads matchers that must all match; nil for none.
func CompileHeaders(p *config.Path, list []*routev3.HeaderMatcher, errs *config.Errors) Headers {
	if len(list) == 0 {
		return nil
	}
	hs := make(Headers, len(list))
	for i, m := range list {
		hs[i] = CompileHeader(p.Index(i), m, errs)
	}
	return hs
}

// CompileHeader reads a HeaderMatcher.
func CompileHeader(p *config.Path, m *routev3.HeaderMatcher, errs *config.Errors) Header {
	headerFields.Check(p, m, errs)
	h := Header{
		name: HeaderName(m.GetName()), invert: m.GetInvertMatch(),
		missingIsEmpty: m.GetTreatMissingHeaderAsEmpty(), kind: byText,
	}
	if h.name == "" {
		errs.Add(p.Field("name"), "is required")
	}
	h.id = header.Lookup(h.name)
	switch v := m.GetHeaderMatchSpecifier().(type) {
	case nil:
		h.kind, h.present = byPresence, true
	case *routev3.HeaderMatcher_PresentMatch:
		h.kind, h.present = byPresence, v.PresentMatch
	case *routev3.HeaderMatcher_RangeMatch:
		int64RangeFields.Check(p.Field("range_match"), v.RangeMatch, errs)
		h.kind, h.start, h.end = byRange, v.RangeMatch.GetStart(), v.RangeMatch.GetEnd()
	case *routev3.HeaderMatcher_StringMatch:
		h.text = CompileString(p.Field("string_match"), v.StringMatch, errs)
	case *routev3.HeaderMatcher_SafeRegexMatch:
		if re := CompileRegex(p.Field("safe_regex_match"), v.SafeRegexMatch, errs); re != nil { //nolint:staticcheck // old control planes send it
			h.text = String{kind: regex, re: re}
		}
	case *routev3.HeaderMatcher_ExactMatch:
		// An empty deprecated exact_match takes any value (seen on Envoy 1.40).
		h.text = String{kind: exact, value: v.ExactMatch} //nolint:staticcheck // old control planes send it
		if h.text.value == "" {
			h.kind = anyValue
		}
	case *routev3.HeaderMatcher_PrefixMatch:
		h.text = String{kind: prefix, value: v.PrefixMatch} //nolint:staticcheck // old control planes send it
	case *routev3.HeaderMatcher_SuffixMatch:
		h.text = String{kind: suffix, value: v.SuffixMatch} //nolint:staticcheck // old control planes send it
	case *routev3.HeaderMatcher_ContainsMatch:
		h.text = String{kind: contains, value: v.ContainsMatch} //nolint:staticcheck // old control planes send it
	default:
		errs.Add(p, "has a way of matching that is not supported")
	}
	return h
}

// HeaderName gives the name under which a header map keeps a header that configuration names: lower
// case, and ":authority" for "host", as Envoy has it.
func HeaderName(name string) string {
	if name = ToLower(name); name == "host" {
		return ":authority"
	}
	return name
}

// Match tells whether all match.
func (hs Headers) Match(m *header.Map) bool {
	for i := range hs {
		if !hs[i].Match(m) {
			return false
		}
	}
	return true
}

// Match tells whether the header matches: if it is there several times, whether any of its values
// does, before inversion (Envoy 1.40; older ones joined the values).
func (h *Header) Match(m *header.Map) bool {
	found := false
	if h.id == header.None || m.Has(h.id) {
		for i := range m.Len() {
			name, value := m.At(i)
			if name != h.name {
				continue
			}
			found = true
			if h.kind == byPresence {
				break
			}
			if h.matchValue(value) {
				return !h.invert
			}
		}
	}
	switch {
	case h.kind == byPresence:
		return ((found || h.missingIsEmpty) == h.present) != h.invert
	case found:
		return h.invert
	}
	return h.missingIsEmpty && h.matchValue("") != h.invert
}

func (h *Header) matchValue(value string) bool {
	switch h.kind {
	case byText:
		return h.text.Match(value)
	case byRange:
		n, ok := parseInt(value)
		return ok && n >= h.start && n < h.end
	case anyValue:
		return true
	case byPresence:
	}
	return false
}

// parseInt reads a decimal number as absl::SimpleAtoi does: blanks around it and a sign are fine.
// strconv would allocate an error for every other value.
func parseInt(s string) (int64, bool) {
	s = strings.Trim(s, " \t\n\v\f\r")
	negative := false
	if s != "" && (s[0] == '-' || s[0] == '+') {
		negative, s = s[0] == '-', s[1:]
	}
	if s == "" {
		return 0, false
	}
	var n uint64
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' || n > math.MaxInt64/10 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	if negative {
		return -int64(n), n <= math.MaxInt64+1
	}
	return int64(n), n <= math.MaxInt64
}
