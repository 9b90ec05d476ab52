package match

import (
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"sidecar/internal/config"
)

var (
	valueFields = config.Fields[*matcherv3.ValueMatcher]{
		Used: "null_match double_match string_match bool_match present_match list_match or_match",
	}
	doubleFields   = config.Fields[*matcherv3.DoubleMatcher]{Used: "range exact"}
	listFields     = config.Fields[*matcherv3.ListMatcher]{Used: "one_of"}
	orFields       = config.Fields[*matcherv3.OrMatcher]{Used: "value_matchers"}
	metadataFields = config.Fields[*matcherv3.MetadataMatcher]{Used: "filter path value invert"}
	segmentFields  = config.Fields[*matcherv3.MetadataMatcher_PathSegment]{Used: "key"}
)

// maxValueDepth bounds matchers nested in list_match and or_match.
const maxValueDepth = 16

type valueKind uint8

const (
	valueNever valueKind = iota
	valueNull
	valueDouble
	valueDoubleRange
	valueString
	valueBool
	valuePresent
	valueList
	valueOr
)

// Value is a compiled ValueMatcher: it looks at a value of the JSON kinds.
type Value struct {
	text       String
	inner      []Value
	start, end float64
	kind       valueKind
	truth      bool
}

// CompileValue reads a ValueMatcher.
func CompileValue(p *config.Path, m *matcherv3.ValueMatcher, errs *config.Errors) Value {
	return compileValue(p, m, errs, 0)
}

func compileValue(p *config.Path, m *matcherv3.ValueMatcher, errs *config.Errors, depth int) Value {
	valueFields.Check(p, m, errs)
	if depth > maxValueDepth {
		errs.Addf(p, "is nested deeper than %d levels", maxValueDepth)
		return Value{}
	}
	switch v := m.GetMatchPattern().(type) {
	case *matcherv3.ValueMatcher_NullMatch_:
		return Value{kind: valueNull}
	case *matcherv3.ValueMatcher_DoubleMatch:
		return compileDouble(p.Field("double_match"), v.DoubleMatch, errs)
	case *matcherv3.ValueMatcher_StringMatch:
		return Value{kind: valueString, text: CompileString(p.Field("string_match"), v.StringMatch, errs)}
	case *matcherv3.ValueMatcher_BoolMatch:
		return Value{kind: valueBool, truth: v.BoolMatch}
	case *matcherv3.ValueMatcher_PresentMatch:
		return Value{kind: valuePresent, truth: v.PresentMatch}
	case *matcherv3.ValueMatcher_ListMatch:
		p = p.Field("list_match")
		listFields.Check(p, v.ListMatch, errs)
		one := compileValue(p.Field("one_of"), v.ListMatch.GetOneOf(), errs, depth+1)
		return Value{kind: valueList, inner: []Value{one}}
	case *matcherv3.ValueMatcher_OrMatch:
		p = p.Field("or_match")
		orFields.Check(p, v.OrMatch, errs)
		out := Value{kind: valueOr}
		for i, o := range v.OrMatch.GetValueMatchers() {
			at := p.Field("value_matchers").Index(i)
			out.inner = append(out.inner, compileValue(at, o, errs, depth+1))
		}
		return out
	}
	errs.Add(p, "needs a way of matching")
	return Value{}
}

func compileDouble(p *config.Path, m *matcherv3.DoubleMatcher, errs *config.Errors) Value {
	doubleFields.Check(p, m, errs)
	if r := m.GetRange(); r != nil {
		return Value{kind: valueDoubleRange, start: r.GetStart(), end: r.GetEnd()}
	}
	return Value{kind: valueDouble, start: m.GetExact()}
}

// Match looks at v; present tells whether there is such a value.
func (m *Value) Match(v any, present bool) bool {
	switch m.kind {
	case valueNull:
		return present && v == nil
	case valueDouble:
		f, ok := v.(float64)
		return ok && f == m.start
	case valueDoubleRange:
		f, ok := v.(float64)
		return ok && f >= m.start && f < m.end
	case valueString:
		s, ok := v.(string)
		return ok && m.text.Match(s)
	case valueBool:
		b, ok := v.(bool)
		return ok && b == m.truth
	case valuePresent:
		// Not present == m.truth: false matches nothing (Envoy's PresentMatcher).
		return present && m.truth
	case valueList:
		list, _ := v.([]any)
		for _, e := range list {
			if m.inner[0].Match(e, true) {
				return true
			}
		}
	case valueOr:
		for i := range m.inner {
			if m.inner[i].Match(v, present) {
				return true
			}
		}
	case valueNever:
	}
	return false
}

// Metadata is a compiled MetadataMatcher.
type Metadata struct {
	filter string
	path   []string
	value  Value
	invert bool
}

// CompileMetadata reads a MetadataMatcher.
func CompileMetadata(p *config.Path, m *matcherv3.MetadataMatcher, errs *config.Errors) Metadata {
	metadataFields.Check(p, m, errs)
	out := Metadata{
		filter: m.GetFilter(), invert: m.GetInvert(),
		value: CompileValue(p.Field("value"), m.GetValue(), errs),
	}
	for i, s := range m.GetPath() {
		segmentFields.Check(p.Field("path").Index(i), s, errs)
		out.path = append(out.path, s.GetKey())
	}
	return out
}

// Match looks at metadata by namespace, as stream.Info holds it.
func (m *Metadata) Match(metadata map[string]map[string]any) bool {
	fields, present := metadata[m.filter]
	var v any = fields
	for i, key := range m.path {
		if i > 0 {
			fields, present = v.(map[string]any)
		}
		if present {
			v, present = fields[key]
		}
		if !present {
			v = nil
			break
		}
	}
	return m.value.Match(v, present) != m.invert
}
