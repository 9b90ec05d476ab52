package cors

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"sidecar/api/stats"
	"sidecar/internal/config"
	"sidecar/internal/config/configtest"
	"sidecar/listener/filters/http/filtertest"
)

const policy = `{allow_origin_string_match: [{suffix: .a.com}], allow_methods: "GET,PUT", allow_headers: x-a,
	expose_headers: x-b, max_age: "60", allow_credentials: true, allow_private_network_access: true}`

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, configtest.Elsewhere{"envoy.type.matcher.v3.StringMatcher"}, fields, policyFields, config.RuntimeFractionFields)
}

func TestCORS(t *testing.T) {
	t.Parallel()
	const preflight, good = "access-control-request-method: PUT", "origin: http://x.a.com"
	for _, tc := range []struct {
		name, policy   string
		request        []string
		answered       bool
		reply, head    string
		valid, invalid uint64
	}{
		{name: "no origin", policy: policy, request: []string{":method: GET"}, head: ":status: 200\n"},
		{
			name: "plain request", policy: policy, request: []string{":method: GET", good}, valid: 1,
			head: ":status: 200\naccess-control-allow-origin: http://x.a.com\n" +
				"access-control-allow-credentials: true\naccess-control-expose-headers: x-b\n",
		},
		{
			name: "other origin", policy: policy, request: []string{":method: GET", "origin: http://b.com"}, invalid: 1,
			head: ":status: 200\n",
		},
		{
			name: "preflight", policy: policy, request: []string{":method: OPTIONS", good, preflight}, valid: 1, answered: true,
			reply: "access-control-allow-methods: GET,PUT\naccess-control-allow-headers: x-a\naccess-control-max-age: 60\n",
		},
		{
			name: "preflight of a private network", policy: policy, valid: 1, answered: true,
			request: []string{":method: OPTIONS", good, preflight, "access-control-request-private-network: true"},
			reply: "access-control-allow-methods: GET,PUT\naccess-control-allow-headers: x-a\n" +
				"access-control-max-age: 60\naccess-control-allow-private-network: true\n",
		},
		{
			name: "preflight of another origin", policy: policy, invalid: 1,
			request: []string{":method: OPTIONS", "origin: http://b.com", preflight}, head: ":status: 200\n",
		},
		{
			name: "preflight of another origin, kept", invalid: 1, answered: true,
			policy:  `{allow_origin_string_match: [{exact: a}], forward_not_matching_preflights: false}`,
			request: []string{":method: OPTIONS", "origin: b", preflight},
		},
		{
			name: "OPTIONS that is no preflight", policy: policy, request: []string{":method: OPTIONS", good}, valid: 1,
			head: ":status: 200\naccess-control-allow-origin: http://x.a.com\n" +
				"access-control-allow-credentials: true\naccess-control-expose-headers: x-b\n",
		},
		{
			name: "shadow", valid: 1, request: []string{":method: GET", "origin: a"}, head: ":status: 200\n",
			policy: `{allow_origin_string_match: [{exact: a}], filter_enabled: {default_value: {numerator: 0}},
				shadow_enabled: {default_value: {numerator: 100}}}`,
		},
		{
			name: "off by the runtime", request: []string{":method: GET", "origin: a"}, head: ":status: 200\n",
			policy: `{allow_origin_string_match: [{exact: a}],
				filter_enabled: {runtime_key: none, default_value: {numerator: 100}}}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			store := stats.New()
			entry := Entry(Env{Random: func() uint64 { return 0 }, Runtime: func(key string) (config.Fraction, bool) {
				return config.Fraction{Denominator: 100}, key == "none"
			}})
			factory, err := filtertest.Compile(t, entry, store, "{}")
			if err != nil {
				t.Fatal(err)
			}
			s := filtertest.NewStream()
			s.Policy = filtertest.CompileRoute(t, entry, tc.policy)
			f := factory.NewFilter(s)
			s.Request(f, filtertest.Fields(tc.request...), nil, nil)
			if answered := s.Replied != nil; answered != tc.answered {
				t.Fatalf("answered: %v", answered)
			}
			if tc.answered {
				h := filtertest.Fields()
				s.Replied.Headers(h)
				if diff := cmp.Diff(tc.reply, filtertest.Text(h)); diff != "" || s.Replied.Status != 200 {
					t.Errorf("status %d, headers (-want +got):\n%s", s.Replied.Status, diff)
				}
			} else {
				h := filtertest.Fields(":status: 200")
				s.Response(f, h, nil, nil)
				if diff := cmp.Diff(tc.head, filtertest.Text(h)); diff != "" {
					t.Errorf("response (-want +got):\n%s", diff)
				}
			}
			scope := store.Scope("cors")
			if v, i := scope.Counter("origin_valid").Value(), scope.Counter("origin_invalid").Value(); v != tc.valid || i != tc.invalid {
				t.Errorf("%d valid, %d invalid", v, i)
			}
			s.Destroy(f)
		})
	}
}

// TestCORS_ExposeOnPreflight has no expose-headers in the filter's own answer, as in Envoy.
func TestCORS_ExposeOnPreflight(t *testing.T) {
	t.Parallel()
	entry := Entry(Env{Random: func() uint64 { return 0 }})
	factory, err := filtertest.Compile(t, entry, stats.New(), "{}")
	if err != nil {
		t.Fatal(err)
	}
	s := filtertest.NewStream()
	s.Policy = filtertest.CompileRoute(t, entry, policy)
	f := factory.NewFilter(s)
	s.Request(f, filtertest.Fields(":method: OPTIONS", "origin: http://x.a.com", "access-control-request-method: PUT"), nil, nil)
	s.Record.Details = s.Replied.Details
	h := filtertest.Fields(":status: 200")
	s.Response(f, h, nil, nil)
	if filtertest.Text(h) != ":status: 200\naccess-control-allow-origin: http://x.a.com\naccess-control-allow-credentials: true\n" {
		t.Error(filtertest.Text(h))
	}
}
