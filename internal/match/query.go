package match

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"sidecar/api/header"
	"sidecar/internal/config"
)

var queryFields = config.Fields[*routev3.QueryParameterMatcher]{
	Used: "name string_match present_match",
}

var cookieFields = config.Fields[*routev3.CookieMatcher]{Used: "name string_match invert_match"}

// Query is a compiled QueryParameterMatcher.
type Query struct {
	name    string
	text    String
	byValue bool
	present bool
}

// CompileQuery reads a QueryParameterMatcher.
func CompileQuery(p *config.Path, m *routev3.QueryParameterMatcher, errs *config.Errors) Query {
	queryFields.Check(p, m, errs)
	q := Query{name: m.GetName(), present: true}
	switch v := m.GetQueryParameterMatchSpecifier().(type) {
	case *routev3.QueryParameterMatcher_PresentMatch:
		q.present = v.PresentMatch
	case *routev3.QueryParameterMatcher_StringMatch:
		q.byValue = true
		q.text = CompileString(p.Field("string_match"), v.StringMatch, errs)
	}
	return q
}

// Match looks at the query of a path. Only the first parameter of the name counts, and nothing is
// decoded.
func (q *Query) Match(path string) bool {
	value, ok := QueryParameter(path, q.name)
	if !q.byValue {
		return ok == q.present
	}
	return ok && q.text.Match(value)
}

// QueryParameter returns the first parameter of a name in the query of a path, undecoded.
func QueryParameter(path, name string) (value string, ok bool) {
	// Envoy takes the fragment for a part of the last value (Utility::QueryParamsMulti).
	_, query, _ := strings.Cut(path, "?")
	for query != "" {
		var item string
		item, query, _ = strings.Cut(query, "&")
		if key, v, _ := strings.Cut(item, "="); key == name {
			return v, true
		}
	}
	return "", false
}

// Cookie is a compiled CookieMatcher.
type Cookie struct {
	name   string
	text   String
	invert bool
}

// CompileCookie reads a CookieMatcher.
func CompileCookie(p *config.Path, m *routev3.CookieMatcher, errs *config.Errors) Cookie {
	cookieFields.Check(p, m, errs)
	return Cookie{
		name: m.GetName(), invert: m.GetInvertMatch(),
		text: CompileString(p.Field("string_match"), m.GetStringMatch(), errs),
	}
}

// Match looks at the request's cookies; one that is missing doesn't match, before inversion.
func (c *Cookie) Match(m *header.Map) bool {
	value, ok := CookieValue(m, c.name)
	return (ok && c.text.Match(value)) != c.invert
}

// CookieValue returns the first cookie of a name, without the quotes around it.
func CookieValue(m *header.Map, name string) (value string, ok bool) {
	for i := range m.Len() {
		if m.IDAt(i) != header.Cookie {
			continue
		}
		for _, rest := m.At(i); rest != ""; {
			var item string
			item, rest, _ = strings.Cut(rest, ";")
			key, v, isPair := strings.Cut(strings.TrimLeft(item, " "), "=")
			if !isPair || key != name {
				continue
			}
			if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
				v = v[1 : len(v)-1]
			}
			return v, true
		}
	}
	return "", false
}
