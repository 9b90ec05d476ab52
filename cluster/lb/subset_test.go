package lb_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sidecar/api/stream"
	"sidecar/cluster/host"
	"sidecar/cluster/lb"
)

// labelled are hosts by name, with the envoy.lb metadata that each has.
func labelled() *host.Set {
	var hosts []*host.Host
	for _, h := range []struct {
		name   string
		labels map[string]any
	}{
		{"a", map[string]any{"version": "1", "stage": "prod"}},
		{"b", map[string]any{"version": "1", "stage": "dev"}},
		{"c", map[string]any{"version": "2", "stage": "prod", "x": []any{"p", "q"}}},
		{"d", map[string]any{"version": 2.0}},
		{"e", nil},
	} {
		hosts = append(hosts, host.New(stream.PipeAddr(h.name), "", nil,
			&host.Attributes{Weight: 1, Metadata: host.Metadata{"envoy.lb": h.labels}}))
	}
	return host.NewSet([]host.Spec{{Hosts: hosts}}, host.Policy{}, 1)
}

// seen are the hosts that some choices come to.
func seen(b *lb.Balancer, set *host.Set, criteria map[string]any) string {
	var names []string
	for range 60 {
		name := "-"
		if h, _ := b.Pick(set, &lb.Context{Criteria: lb.NewCriteria(criteria)}); h != nil {
			name = h.Addr().String()
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestSubsets(t *testing.T) {
	t.Parallel()
	type labels = map[string]any
	version, both := lb.Selector{Keys: []string{"version"}}, lb.Selector{Keys: []string{"stage", "version"}}
	with := func(s lb.Selector, f lb.Fallback, keys ...string) lb.Selector {
		s.Fallback, s.FallbackBy = f, keys
		return s
	}
	single := version
	single.Single = true
	for _, tt := range []struct {
		name     string
		subsets  lb.Subsets
		criteria labels
		want     string
	}{
		{"one key", lb.Subsets{Selectors: []lb.Selector{version}}, labels{"version": "1"}, "a b"},
		{"two keys", lb.Subsets{Selectors: []lb.Selector{version, both}}, labels{"version": "1", "stage": "dev"}, "b"},
		{"of another type", lb.Subsets{Selectors: []lb.Selector{version}}, labels{"version": 2.0}, "d"},
		{"no such value", lb.Subsets{Selectors: []lb.Selector{version}}, labels{"version": "3"}, "-"},
		{"no such selector", lb.Subsets{Selectors: []lb.Selector{both}}, labels{"version": "1"}, "-"},
		{"no criteria", lb.Subsets{Selectors: []lb.Selector{version}}, nil, "-"},
		{"any", lb.Subsets{Selectors: []lb.Selector{version}, Fallback: lb.FallbackAny}, labels{"version": "3"}, "a b c d e"},
		{
			"default", lb.Subsets{
				Selectors: []lb.Selector{version}, Fallback: lb.FallbackDefault, Default: lb.NewCriteria(labels{"stage": "prod"}),
			}, labels{"version": "3"}, "a c",
		},
		{
			"panic", lb.Subsets{
				Selectors: []lb.Selector{version}, Fallback: lb.FallbackDefault, PanicAny: true,
				Default: lb.NewCriteria(labels{"stage": "none"}),
			}, nil, "a b c d e",
		},
		{
			"fallback of a selector", lb.Subsets{
				Selectors: []lb.Selector{with(version, lb.FallbackNone), with(both, lb.FallbackAny)}, Fallback: lb.FallbackAny,
			}, labels{"version": "3"}, "-",
		},
		{
			"fewer keys", lb.Subsets{
				Selectors: []lb.Selector{version, with(both, lb.FallbackKeys, "version")},
			}, labels{"version": "1", "stage": "none"}, "a b",
		},
		{"single", lb.Subsets{Selectors: []lb.Selector{single}}, labels{"version": "1"}, "a"},
		{"list as a value", lb.Subsets{Selectors: []lb.Selector{{Keys: []string{"x"}}}}, labels{"x": "q"}, "-"},
		{"list", lb.Subsets{Selectors: []lb.Selector{{Keys: []string{"x"}}}, ListAsAny: true}, labels{"x": "q"}, "c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := lb.New(&lb.Config{Policy: lb.Random, PanicThreshold: 50, Subsets: &tt.subsets}, lb.Env{Random: rand.Uint64})
			if diff := cmp.Diff(tt.want, seen(b, labelled(), tt.criteria)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSubsets_Update(t *testing.T) {
	t.Parallel()
	var created, removed, active, selected int
	b := lb.New(&lb.Config{Subsets: &lb.Subsets{Selectors: []lb.Selector{{Keys: []string{"version"}}}}}, lb.Env{
		Random: rand.Uint64, Subsets: lb.SubsetStats{
			Created: func() { created++ }, Removed: func() { removed++ }, Selected: func() { selected++ },
			Active: func(n int) { active = n }, Duplicates: func(int) {},
		},
	})
	set, ctx := labelled(), &lb.Context{Criteria: lb.NewCriteria(map[string]any{"version": "1"})}
	b.Pick(set, ctx)
	if created != 3 || removed != 0 || active != 3 || selected != 1 {
		t.Errorf("created %d, removed %d, active %d, selected %d", created, removed, active, selected)
	}
	b.Pick(host.NewSet([]host.Spec{{Hosts: set.Hosts[:2]}}, host.Policy{}, 2), ctx)
	if created != 3 || removed != 2 || active != 1 {
		t.Errorf("created %d, removed %d, active %d after an update", created, removed, active)
	}
}

func TestCriteria_Merge(t *testing.T) {
	t.Parallel()
	a, b := lb.NewCriteria(map[string]any{"a": "1", "b": "1"}), lb.NewCriteria(map[string]any{"b": "2"})
	want := lb.NewCriteria(map[string]any{"a": "1", "b": "2"})
	if diff := cmp.Diff(want, a.Merge(b), cmp.AllowUnexported(lb.Criteria{})); diff != "" {
		t.Error(diff)
	}
	if a.Merge(nil) != a || (*lb.Criteria)(nil).Merge(a) != a {
		t.Error("merging with nothing makes a copy")
	}
}

func TestSubsets_Allocs(t *testing.T) {
	b := lb.New(&lb.Config{Subsets: &lb.Subsets{Selectors: []lb.Selector{{Keys: []string{"version"}}}}}, lb.Env{Random: rand.Uint64})
	set, ctx := labelled(), &lb.Context{Criteria: lb.NewCriteria(map[string]any{"version": "1"})}
	if n := testing.AllocsPerRun(100, func() { b.Pick(set, ctx) }); n != 0 {
		t.Errorf("%v allocations a choice", n)
	}
}
