package health

import (
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/go-cmp/cmp"

	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/cluster/host"
	"sidecar/internal/config"
)

func compileYAML(t *testing.T, yaml string, http2 bool) (*Config, error) {
	t.Helper()
	msg := &corev3.HealthCheck{}
	if _, err := config.Parse("test", config.YAML, []byte(yaml), msg, config.RejectUnknown); err != nil {
		t.Fatal(err)
	}
	var errs config.Errors
	c := Compile(config.Field("health_checks"), []*corev3.HealthCheck{msg}, http2, &errs)
	return c, errs.Err()
}

func mustCompile(t *testing.T, yaml string) *Config {
	t.Helper()
	c, err := compileYAML(t, yaml, true)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// step is a result and what the host is like after it.
type step struct {
	outcome outcome
	want    string
}

func TestJudge(t *testing.T) {
	t.Parallel()
	const failed, changed, pending = "failed_active_hc", "changed", "pending"
	for name, steps := range map[string][]step{
		"the first success counts": {{good, changed}, {good, ""}},
		"the first failure changes nothing": {
			{bad, failed}, {good, failed + " " + pending}, {good, failed + " " + pending}, {good, changed},
		},
		"an answer that is bad counts at once": {{good, changed}, {bad, failed + " " + changed}},
		"failures of the network": {
			{good, changed},
			{network, pending},
			{good, ""},
			{network, pending},
			{network, failed + " " + changed},
			{network, failed},
		},
		"statuses that may be tried again": {{good, changed}, {retriable, pending}, {retriable, failed + " " + changed}},
		"time": {
			{good, changed}, {timeout, pending}, {timeout, failed + " active_hc_timeout " + changed}, {bad, failed},
		},
		"degraded": {
			{degraded, "degraded " + changed},
			{degraded, "degraded"},
			{good, changed},
			{degraded, "degraded " + changed},
			{bad, failed + " degraded " + changed},
		},
		"passive": {{good, changed}, {passive, failed + " " + changed}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, hasChanged := stats.New(), false
			c := New(mustCompile(t, "{timeout: 1s, interval: 1s, unhealthy_threshold: 2, healthy_threshold: 3, tcp_health_check: {}}"), Env{
				Stats:   stats.Bind[Stats](store.Root()),
				Changed: func(*host.Host, bool) { hasChanged = true },
				Checked: func(*host.Host, bool) {},
			})
			h := host.New(stream.PipeAddr("a"), "", nil, &host.Attributes{})
			h.Set(host.FailedActiveHC)
			s := &session{c: c, host: h, first: true}
			for i, x := range steps {
				hasChanged = false
				isPending := s.judge(x.outcome)
				var got []string
				for _, f := range []struct {
					name string
					set  bool
				}{
					{failed, h.Has(host.FailedActiveHC)},
					{"degraded", h.Has(host.DegradedActiveHC)},
					{"active_hc_timeout", h.Has(host.ActiveHCTimeout)},
					{changed, hasChanged},
					{pending, isPending},
				} {
					if f.set {
						got = append(got, f.name)
					}
				}
				if diff := cmp.Diff(x.want, strings.Join(got, " ")); diff != "" {
					t.Errorf("step %d: %s", i, diff)
				}
			}
			up := int64(1)
			if h.Has(host.FailedActiveHC) {
				up = 0
			}
			if got := c.env.Stats.Healthy.Value(); got != up {
				t.Errorf("healthy: %d", got)
			}
		})
	}
}

func TestJudge_Pending(t *testing.T) {
	t.Parallel()
	changes := 0
	c := New(mustCompile(t, "{timeout: 1s, interval: 1s, unhealthy_threshold: 2, healthy_threshold: 3, tcp_health_check: {}}"), Env{
		Stats: &Stats{}, Changed: func(*host.Host, bool) { changes++ }, Checked: func(*host.Host, bool) {},
	})
	h := host.New(stream.PipeAddr("a"), "", nil, &host.Attributes{})
	h.Set(host.FailedActiveHC | host.PendingActiveHC)
	if !h.Excluded() {
		t.Error("not excluded before the first check")
	}
	(&session{c: c, host: h, first: true}).judge(network)
	if h.Excluded() || changes != 1 {
		t.Errorf("excluded after it, or %d changes", changes)
	}
}

func TestGap(t *testing.T) {
	t.Parallel()
	used := false
	c := New(mustCompile(t, `{timeout: 1s, interval: 2s, unhealthy_threshold: 2, healthy_threshold: 2, tcp_health_check: {},
		no_traffic_interval: 3s, no_traffic_healthy_interval: 4s, unhealthy_interval: 5s, unhealthy_edge_interval: 6s,
		healthy_edge_interval: 7s, interval_jitter: 1s, interval_jitter_percent: 50}`), Env{
		Used: func() bool { return used }, Random: func() uint64 { return 100 },
	})
	for _, tt := range []struct {
		used, healthy, pending bool
		want                   int
	}{
		{false, true, false, 4},
		{false, true, true, 3},
		{false, false, false, 3},
		{true, true, false, 2},
		{true, true, true, 7},
		{true, false, false, 5},
		{true, false, true, 6},
	} {
		used = tt.used
		if got := c.gap(tt.healthy, tt.pending); got != time.Duration(tt.want)*time.Second+200 {
			t.Errorf("%+v: %v", tt, got)
		}
	}
	c = New(mustCompile(t, "{timeout: 1s, interval: 2s, unhealthy_threshold: 2, healthy_threshold: 2, tcp_health_check: {}}"), c.env)
	used = false
	if got := c.gap(true, false); got != time.Minute {
		t.Errorf("%v without traffic", got)
	}
	used = true
	if got := c.gap(false, true); got != 2*time.Second {
		t.Errorf("%v by default", got)
	}
}

func TestMatches(t *testing.T) {
	t.Parallel()
	b := func(s ...string) (out [][]byte) {
		for _, x := range s {
			out = append(out, []byte(x))
		}
		return out
	}
	for _, tt := range []struct {
		patterns [][]byte
		text     string
		want     bool
	}{
		{nil, "", true},
		{b("a"), "xax", true},
		{b("a", "b"), "xabx", true},
		{b("b", "a"), "xabx", false},
		{b("aa", "a"), "aa", false},
		{b("a"), "", false},
	} {
		if got := matches(tt.patterns, []byte(tt.text)); got != tt.want {
			t.Errorf("%q in %q: %t", tt.patterns, tt.text, got)
		}
	}
}

func TestTurnstile(t *testing.T) {
	t.Parallel()
	x, run := NewTurnstile(2), 0
	for range 5 {
		x.enter(func() { run++ })
	}
	if run != 2 {
		t.Fatalf("%d run at a time", run)
	}
	for range 5 {
		if f := x.leave(); f != nil {
			f()
		}
	}
	if run != 5 || x.room != 2 {
		t.Errorf("%d ran, room for %d", run, x.room)
	}
}

func TestServing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		x    *exchange
		want outcome
	}{
		{"serving", &exchange{status: 200, grpc: "0", body: []byte{0, 0, 0, 0, 2, 8, 1}}, good},
		{"not serving", &exchange{status: 200, grpc: "0", body: []byte{0, 0, 0, 0, 2, 8, 2}}, bad},
		{"unknown", &exchange{status: 200, grpc: "0", body: []byte{0, 0, 0, 0, 0}}, bad},
		{"an error", &exchange{status: 200, grpc: "5", body: []byte{0, 0, 0, 0, 2, 8, 1}}, bad},
		{"no body", &exchange{status: 200, grpc: "0"}, bad},
		{"another length", &exchange{status: 200, grpc: "0", body: []byte{0, 0, 0, 0, 3, 8, 1}}, bad},
		{"a huge length", &exchange{status: 200, grpc: "0", body: []byte{0, 255, 255, 255, 255, 8, 1}}, bad},
		{"not found", &exchange{status: 404, grpc: "0", body: []byte{0, 0, 0, 0, 2, 8, 1}}, bad},
	} {
		if got := tt.x.serving(); got != tt.want {
			t.Errorf("%s: %d", tt.name, got)
		}
	}
	if diff := cmp.Diff([]byte{0, 0, 0, 0, 3, 0x0a, 1, 'x'}, grpcRequest("x")); diff != "" {
		t.Error(diff)
	}
}

func TestCompileErrors(t *testing.T) {
	t.Parallel()
	const times = "timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, "
	for yaml, want := range map[string]string{
		"{" + times + "tcp_health_check: {}, event_log_path: /x}":               "health_checks[0].event_log_path: is not supported",
		"{" + times + "tcp_health_check: {send: {text: xy}}}":                   "health_checks[0].tcp_health_check.send.text: invalid hex string: xy",
		"{" + times + "grpc_health_check: {}}":                                  "health_checks[0].grpc_health_check: cluster must support HTTP/2 for gRPC healthchecking",
		"{" + times + "http_health_check: {path: /, codec_client_type: HTTP3}}": "health_checks[0].http_health_check.codec_client_type: HTTP3 is not supported",
		"{" + times + "http_health_check: {path: /, expected_statuses: [{start: 99, end: 200}]}}": "health_checks[0].http_health_check.expected_statuses[0]: " +
			"Invalid http status range: expecting 100 <= start < end <= 600, but found start=99 and end=200",
		"{" + times + "http_health_check: {path: /, request_headers_to_add: [{header: {key: x, value: '%START_TIME%'}}]}}": "health_checks[0].http_health_check." +
			"request_headers_to_add[0].header: operators are not supported in the headers of a health check",
	} {
		if _, err := compileYAML(t, yaml, false); err == nil || err.Error() != want {
			t.Errorf("%s: %v, not %s", yaml, err, want)
		}
	}
}
