package route

import (
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"sidecar/api/header"
	"sidecar/internal/config"
	"sidecar/internal/match"
)

// naiveHost is the rule for domains as the API documents it.
func naiveHost(patterns []string, host string) string {
	host = match.ToLower(host)
	best, rank := "", 0
	for _, p := range patterns {
		lower := match.ToLower(p)
		r := 0
		switch {
		case lower == "*":
			r = 1
		case strings.HasPrefix(lower, "*"):
			if len(host) > len(lower)-1 && strings.HasSuffix(host, lower[1:]) {
				r = 2_000_000 + len(lower)
			}
		case strings.HasSuffix(lower, "*"):
			if len(host) > len(lower)-1 && strings.HasPrefix(host, lower[:len(lower)-1]) {
				r = 1_000_000 + len(lower)
			}
		case lower == host:
			r = 3_000_000
		}
		if r > rank {
			best, rank = lower, r
		}
	}
	return best
}

func FuzzDomains(f *testing.F) {
	for _, host := range []string{
		"a.test", "A.TEST", "x.a.test", ".a.test", "foo.bar", "foo.", "foo", "", "*", "*.test", "a.test:80",
		"[::1]", "[::1]:80", ":80", "é.test", strings.Repeat("x", 300) + ".TEST", "-x.test", "c-x.test",
		"\x00", "foo.bar*",
	} {
		f.Add("a.test *.test *-x.test foo.* foo.b* *", host)
		f.Add("*.test", host)
	}
	f.Fuzz(func(t *testing.T, list, name string) {
		d := domains{exact: map[string]*host{}}
		names := map[*host]string{}
		var patterns []string
		var errs config.Errors
		for p := range strings.FieldsSeq(list) {
			h := &host{}
			before := errs.Len()
			d.add(nil, []string{p}, h, "r", &errs)
			if errs.Len() == before {
				names[h], patterns = match.ToLower(p), append(patterns, p)
			}
		}
		h := &header.Map{}
		h.Add(":authority", name)
		if got, want := names[d.find(h)], naiveHost(patterns, name); got != want {
			t.Errorf("host %q of %q: got %q, want %q", name, patterns, got, want)
		}
	})
}

// Whatever a management server sends is compiled or refused, and what is compiled serves.
func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		oneHost("- {match: {prefix: /}, route: {cluster: c}}"),
		oneHost("- {match: {path: /a, case_sensitive: false}, redirect: {prefix_rewrite: /b, strip_query: true}}"),
		oneHost("- {match: {safe_regex: {regex: '/(a|b)*'}}, route: {cluster: c, regex_rewrite: {pattern: {regex: 'a*'}, substitution: '\\0x'}}}"),
		oneHost("- {match: {connect_matcher: {}}, route: {cluster_header: x}}"),
		oneHost("- {match: {path_separated_prefix: /a}, direct_response: {status: 302}}"),
		oneHost("- {match: {prefix: /}, non_forwarding_action: {}}"),
		oneHost("- {match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, weight: 1}]}}}"),
		levelsYAML,
	} {
		m := &routev3.RouteConfiguration{}
		if _, err := config.Parse("seed", config.YAML, []byte(strings.NewReplacer("%s", "", "%%", "%").Replace(seed)), m, config.RejectUnknown); err != nil {
			f.Fatal(err)
		}
		f.Add(marshal(f, m), "/a/b?c=d", "a.test:80")
	}
	f.Fuzz(func(_ *testing.T, data []byte, path, host string) {
		m := &routev3.RouteConfiguration{}
		if _, err := config.Parse("fuzz", config.Binary, data, m, config.IgnoreUnknown); err != nil {
			return
		}
		table, err := Compile(m, Env{})
		if err != nil {
			return
		}
		h := head(":path: "+path, ":authority: "+host)
		info := infoOf(h)
		e := table.Match(h, info, 7)
		if e == nil {
			return
		}
		e.Cluster(h)
		e.Location(h, info, true)
		e.ResponseBody(info)
		e.FinalizeRequest(h, info, true)
		e.FinalizeResponse(&header.Map{}, info)
	})
}
