package rbac

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"sidecar/api/stats"
	"sidecar/internal/config/configtest"
	"sidecar/listener/filters/http/filtertest"
)

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, configtest.Elsewhere{
		"envoy.config.rbac.v3.RBAC", // internal/rbac
	}, fields, routeFields)
}

const (
	gets  = "{policies: {gets: {permissions: [{header: {name: ':method', string_match: {exact: GET}}}], principals: [{any: true}]}}}"
	posts = "{action: DENY, policies: {posts: {permissions: [{header: {name: ':method', string_match: {exact: POST}}}], principals: [{any: true}]}}}"
)

// TestFilter has the details, statistics and metadata of Envoy.
func TestFilter(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, config, route, method string
		denied                      string // details
		stats                       map[string]uint64
		metadata                    map[string]any
	}{
		{name: "no rules", config: "{}", method: "GET"},
		{
			name: "allowed", config: "{rules: " + gets + "}", method: "GET", stats: map[string]uint64{"allowed": 1},
			metadata: map[string]any{"enforced_engine_result": "allowed", "enforced_effective_policy_id": "gets"},
		},
		{
			name: "not allowed", config: "{rules: " + gets + "}", method: "POST",
			denied: "rbac_access_denied_matched_policy[none]", stats: map[string]uint64{"denied": 1},
			metadata: map[string]any{"enforced_engine_result": "denied"},
		},
		{
			name: "denied", config: "{rules: " + posts + ", track_per_rule_stats: true}", method: "POST",
			denied: "rbac_access_denied_matched_policy[posts]", stats: map[string]uint64{"denied": 1, "policy.posts.denied": 1},
			metadata: map[string]any{"enforced_engine_result": "denied", "enforced_effective_policy_id": "posts"},
		},
		{
			name: "shadow", method: "POST",
			config:   "{shadow_rules: " + gets + ", shadow_rules_stat_prefix: x_}",
			stats:    map[string]uint64{"x_shadow_denied": 1},
			metadata: map[string]any{"x_shadow_engine_result": "denied"},
		},
		{
			name: "a route without rules", config: "{rules: " + gets + "}", route: "{}", method: "POST",
		},
		{
			name: "a route's own", config: "{rules: " + gets + "}", route: "{rbac: {rules: " + posts + "}}", method: "PUT",
			stats:    map[string]uint64{"allowed": 1},
			metadata: map[string]any{"enforced_engine_result": "allowed"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			store, entry := stats.New(), Entry()
			factory, err := filtertest.Compile(t, entry, store, tc.config)
			if err != nil {
				t.Fatal(err)
			}
			s := filtertest.NewStream()
			if tc.route != "" {
				s.Policy = filtertest.CompileRoute(t, entry, tc.route)
			}
			f := factory.NewFilter(s)
			s.Request(f, filtertest.Fields(":method: "+tc.method), nil, nil)
			s.Destroy(f)
			if r := s.Replied; (r != nil) != (tc.denied != "") {
				t.Fatalf("reply %+v", r)
			} else if r != nil && (r.Status != 403 || r.Body != "RBAC: access denied" || r.Details != tc.denied) {
				t.Errorf("reply %+v", r)
			}
			for name, want := range tc.stats {
				if got := store.Scope("rbac").Counter(name).Value(); got != want {
					t.Errorf("%s: %d, want %d", name, got, want)
				}
			}
			if diff := cmp.Diff(tc.metadata, s.Record.Metadata[Name]); diff != "" {
				t.Errorf("metadata (-want +got):\n%s", diff)
			}
		})
	}
}
