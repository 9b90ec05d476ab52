package route

import (
	"testing"

	"sidecar/internal/config"
)

func TestDomains(t *testing.T) {
	t.Parallel()
	const yaml = `
name: r
virtual_hosts:
- {name: exact, domains: [A.test, "b.test:8080"], routes: [{name: exact, match: {prefix: /}, direct_response: {status: 200}}]}
- {name: suffix, domains: ["*.test"], routes: [{name: suffix, match: {prefix: /}, direct_response: {status: 200}}]}
- {name: longer, domains: ["*-x.test"], routes: [{name: longer, match: {prefix: /}, direct_response: {status: 200}}]}
- {name: prefix, domains: ["foo.*"], routes: [{name: prefix, match: {prefix: /}, direct_response: {status: 200}}]}
- {name: longerprefix, domains: ["foo.b*"], routes: [{name: longerprefix, match: {prefix: /}, direct_response: {status: 200}}]}
`
	table := compile(t, yaml)
	ported := compile(t, yaml+"ignore_port_in_host_matching: true\n")
	withDefault := compile(t, yaml+`- {name: all, domains: ["*"], routes: [{name: all, match: {prefix: /}, direct_response: {status: 200}}]}`)
	for name, c := range map[string]struct {
		table      *Table
		host, want string
	}{
		"exact before suffix":            {table, "a.test", "exact"},
		"case doesn't matter":            {table, "A.TEST", "exact"},
		"port is part of the host":       {table, "a.test:80", "-"},
		"port configured":                {table, "b.test:8080", "exact"},
		"suffix":                         {table, "c.test", "suffix"},
		"suffix of several labels":       {table, "d.c.TEST", "suffix"},
		"longest suffix":                 {table, "c-x.test", "longer"},
		"wildcard stands for something":  {table, ".test", "-"},
		"prefix":                         {table, "foo.com", "prefix"},
		"longest prefix":                 {table, "foo.bar", "longerprefix"},
		"prefix wildcard needs a letter": {table, "foo.", "-"},
		"suffix before prefix":           {table, "foo.test", "suffix"},
		"none":                           {table, "other", "-"},
		"default":                        {withDefault, "other", "all"},
		"port ignored":                   {ported, "a.test:80", "exact"},
		"configured port never found":    {ported, "b.test:8080", "suffix"},
		"ipv6 keeps its colons":          {ported, "[::1]", "-"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := route(c.table, ":authority: "+c.host); got != c.want {
				t.Errorf("host %q: got %q, want %q", c.host, got, c.want)
			}
		})
	}
}

// What a case wants was seen on Envoy 1.40, where it is about a single route.
func TestRouteMatch(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		match string
		yes   [][]string
		no    [][]string
	}{
		"prefix": {
			`{prefix: /a}`,
			[][]string{{":path: /a"}, {":path: /ab?q"}},
			[][]string{{":path: /"}, {":path: /A"}, {":path: /x?/a"}},
		},
		"prefix with a query never matches": {`{prefix: "/a?x"}`, nil, [][]string{{":path: /a?x"}}},
		"path": {
			`{path: /a}`,
			[][]string{{":path: /a"}, {":path: /a?b=c"}, {":path: /a#f"}},
			[][]string{{":path: /a/"}, {":path: /A"}},
		},
		"path without case": {
			`{path: /aZ, case_sensitive: false}`, [][]string{{":path: /Az"}, {":path: /AZ?q"}}, [][]string{{":path: /azz"}},
		},
		"separated prefix": {
			`{path_separated_prefix: /a/b}`,
			[][]string{{":path: /a/b"}, {":path: /a/b/c"}, {":path: /a/b?x"}},
			[][]string{{":path: /a/bc"}, {":path: /a"}},
		},
		"separated prefix without case": {
			`{path_separated_prefix: /sep, case_sensitive: false}`, [][]string{{":path: /SEP/x"}}, [][]string{{":path: /SEPx"}},
		},
		"regex takes the whole path": {
			`{safe_regex: {regex: "/s.*x"}}`,
			[][]string{{":path: /sx"}, {":path: /sabx?y=1"}},
			[][]string{{":path: /sxy"}, {":path: /a/sx"}, {":path: /sa?x"}},
		},
		"regex alternatives are one group": {
			`{safe_regex: {regex: "/a|/ab"}}`, [][]string{{":path: /a"}, {":path: /ab"}}, [][]string{{":path: /abc"}, {":path: /a|/ab"}},
		},
		"connect": {
			`{connect_matcher: {}}`,
			[][]string{{":method: CONNECT"}, {"upgrade: connect-udp"}},
			[][]string{{":path: /"}},
		},
		"grpc": {
			`{prefix: /, grpc: {}}`,
			[][]string{{"content-type: application/grpc"}, {"content-type: application/grpc+proto"}},
			[][]string{{"content-type: application/grpc-web"}, {"content-type: application/grpc;x"}, {}},
		},
		"present":                 {`{prefix: /, headers: [{name: X-P}]}`, [][]string{{"x-p: "}}, [][]string{{}}},
		"not present":             {`{prefix: /, headers: [{name: x-p, present_match: false}]}`, [][]string{{}}, [][]string{{"x-p: a"}}},
		"present inverted":        {`{prefix: /, headers: [{name: x-p, present_match: true, invert_match: true}]}`, [][]string{{}}, [][]string{{"x-p: a"}}},
		"present, missing counts": {`{prefix: /, headers: [{name: x-p, present_match: true, treat_missing_header_as_empty: true}]}`, [][]string{{}, {"x-p: a"}}, nil},
		"absent, missing counts":  {`{prefix: /, headers: [{name: x-p, present_match: false, treat_missing_header_as_empty: true}]}`, nil, [][]string{{}, {"x-p: a"}}},
		"inverted, missing":       {`{prefix: /, headers: [{name: x-p, string_match: {exact: a}, invert_match: true}]}`, [][]string{{"x-p: b"}, {"x-p: "}}, [][]string{{}, {"x-p: a"}}},
		"inverted, missing empty": {`{prefix: /, headers: [{name: x-p, string_match: {exact: a}, invert_match: true, treat_missing_header_as_empty: true}]}`, [][]string{{}}, [][]string{{"x-p: a"}}},
		"deprecated empty exact":  {`{prefix: /, headers: [{name: x-p, exact_match: ""}]}`, [][]string{{"x-p: b"}, {"x-p: "}}, [][]string{{}}},
		"empty exact":             {`{prefix: /, headers: [{name: x-p, string_match: {exact: ""}}]}`, [][]string{{"x-p: "}}, [][]string{{}, {"x-p: b"}}},
		"deprecated exact":        {`{prefix: /, headers: [{name: x-p, exact_match: a}]}`, [][]string{{"x-p: a"}}, [][]string{{"x-p: A"}}},
		"deprecated prefix":       {`{prefix: /, headers: [{name: x-p, prefix_match: ab}]}`, [][]string{{"x-p: abc"}}, [][]string{{"x-p: a"}}},
		"deprecated suffix":       {`{prefix: /, headers: [{name: x-p, suffix_match: bc}]}`, [][]string{{"x-p: abc"}}, [][]string{{"x-p: c"}}},
		"deprecated contains":     {`{prefix: /, headers: [{name: x-p, contains_match: b}]}`, [][]string{{"x-p: abc"}}, [][]string{{"x-p: c"}}},
		"deprecated regex":        {`{prefix: /, headers: [{name: x-p, safe_regex_match: {regex: "a.c"}}]}`, [][]string{{"x-p: abc"}}, [][]string{{"x-p: abcd"}}},
		"string forms without case": {
			`{prefix: /, headers: [{name: a, string_match: {prefix: ab, ignore_case: true}}, {name: b, string_match: {suffix: YZ, ignore_case: true}}, {name: c, string_match: {contains: mN, ignore_case: true}}]}`,
			[][]string{{"a: ABx", "b: xyz", "c: lMno"}},
			[][]string{{"a: ABx", "b: xyz", "c: lMo"}, {"a: xab", "b: xyz", "c: mn"}},
		},
		"range": {
			`{prefix: /, headers: [{name: x-p, range_match: {start: -5, end: 10}}]}`,
			[][]string{{"x-p: -5"}, {"x-p: 9"}, {"x-p: +5"}, {"x-p: 007"}},
			[][]string{{"x-p: 10"}, {"x-p: -6"}, {"x-p: 5.0"}, {"x-p: "}, {}, {"x-p: 99999999999999999999"}, {"x-p: x"}},
		},
		"any of several values":        {`{prefix: /, headers: [{name: x-p, string_match: {exact: b}}]}`, [][]string{{"x-p: a", "x-p: b"}}, [][]string{{"x-p: a,b"}}},
		"several are not one":          {`{prefix: /, headers: [{name: x-p, string_match: {exact: "a,b"}}]}`, [][]string{{"x-p: a,b"}}, [][]string{{"x-p: a", "x-p: b"}}},
		"several, inverted":            {`{prefix: /, headers: [{name: x-p, string_match: {safe_regex: {regex: "[ab]"}}, invert_match: true}]}`, [][]string{{"x-p: c", "x-p: d"}}, [][]string{{"x-p: a", "x-p: c"}, {"x-p: c", "x-p: a"}}},
		"several in range":             {`{prefix: /, headers: [{name: x-p, range_match: {start: 1, end: 5}}]}`, [][]string{{"x-p: 3", "x-p: 9"}, {"x-p: 9", "x-p: 3"}}, [][]string{{"x-p: 9", "x-p: 30"}, {"x-p: a"}}},
		"several that are kept as one": {`{prefix: /, headers: [{name: user-agent, string_match: {exact: "a,b"}}]}`, [][]string{{"user-agent: a", "user-agent: b"}}, nil},
		"pseudo-headers":               {`{prefix: /, headers: [{name: ":method", string_match: {exact: GET}}, {name: Host, string_match: {exact: a.test}}]}`, [][]string{{}}, [][]string{{":method: PUT"}}},
		"query present":                {`{prefix: /, query_parameters: [{name: a}]}`, [][]string{{":path: /?a"}, {":path: /?b&a=1"}}, [][]string{{}, {":path: /?A=1"}, {":path: /?%61=1"}, {":path: /?b=?a=1"}, {":path: /a"}}},
		"query absent":                 {`{prefix: /, query_parameters: [{name: a, present_match: false}]}`, [][]string{{}, {":path: /?"}}, [][]string{{":path: /?a"}}},
		"query value":                  {`{prefix: /, query_parameters: [{name: a, string_match: {exact: "1"}}]}`, [][]string{{":path: /?a=1&a=2"}}, [][]string{{":path: /?a=2&a=1"}, {":path: /?a=%31"}, {}}},
		"query empty value":            {`{prefix: /, query_parameters: [{name: a, string_match: {exact: ""}}]}`, [][]string{{":path: /?a"}, {":path: /?a="}}, [][]string{{":path: /?a=1"}, {}}},
		"cookie":                       {`{prefix: /, cookies: [{name: s, string_match: {exact: a}}]}`, [][]string{{"cookie: s=a"}, {"cookie: q=1; s=a;"}, {`cookie: s="a"`}}, [][]string{{}, {"cookie: S=a"}, {"cookie: s=b; s=a"}, {"cookie: s=b", "cookie: s=a"}, {"cookie: s = a"}}},
		"cookie inverted":              {`{prefix: /, cookies: [{name: s, string_match: {exact: a}, invert_match: true}]}`, [][]string{{}, {"cookie: s=b"}}, [][]string{{"cookie: s=a"}}},
		"no client certificate":        {`{prefix: /, tls_context: {presented: false}}`, [][]string{{}}, nil},
		"client certificate":           {`{prefix: /, tls_context: {validated: true}}`, nil, [][]string{{}}},
		"metadata absent":              {`{prefix: /, dynamic_metadata: [{filter: f, path: [{key: k}], value: {present_match: true}}]}`, nil, [][]string{{}}},
		"metadata inverted":            {`{prefix: /, dynamic_metadata: [{filter: f, path: [{key: k}], value: {present_match: true}, invert: true}]}`, [][]string{{}}, nil},
		"filter state absent":          {`{prefix: /, filter_state: [{key: k, string_match: {prefix: a}}]}`, nil, [][]string{{}}},
		"fraction of nothing":          {`{prefix: /, runtime_fraction: {default_value: {numerator: 0}}}`, nil, [][]string{{}}},
		"fraction of all":              {`{prefix: /, runtime_fraction: {default_value: {numerator: 100}}}`, [][]string{{}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := compile(t, oneHost("- {name: hit, match: "+c.match+", direct_response: {status: 200}}"))
			for _, lines := range c.yes {
				if route(table, lines...) != "hit" {
					t.Errorf("%s doesn't match %q", c.match, lines)
				}
			}
			for _, lines := range c.no {
				if route(table, lines...) == "hit" {
					t.Errorf("%s matches %q", c.match, lines)
				}
			}
		})
	}
}

func TestIgnorePathParameters(t *testing.T) {
	t.Parallel()
	yaml := oneHost(`- {name: hit, match: {path: /a}, direct_response: {status: 200}}`)
	if got := route(compile(t, yaml), ":path: /a;v=1?q"); got != "-" {
		t.Errorf("got %q, want no route", got)
	}
	if got := route(compile(t, yaml+"\nignore_path_parameters_in_path_matching: true"), ":path: /a;v=1?q"); got != "hit" {
		t.Errorf("got %q, want hit", got)
	}
}

func TestNoForwardedProtoNoRoute(t *testing.T) {
	t.Parallel()
	table := compile(t, oneHost(`- {name: hit, match: {prefix: /}, direct_response: {status: 200}}`))
	if got := route(table, "x-forwarded-proto: "); got != "-" {
		t.Errorf("got %q, want no route", got)
	}
}

func TestRequireTLS(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		require  string
		lines    []string
		redirect bool
	}{
		"none":              {"NONE", nil, false},
		"all":               {"ALL", nil, true},
		"all, https":        {"ALL", []string{"x-forwarded-proto: https"}, false},
		"all, internal":     {"ALL", []string{"x-envoy-internal: true"}, true},
		"external":          {"EXTERNAL_ONLY", nil, true},
		"external internal": {"EXTERNAL_ONLY", []string{"x-envoy-internal: true"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := compile(t, oneHost(`- {name: hit, match: {prefix: /}, direct_response: {status: 200}}`)+
				"\n  require_tls: "+c.require)
			h := head(append(c.lines, ":path: /x?y")...)
			e := table.Match(h, infoOf(h), 0)
			if got := e.Kind == Redirect; got != c.redirect {
				t.Fatalf("redirected: %v, want %v", got, c.redirect)
			}
			if !c.redirect {
				return
			}
			if got, want := e.Location(h, nil, true), "https://a.test/x?y"; got != want || e.Status != 301 {
				t.Errorf("got %d %q, want 301 %q", e.Status, got, want)
			}
		})
	}
}

func TestRuntimeFraction(t *testing.T) {
	t.Parallel()
	env := testEnv()
	env.Runtime = func(key string) (config.Fraction, bool) {
		return config.Fraction{Numerator: 1, Denominator: 10_000}, key == "known"
	}
	table := compileEnv(t, oneHost(`
- {name: keyed, match: {prefix: /, runtime_fraction: {default_value: {numerator: 100}, runtime_key: known}}, direct_response: {status: 200}}
- {name: default, match: {prefix: /, runtime_fraction: {default_value: {numerator: 30}, runtime_key: other}}, direct_response: {status: 200}}
- {name: rest, match: {prefix: /}, direct_response: {status: 200}}
`), env)
	for random, want := range map[uint64]string{0: "keyed", 1: "default", 29: "default", 30: "rest", 10_000: "keyed", 10_030: "rest"} {
		h := head()
		if got := table.Match(h, infoOf(h), random).Name(); got != want {
			t.Errorf("random %d: got %q, want %q", random, got, want)
		}
	}
}

func TestDynamicMetadataAndFilterState(t *testing.T) {
	t.Parallel()
	table := compile(t, oneHost(`
- {name: claim, match: {prefix: /, dynamic_metadata: [{filter: jwt, path: [{key: p}, {key: groups}], value: {list_match: {one_of: {string_match: {exact: admin}}}}}]}, direct_response: {status: 200}}
- {name: number, match: {prefix: /, dynamic_metadata: [{filter: jwt, path: [{key: num}], value: {or_match: {value_matchers: [{double_match: {exact: 1}}, {double_match: {range: {start: 5, end: 6}}}]}}}]}, direct_response: {status: 200}}
- {name: state, match: {prefix: /, filter_state: [{key: k, string_match: {exact: v}}]}, direct_response: {status: 200}}
`))
	h := head()
	info := infoOf(h)
	find := func() string {
		if e := table.Match(h, info, 0); e != nil {
			return e.Name()
		}
		return "-"
	}
	info.Metadata = map[string]map[string]any{"jwt": {"p": map[string]any{"groups": []any{"dev", "admin"}}, "num": 5.5}}
	if got := find(); got != "claim" {
		t.Errorf("got %q, want claim", got)
	}
	info.Metadata["jwt"]["p"] = "text"
	if got := find(); got != "number" {
		t.Errorf("got %q, want number", got)
	}
	info.Metadata["jwt"]["num"] = 6.0
	if got := find(); got != "-" {
		t.Errorf("got %q, want none", got)
	}
	info.Conn.FilterState = filterState("k", "v")
	if got := find(); got != "state" {
		t.Errorf("got %q, want state", got)
	}
	info.FilterState = filterState("k", "other")
	if got := find(); got != "-" {
		t.Errorf("got %q, want none: the stream's object comes first", got)
	}
}
