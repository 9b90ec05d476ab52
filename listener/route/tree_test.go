package route

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/header"
)

// linear is Envoy's way: one rule after the other.
func linear(rules []rule, q *request) *rule {
	for i := range rules {
		if rules[i].matches(q) {
			return &rules[i]
		}
	}
	return nil
}

// words make paths and matchers that often agree, and differ in case, length and ends.
func word(r *rand.Rand) string {
	return []string{"a", "A", "ab", "abc", "b", "bc", "a/", "/", "", "%61", "é", "É", ";"}[r.IntN(13)]
}

func randomPath(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(5) {
		b.WriteString("/" + word(r))
	}
	return b.String()
}

func randomMatch(r *rand.Rand) *routev3.RouteMatch {
	m := &routev3.RouteMatch{}
	switch path := randomPath(r); r.IntN(6) {
	case 0, 1:
		m.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: path}
	case 2:
		m.PathSpecifier = &routev3.RouteMatch_Path{Path: path + "/x"[:r.IntN(3)]}
	case 3:
		m.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{
			PathSeparatedPrefix: strings.TrimRight("/a"+path, "/"),
		}
	case 4:
		expr := strings.NewReplacer("b", "b*", "A", "(a|A)", ";", ".*").Replace(path) + ".*"
		m.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: expr}}
	case 5:
		m.PathSpecifier = &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}}
		m.Headers = []*routev3.HeaderMatcher{{Name: "x-never"}}
	}
	if r.IntN(3) == 0 {
		m.CaseSensitive = wrapperspb.Bool(false)
	}
	if r.IntN(4) == 0 {
		m.Headers = append(m.Headers, &routev3.HeaderMatcher{Name: "x-h"})
	}
	return m
}

func randomRoutes(r *rand.Rand, n int) *routev3.RouteConfiguration {
	vh := &routev3.VirtualHost{Name: "v", Domains: []string{"*"}}
	for i := range n {
		vh.Routes = append(vh.Routes, &routev3.Route{
			Name: fmt.Sprint(i), Match: randomMatch(r),
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200}},
		})
	}
	return &routev3.RouteConfiguration{Name: "r", VirtualHosts: []*routev3.VirtualHost{vh}}
}

// The tree finds what trying the routes in order finds, for any routes and any request.
func TestTreeIsLinear(t *testing.T) {
	t.Parallel()
	const seed = 20
	r := rand.New(rand.NewPCG(seed, seed))
	hits, treeOnly := 0, 0
	for range 300 {
		n := 1 + r.IntN(60)
		table, err := Compile(randomRoutes(r, n), Env{})
		if err != nil {
			t.Fatal(err)
		}
		paths := &table.domains.fallback.paths
		for range 60 {
			q := randomRequest(r)
			want, got := linear(paths.rules, q), paths.find(q)
			if got != want {
				t.Fatalf("path %q: got %s, want %s of\n%v", q.full, nameOf(got), nameOf(want), describe(paths.rules))
			}
			if want != nil {
				hits++
				if n > linearMax {
					treeOnly++
				}
			}
		}
	}
	if hits < 1000 || treeOnly < 1000 {
		t.Errorf("only %d hits, %d in trees: the test says nothing", hits, treeOnly)
	}
}

func randomRequest(r *rand.Rand) *request {
	lines := []string{":path: " + randomPath(r) + []string{"", "?q=/a", "#/a"}[r.IntN(3)]}
	if r.IntN(2) == 0 {
		lines = append(lines, "x-h: 1")
	}
	if r.IntN(8) == 0 {
		lines = append(lines, ":method: CONNECT")
	}
	if r.IntN(8) == 0 {
		lines = append(lines, "x-never: 1")
	}
	h := head(lines...)
	if r.IntN(20) == 0 {
		h.RemoveID(header.Path)
	}
	q := &request{h: h, info: infoOf(h), connect: h.Value(header.Method) == "CONNECT"}
	q.full, q.hasPath = h.GetID(header.Path)
	q.path = withoutQuery(q.full)
	return q
}

func nameOf(r *rule) string {
	if r == nil {
		return "none"
	}
	return r.entry.name
}

func describe(rules []rule) string {
	var b strings.Builder
	for i := range rules {
		p := &rules[i].path
		fmt.Fprintf(&b, "%d: kind %d %q fold %v regex %v\n", i, p.kind, p.text, p.fold, p.re)
	}
	return b.String()
}

// large makes a table of n virtual hosts, and one with n routes.
func large(tb testing.TB, n int) *Table {
	tb.Helper()
	rc := &routev3.RouteConfiguration{Name: "r"}
	action := &routev3.Route_Route{Route: &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: "c"},
	}}
	big := &routev3.VirtualHost{Name: "big", Domains: []string{"big.test"}}
	for i := range n {
		big.Routes = append(big.Routes, &routev3.Route{Name: fmt.Sprint(i), Action: action, Match: &routev3.RouteMatch{
			PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: fmt.Sprintf("/api/v%d/%d/", i%3, i)},
		}})
		rc.VirtualHosts = append(rc.VirtualHosts, &routev3.VirtualHost{
			Name: fmt.Sprint("vh", i), Domains: []string{fmt.Sprintf("svc-%d.ns.svc.cluster.local", i)},
			Routes: []*routev3.Route{{Name: "one", Action: action, Match: &routev3.RouteMatch{
				PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"},
			}}},
		})
	}
	rc.VirtualHosts = append(rc.VirtualHosts, big)
	table, err := Compile(rc, Env{})
	if err != nil {
		tb.Fatal(err)
	}
	return table
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 5000} {
		table := large(b, n)
		last := head(":authority: big.test", fmt.Sprintf(":path: /api/v%d/%d/x?y", (n-1)%3, n-1))
		single := head(":authority: SVC-7.ns.svc.cluster.local", ":path: /x")
		info := infoOf(last)
		b.Run(fmt.Sprint("routes-", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if table.Match(last, info, 1) == nil {
					b.Fatal("no route")
				}
			}
		})
		b.Run(fmt.Sprint("hosts-", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if table.Match(single, info, 1) == nil {
					b.Fatal("no route")
				}
			}
		})
	}
}
