package match

import (
	"strconv"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/config/configtest"
)

func TestEveryFieldIsAccountedFor(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, configtest.Elsewhere{
		"envoy.type.matcher.v3.ValueMatcher.NullMatch", "envoy.type.v3.DoubleRange",
	}, regexFields, substituteFields, stringFields, headerFields, int64RangeFields, queryFields,
		cookieFields, valueFields, doubleFields, listFields, orFields, metadataFields, segmentFields,
		filterStateFields)
}

func TestRegex(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		expr, prefix string
		yes, no      []string
	}{
		"literal":                 {"/a", "/a", []string{"/a"}, []string{"/ab", "x/a", ""}},
		"alternatives":            {"a|ab", "a", []string{"a", "ab"}, []string{"abc", "b"}},
		"prefix of an expression": {"/a/[0-9]+", "/a/", []string{"/a/7"}, []string{"/a/", "/a/7/"}},
		"nothing in common":       {"a|b", "", []string{"a", "b"}, []string{"c"}},
		"own anchors":             {"^/a$", "/a", []string{"/a"}, []string{"/ab"}},
		"flags":                   {"(?i)/a", "/", []string{"/A"}, []string{"/b"}},
		"dot and newline":         {"a.c", "a", []string{"abc"}, []string{"a\nc"}},
		"end is the end":          {"a", "a", []string{"a"}, []string{"a\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var errs config.Errors
			r := CompileRegex(nil, &matcherv3.RegexMatcher{Regex: c.expr}, &errs)
			if errs.Err() != nil {
				t.Fatal(errs.Err())
			}
			if r.Prefix() != c.prefix {
				t.Errorf("prefix %q, want %q", r.Prefix(), c.prefix)
			}
			for _, s := range c.yes {
				if !r.Match(s) {
					t.Errorf("%q doesn't match %q", c.expr, s)
				}
			}
			for _, s := range c.no {
				if r.Match(s) {
					t.Errorf("%q matches %q", c.expr, s)
				}
			}
		})
	}
}

// An expression must not leave the group that it is put in.
func TestRegexThatClosesItsGroup(t *testing.T) {
	t.Parallel()
	for _, expr := range []string{"a)|(?:b", ")", "(?P<x>a", "[", `\`, "a{1001}", ""} {
		var errs config.Errors
		if r := CompileRegex(config.Field("f"), &matcherv3.RegexMatcher{Regex: expr}, &errs); r != nil || errs.Err() == nil {
			t.Errorf("%q was compiled", expr)
		} else if !strings.HasPrefix(errs.Err().Error(), "f.regex: ") {
			t.Errorf("%q: error without path: %v", expr, errs.Err())
		}
	}
}

func substitution(tb testing.TB, expr, text string) (*Substitution, error) {
	tb.Helper()
	var errs config.Errors
	s := CompileSubstitution(nil, &matcherv3.RegexMatchAndSubstitute{
		Pattern: &matcherv3.RegexMatcher{Regex: expr}, Substitution: text,
	}, &errs)
	return s, errs.Err()
}

func TestSubstitution(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ expr, text, in, want string }{
		"all matches":      {"b", "x", "abcb", "axcx"},
		"groups":           {"(a)(b)?", `\2\1\0`, "abaa", "baabaaaa"},
		"backslash":        {"a", `\\1`, "a", `\1`},
		"dollar is itself": {"(a)", `$1`, "a", "$1"},
		"empty matches":    {"x*", "-", "/ryxxaxb", "-/-r-y-a-b-"},
		"no match":         {"z", "-", "abc", "abc"},
		"nothing":          {"z*", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := substitution(t, c.expr, c.text)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(s.AppendReplaced([]byte("<"), c.in)); got != "<"+c.want {
				t.Errorf("got %q, want %q", got, "<"+c.want)
			}
		})
	}
}

// What Envoy 1.40 says of metadata that a filter set.
func TestValue(t *testing.T) {
	t.Parallel()
	str := func(s string) *matcherv3.ValueMatcher {
		return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{
			StringMatch: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}},
		}}
	}
	null := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_NullMatch_{}}
	truth := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_BoolMatch{BoolMatch: true}}
	absent := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_PresentMatch{}}
	present := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_PresentMatch{PresentMatch: true}}
	list := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_ListMatch{ListMatch: &matcherv3.ListMatcher{
		MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: str("a")},
	}}}
	tree := map[string]map[string]any{"f": {
		"s": "a", "nil": nil, "t": true, "l": []any{1.0, "a"}, "deep": map[string]any{"s": "a"},
	}}
	for name, c := range map[string]struct {
		value *matcherv3.ValueMatcher
		path  []string
		want  bool
	}{
		"string":                {str("a"), []string{"s"}, true},
		"other string":          {str("b"), []string{"s"}, false},
		"string of a list":      {str("a"), []string{"l"}, false},
		"deep":                  {str("a"), []string{"deep", "s"}, true},
		"too deep":              {str("a"), []string{"s", "s"}, false},
		"null":                  {null, []string{"nil"}, true},
		"null of nothing":       {null, []string{"none"}, false},
		"null below nothing":    {null, []string{"none", "none"}, false},
		"bool":                  {truth, []string{"t"}, true},
		"bool of a string":      {truth, []string{"s"}, false},
		"absent never matches":  {absent, []string{"none"}, false},
		"absent though null":    {absent, []string{"nil"}, false},
		"absent below a string": {absent, []string{"s", "x"}, false},
		"present":               {present, []string{"s"}, true},
		"present map":           {present, []string{"deep"}, true},
		"present null":          {present, []string{"nil"}, true},
		"not present":           {present, []string{"none"}, false},
		"list":                  {list, []string{"l"}, true},
		"list of a string":      {list, []string{"s"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &matcherv3.MetadataMatcher{Filter: "f", Value: c.value}
			for _, key := range c.path {
				m.Path = append(m.Path, &matcherv3.MetadataMatcher_PathSegment{
					Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: key},
				})
			}
			for _, invert := range []bool{false, true} {
				m.Invert = invert
				var errs config.Errors
				compiled := CompileMetadata(nil, m, &errs)
				if errs.Err() != nil {
					t.Fatal(errs.Err())
				}
				if got := compiled.Match(tree); got != (c.want != invert) {
					t.Errorf("inverted %v: got %v", invert, got)
				}
			}
		})
	}
}

func TestValueIsBounded(t *testing.T) {
	t.Parallel()
	m := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_PresentMatch{PresentMatch: true}}
	for range 100 {
		m = &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_OrMatch{
			OrMatch: &matcherv3.OrMatcher{ValueMatchers: []*matcherv3.ValueMatcher{m}},
		}}
	}
	var errs config.Errors
	CompileValue(nil, m, &errs)
	if errs.Err() == nil || !strings.Contains(errs.Err().Error(), "nested deeper than 16 levels") {
		t.Errorf("got %v", errs.Err())
	}
}

func TestFilterState(t *testing.T) {
	t.Parallel()
	compiled := CompileFilterState(nil, &matcherv3.FilterStateMatcher{
		Key: "k", Matcher: &matcherv3.FilterStateMatcher_StringMatch{
			StringMatch: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "1"}},
		},
	}, &config.Errors{})
	for name, value := range map[string]any{"string": "1", "bytes": []byte("1"), "int": int64(1)} {
		info := &stream.Info{FilterState: map[string]stream.FilterObject{"k": {Value: value}}}
		if !compiled.Match(info) {
			t.Errorf("a %s doesn't match", name)
		}
	}
	if compiled.Match(&stream.Info{}) || compiled.Match(nil) {
		t.Error("matches nothing")
	}
}

func FuzzSubstitution(f *testing.F) {
	for _, in := range []string{"", "a", "abcabc", "/a/b?c", "\xff", "é", "xxyxx", `\1`, "$1"} {
		f.Add("a", `x\0`, in)
		f.Add("(x*)(y)?", `\1\\\2`, in)
		f.Add("", "-", in)
	}
	f.Fuzz(func(t *testing.T, expr, text, in string) {
		s, err := substitution(t, expr, text)
		if err != nil {
			if s != nil {
				t.Error("an error and a substitution")
			}
			return
		}
		got := string(s.AppendReplaced(nil, in))
		if !strings.Contains(text, `\`) {
			if want := s.re.ReplaceAllLiteralString(in, text); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if same, err := substitution(t, expr, `\0`); err != nil || string(same.AppendReplaced(nil, in)) != in {
			t.Errorf("replacing matches by themselves changes %q: %v", in, err)
		}
	})
}

// FuzzHeader compares each form of a matcher with its definition.
func FuzzHeader(f *testing.F) {
	for _, v := range []string{
		"", "a", "A", "abc", "ABC", "xabcx", "1", "-1", "+1", " 7 ", "007", "9223372036854775807",
		"9223372036854775808", "-9223372036854775808", "-9223372036854775809", "1x", "\x00", "é", "É", "aaab",
	} {
		f.Add("abc", v)
		f.Add(v, "aabC")
	}
	f.Fuzz(func(t *testing.T, pattern, value string) {
		forms := map[string]struct {
			m    *matcherv3.StringMatcher
			want func(v, p string) bool
		}{
			"exact":    {&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: pattern}}, func(v, p string) bool { return v == p }},
			"prefix":   {&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: pattern}}, strings.HasPrefix},
			"suffix":   {&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: pattern}}, strings.HasSuffix},
			"contains": {&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Contains{Contains: pattern}}, strings.Contains},
		}
		for name, form := range forms {
			for _, fold := range []bool{false, true} {
				form.m.IgnoreCase = fold
				s := CompileString(nil, form.m, &config.Errors{})
				v, p := value, pattern
				if fold {
					v, p = ToLower(v), ToLower(p)
				}
				if got, want := s.Match(value), form.want(v, p); got != want {
					t.Errorf("%s %q of %q, fold %v: got %v", name, pattern, value, fold, got)
				}
			}
		}
		n, err := strconv.ParseInt(strings.Trim(value, " \t\n\v\f\r"), 10, 64)
		if got, ok := parseInt(value); ok != (err == nil) || ok && got != n {
			t.Errorf("parseInt(%q) = %d, %v; want %d, %v", value, got, ok, n, err)
		}
		h := CompileHeader(nil, &routev3.HeaderMatcher{Name: "x", HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}, &config.Errors{})
		m := &header.Map{}
		m.Add("x", value)
		if !h.Match(m) {
			t.Error("a present header isn't")
		}
	})
}
