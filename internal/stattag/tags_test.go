package stattag

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sidecar/api/stats"
)

func series(r *Rules, name string) string {
	extracted, tags := r.Extract(name, nil)
	return MetricName(extracted) + "{" + string(AppendLabels(nil, tags)) + "}"
}

func lines(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// TestAsEnvoy holds stats and the Prometheus series that Envoy 1.40 listed for them, with a
// configuration whose names were chosen to try the rules.
func TestAsEnvoy(t *testing.T) {
	t.Parallel()
	r := New(true, nil)
	for _, line := range lines(t, "testdata/envoy-1.40.txt") {
		name, want, _ := strings.Cut(line, "\t")
		if got := series(r, name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	regex := func(name, s string) Rule { return Rule{Name: name, Regex: regexp.MustCompile(s)} }
	for name, tt := range map[string]struct {
		defaults bool
		rules    []Rule
		in, want string
	}{
		"no rules":           {false, nil, "cluster.a.upstream_rq_200", "envoy_cluster_a_upstream_rq_200{}"},
		"istio cluster":      {false, []Rule{regex("cluster_name", `^cluster(\.(.+);)`)}, "cluster.outbound|80||a.b;.upstream_cx_active", `envoy_cluster_upstream_cx_active{cluster_name="outbound|80||a.b"}`},
		"istio code":         {false, []Rule{regex("response_code", `_rq(_(\d{3}))$`)}, "cluster.x;.upstream_rq_503", `envoy_cluster_x__upstream_rq{response_code="503"}`},
		"one group":          {false, []Rule{regex("cache", `(cache\.)`)}, "a.cache.b", `envoy_a_b{cache="cache."}`},
		"no group":           {false, []Rule{regex("cache", `cache`)}, "a.cache.b", `envoy_a_cache_b{}`},
		"group without part": {false, []Rule{regex("x", `^a(\.z)?`)}, "a.b", `envoy_a_b{x=""}`},
		"fixed":              {false, []Rule{{Name: "pod", Fixed: `p"1`}}, "a.b", `envoy_a_b{pod="p\"1"}`},
		"default by name":    {false, []Rule{{Name: "envoy.cluster_name"}}, "cluster.a.upstream_rq_200", `envoy_cluster_upstream_rq_200{envoy_cluster_name="a"}`},
		"overlapping":        {false, []Rule{regex("a", `(b\.c)`), regex("d", `(c\.d)`)}, "a.b.c.d.e", `envoy_a__e{a="b.c",d="c.d"}`},
		"twice":              {true, []Rule{regex("envoy.cluster_name", `(x)`)}, "cluster.a.x", `envoy_cluster_{envoy_cluster_name="x"}`},
		"custom namespace":   {true, nil, "wasmcustom.istio_requests_total", "istio_requests_total{}"},
		"last token":         {true, nil, "cluster.a", "envoy_cluster_a{}"},
		"digit":              {true, nil, "wasmcustom.2x", "_2x{}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := series(New(tt.defaults, tt.rules), tt.in); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestScopeTagsComeFirst(t *testing.T) {
	t.Parallel()
	own := []stats.Tag{{Name: "envoy.cluster_name", Value: "own"}}
	name, tags := New(true, nil).Extract("cluster.a.b", own)
	if diff := cmp.Diff(own, tags); diff != "" || name != "cluster.b" {
		t.Error(name, diff)
	}
}

func FuzzExtract(f *testing.F) {
	for _, s := range []string{
		"", ".", "..", "cluster", "cluster.", "cluster..", "cluster.a.b", "a.http_local_rate_limit.x",
		"mongo.a.collection.b.callsite.c.query.x", "mongo.a.collection.b.query.x.y", "_rq_200", "x_rq_2xx",
		"listener.[__1]_80.worker_1.x", "listener.1.2.3.4_80.http.a.downstream_rq_2xx", "vhost.a.route.b.c",
		"http.a.rds.b.c.d", "cluster.a.ssl.ciphers.X", "\xff.\x00", "wasmcustom.", "sds.a.b", "auth.clientssl.a.b",
	} {
		f.Add(s)
	}
	r := New(true, nil)
	f.Fuzz(func(t *testing.T, name string) {
		extracted, tags := r.Extract(name, nil)
		if len(extracted) > len(name) {
			t.Errorf("%q grew to %q", name, extracted)
		}
		metric := MetricName(extracted)
		if Sanitize(metric) != metric {
			t.Errorf("%q is not a metric name", metric)
		}
		AppendLabels(nil, tags)
	})
}
