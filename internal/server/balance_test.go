package server_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// balanced is a bootstrap with a listener "l" whose route has these options, and a cluster "c" of the
// hosts with these.
func balanced(route, cluster string, hosts ...string) string {
	var endpoints strings.Builder
	for _, h := range hosts {
		fmt.Fprintf(&endpoints, "{endpoint: {address: %s}},", socketAddress(h))
	}
	yaml := versions(hosts[0], false, "")
	yaml = strings.Replace(yaml, "route: {cluster: c}", "route: {cluster: c"+route+"}", 1)
	yaml = strings.Replace(yaml, "- name: c\n", "- name: c\n"+cluster, 1)
	return strings.Replace(yaml, "{endpoint: {address: "+socketAddress(hosts[0])+"}}", endpoints.String(), 1)
}

// unsteady answers 500 where the path says so, else with its name.
func unsteady(t *testing.T, name string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "fail") {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.WriteString(w, name)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestOutlierDetection(t *testing.T) {
	t.Parallel()
	a, b := unsteady(t, "a"), unsteady(t, "b")
	p := live(t, balanced("", `
    outlier_detection: {consecutive_5xx: 2, max_ejection_percent: 50, interval: 0.2s, base_ejection_time: 0.5s}
`, a, b))
	l := p.listener("l")
	for range 4 {
		if got := p.get(l, "/fail").status; got != 500 {
			t.Fatalf("status %d", got)
		}
	}
	p.waitStat("cluster.c.outlier_detection.ejections_active", 1)
	page := p.adminGet("/clusters")
	if n := strings.Count(page, "::health_flags::/failed_outlier_check\n"); n != 1 {
		t.Errorf("%d hosts are ejected in\n%s", n, page)
	}
	if !strings.Contains(page, "c::outlier::success_rate_average::-1\n") {
		t.Errorf("no summary in\n%s", page)
	}
	if got := p.stat("cluster.c.membership_healthy"); got != 1 {
		t.Errorf("%d healthy", got)
	}
	seen := map[string]bool{}
	for range 6 {
		seen[p.get(l, "/").body] = true
	}
	if len(seen) != 1 {
		t.Errorf("answers of %v with one host ejected", seen)
	}
	p.wait("the host to be taken back", func() bool {
		return p.stat("cluster.c.outlier_detection.ejections_active") == 0
	})
	for range 6 {
		seen[p.get(l, "/").body] = true
	}
	if len(seen) != 2 || p.stat("cluster.c.outlier_detection.ejections_enforced_total") != 1 {
		t.Errorf("answers of %v", seen)
	}
}

// TestConsistentHashing keeps a client at its host by a cookie that it is given.
func TestConsistentHashing(t *testing.T) {
	t.Parallel()
	for policy, stat := range map[string]string{
		"RING_HASH": "cluster.c.ring_hash_lb.size", "MAGLEV": "cluster.c.maglev_lb.max_entries_per_host",
	} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			var hosts []string
			for _, name := range []string{"a", "b", "c", "d"} {
				hosts = append(hosts, upstream(t, name))
			}
			p := live(t, balanced(", hash_policy: [{header: {header_name: x-user}, terminal: true}, {cookie: {name: at, ttl: 60s, path: /}}]",
				"    lb_policy: "+policy+"\n", hosts...))
			l := p.listener("l")
			ask := func(name, value string) (body, cookie string) {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l+"/", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				if name != "" {
					req.Header.Set(name, value)
				}
				res, err := noReuse(t).RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				b, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatal(err)
				}
				return string(b), res.Header.Get("Set-Cookie")
			}
			first, cookie := ask("", "")
			value, rest, _ := strings.Cut(cookie, ";")
			if rest != " Max-Age=60; Path=/; HttpOnly" {
				t.Errorf("cookie %q", cookie)
			}
			users := map[string]bool{}
			for i := range 24 {
				if body, again := ask("Cookie", value); body != first || again != "" {
					t.Errorf("%q, not %q, and cookie %q", body, first, again)
				}
				one, _ := ask("X-User", fmt.Sprint(i))
				two, _ := ask("X-User", fmt.Sprint(i))
				if users[one] = true; one != two {
					t.Errorf("user %d is at %s and %s", i, one, two)
				}
			}
			if len(users) < 3 || p.stat(stat) == 0 {
				t.Errorf("users are at %v, %s is %d", users, stat, p.stat(stat))
			}
		})
	}
}

// TestOmitHosts: a retry goes to no canary, and to no host with the labels.
func TestOmitHosts(t *testing.T) {
	t.Parallel()
	for _, predicate := range []string{
		`{name: envoy.retry_host_predicates.omit_canary_hosts}`,
		`{name: x, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig, ` +
			`metadata_match: {filter_metadata: {envoy.lb: {canary: true}}}}}`,
	} {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			a, b, c := unsteady(t, "a"), unsteady(t, "b"), unsteady(t, "c")
			yaml := balanced(", retry_policy: {retry_on: 5xx, num_retries: 1, host_selection_retry_max_attempts: 50, retry_host_predicate: ["+predicate+"]}",
				"    lb_policy: RANDOM\n", a, b, c)
			for _, canary := range []string{a, b} {
				yaml = strings.Replace(yaml, "{endpoint: {address: "+socketAddress(canary)+"}}",
					"{endpoint: {address: "+socketAddress(canary)+"}, metadata: {filter_metadata: {envoy.lb: {canary: true}}}}", 1)
			}
			p := live(t, yaml)
			for range 20 {
				if got := p.get(p.listener("l"), "/fail"); got.body != "c" {
					t.Fatalf("retried at %q", got.body)
				}
			}
		})
	}
}

// TestSubsets sends requests to the hosts whose labels the route asks for, or one of its clusters.
func TestSubsets(t *testing.T) {
	t.Parallel()
	a, b := upstream(t, "a"), upstream(t, "b")
	yaml := balanced("", `
    lb_subset_config: {fallback_policy: ANY_ENDPOINT, subset_selectors: [{keys: [v]}, {keys: [v, w]}]}
`, a, b)
	for name, addr := range map[string]string{"1": a, "2": b} {
		yaml = strings.Replace(yaml, "{endpoint: {address: "+socketAddress(addr)+"}}",
			"{endpoint: {address: "+socketAddress(addr)+"}, metadata: {filter_metadata: {envoy.lb: {v: '"+name+"', w: x}}}}", 1)
	}
	match := func(values string) string { return "metadata_match: {filter_metadata: {envoy.lb: {" + values + "}}}" }
	yaml = strings.Replace(yaml, "routes: [", `routes: [
      {match: {path: /one}, route: {cluster: c, `+match("v: '1'")+`}},
      {match: {path: /two}, route: {`+match("v: '2'")+`, weighted_clusters: {clusters: [{name: c, weight: 1, `+match("w: x")+`}]}}},`, 1)
	p := live(t, yaml)
	l := p.listener("l")
	seen := map[string]bool{}
	for range 10 {
		if got := p.get(l, "/one").body; got != "a" {
			t.Fatalf("%q for the first", got)
		}
		if got := p.get(l, "/two").body; got != "b" {
			t.Fatalf("%q for the second", got)
		}
		seen[p.get(l, "/").body] = true
	}
	if len(seen) != 2 || p.stat("cluster.c.lb_subsets_selected") != 20 || p.stat("cluster.c.lb_subsets_fallback") != 10 {
		t.Errorf("answers of %v, %s", seen, p.adminGet("/stats?filter=lb_subsets"))
	}
}
