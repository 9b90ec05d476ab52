package router

import (
	"net"
	"strings"
	"testing"
	"time"

	"sidecar/api/stream"
)

// deadPort is a port that nobody listens on.
func deadPort(tb testing.TB) string {
	tb.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	return port
}

// TestRetryConditions plays every condition against what it is for and what it is not for.
func TestRetryConditions(t *testing.T) {
	t.Parallel()
	status := func(code string, lines ...string) func(u *upstream) {
		return func(u *upstream) { u.headers(true, code, lines...) }
	}
	fails := func(reason stream.Reason) func(u *upstream) {
		return func(u *upstream) { u.fail(reason, stream.UpstreamConnectionTermination) }
	}
	grpc := func(code string) func(u *upstream) { return status("200", "grpc-status: "+code) }
	for name, c := range map[string]struct {
		policy string
		head   []string
		play   func(u *upstream)
		want   bool
	}{
		"5xx, 500":               {"retry_on: 5xx", nil, status("500"), true},
		"5xx, 404":               {"retry_on: 5xx", nil, status("404"), false},
		"5xx, reset":             {"retry_on: 5xx", nil, fails(stream.ReasonRemoteReset), true},
		"5xx, ratelimited":       {"retry_on: 5xx", nil, status("503", "x-envoy-ratelimited: true"), false},
		"5xx, overloaded":        {"retry_on: 5xx", nil, status("503", "x-envoy-overloaded: true"), false},
		"envoy-ratelimited":      {"retry_on: envoy-ratelimited", nil, status("429", "x-envoy-ratelimited: true"), true},
		"gateway-error, 502":     {"retry_on: gateway-error", nil, status("502"), true},
		"gateway-error, 500":     {"retry_on: gateway-error", nil, status("500"), false},
		"reset":                  {"retry_on: reset", nil, fails(stream.ReasonConnectionTermination), true},
		"reset, 503":             {"retry_on: reset", nil, status("503"), false},
		"connect-failure, reset": {"retry_on: connect-failure", nil, fails(stream.ReasonConnectionTermination), false},
		"refused-stream":         {"retry_on: refused-stream", nil, fails(stream.ReasonRemoteRefusedStream), true},
		"refused-stream, reset":  {"retry_on: refused-stream", nil, fails(stream.ReasonRemoteReset), false},
		"retriable-4xx, 409":     {"retry_on: retriable-4xx", nil, status("409"), true},
		"retriable-4xx, 404":     {"retry_on: retriable-4xx", nil, status("404"), false},
		"codes":                  {"retry_on: retriable-status-codes, retriable_status_codes: [418]", nil, status("418"), true},
		"codes, another":         {"retry_on: retriable-status-codes, retriable_status_codes: [418]", nil, status("419"), false},
		"codes by header":        {"retry_on: retriable-status-codes", []string{"x-envoy-retriable-status-codes: 1, 418"}, status("418"), true},
		"headers":                {"retry_on: retriable-headers, retriable_headers: [{name: x, present_match: true}]", nil, status("200", "x: 1"), true},
		"headers, missing":       {"retry_on: retriable-headers, retriable_headers: [{name: x, present_match: true}]", nil, status("200"), false},
		"cancelled":              {"retry_on: cancelled", nil, grpc("1"), true},
		"deadline-exceeded":      {"retry_on: deadline-exceeded", nil, grpc("4"), true},
		"internal":               {"retry_on: internal", nil, grpc("13"), true},
		"resource-exhausted":     {"retry_on: resource-exhausted", nil, grpc("8"), true},
		"unavailable":            {"retry_on: unavailable", nil, grpc("14"), true},
		"unavailable, 13":        {"retry_on: unavailable", nil, grpc("13"), false},
		"by header":              {"", []string{"x-envoy-retry-on: 5xx"}, status("500"), true},
		"by grpc header":         {"", []string{"x-envoy-retry-grpc-on: unavailable"}, grpc("14"), true},
		"no retries by header":   {"retry_on: 5xx", []string{"x-envoy-max-retries: 0"}, status("500"), false},
		"request header missing": {"retry_on: 5xx, retriable_request_headers: [{name: x, present_match: true}]", nil, status("500"), false},
		"request header there":   {"retry_on: 5xx, retriable_request_headers: [{name: x, present_match: true}]", []string{"x: 1"}, status("500"), true},
		"none":                   {"num_retries: 3", nil, status("500"), false},
		"zero":                   {"retry_on: 5xx, num_retries: 0", nil, status("500"), false},
		"overflow":               {"retry_on: 5xx", nil, fails(stream.ReasonOverflow), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			action := "{cluster: c}"
			if c.policy != "" {
				action = "{cluster: c, retry_policy: {" + c.policy + "}}"
			}
			r := newRig(t, action)
			r.request(true, c.head...)
			u := r.next()
			c.play(u)
			if got := r.armed(deadlineBackoff) != 0; got != c.want {
				t.Fatalf("retried: %t\n%s", got, r.take())
			}
			if !c.want {
				r.destroy()
				return
			}
			r.fire(deadlineBackoff)
			v := r.next()
			if v.value("x-envoy-attempt-count") != "2" || v.value("x-envoy-is-timeout-retry") != "false" {
				t.Errorf("attempt %q, after a timeout %q", v.value("x-envoy-attempt-count"), v.value("x-envoy-is-timeout-retry"))
			}
			r.take()
			v.headers(true, "200")
			r.want("down.headers 200 end")
			if r.stat("cluster.c.upstream_rq_retry") != 1 || r.stat("cluster.c.upstream_rq_retry_success") != 1 {
				t.Error("not counted")
			}
			r.destroy()
		})
	}
}

func TestRetryConnectFailure(t *testing.T) {
	t.Parallel()
	r := newRig(t, "{cluster: dead, retry_policy: {retry_on: connect-failure, num_retries: 2}}", oneHost("dead", deadPort(t)))
	r.request(true)
	for range 2 {
		deadline := time.Now().Add(wait)
		for r.armed(deadlineBackoff) == 0 && time.Now().Before(deadline) {
			r.inside(func(*stream.Turn) {})
		}
		r.fire(deadlineBackoff)
	}
	deadline := time.Now().Add(wait)
	got := ""
	for got == "" && time.Now().Before(deadline) {
		r.inside(func(*stream.Turn) {})
		got = r.take()
	}
	if !strings.HasPrefix(got, "reply 503 URX,UF ") || !strings.Contains(r.body, "retried and the latest reset reason") {
		t.Errorf("%s %q", got, r.body)
	}
	if r.stat("cluster.dead.upstream_rq_retry_limit_exceeded") != 1 {
		t.Error("limit not counted")
	}
	r.destroy()
}

func TestBackOff(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		policy string
		random uint64
		want   []time.Duration
		lines  []string
	}{
		// Fully jittered: random mod 25, 50 and 100 ms... up to ten times the base.
		"default": {"", 1<<62 + 17, nil, nil},
		"base":    {", retry_back_off: {base_interval: 0.001s, max_interval: 0.003s}", 999_999, []time.Duration{999_999, 999_999, 999_999}, nil},
		"limit":   {", retry_back_off: {base_interval: 0.001s, max_interval: 0.001s}", 3_999_999, []time.Duration{999_999, time.Millisecond}, nil},
		"header":  {", rate_limited_retry_back_off: {reset_headers: [{name: reset, format: SECONDS}]}", 0, []time.Duration{3 * time.Second}, []string{"reset: 3"}},
		"header that asks for too much": {
			", rate_limited_retry_back_off: {max_interval: 1s, reset_headers: [{name: reset, format: SECONDS}]}", 24_000_000,
			[]time.Duration{24 * time.Millisecond},
			[]string{"reset: 3"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "{cluster: c, retry_policy: {retry_on: 5xx, num_retries: 9"+c.policy+"}}")
			r.random.Store(c.random)
			r.request(true)
			for i := range max(len(c.want), 4) {
				r.next().headers(true, "503", c.lines...)
				d := r.armed(deadlineBackoff)
				if i < len(c.want) && d != c.want[i] {
					t.Errorf("retry %d after %s, want %s", i+1, d, c.want[i])
				}
				if limit := 250 * time.Millisecond; d <= 0 || len(c.want) == 0 && d > limit {
					t.Errorf("retry %d after %s", i+1, d)
				}
				r.fire(deadlineBackoff)
			}
			r.next()
			r.destroy()
		})
	}
}

func TestPerTryTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, "{cluster: c, retry_policy: {retry_on: 5xx, per_try_timeout: 1s, per_try_idle_timeout: 0.5s}}")
	r.request(true)
	r.next()
	r.take()
	r.fire(deadlineTry)
	r.want("up.reset")
	r.fire(deadlineBackoff)
	u := r.next()
	if u.value("x-envoy-is-timeout-retry") != "true" {
		t.Error("not said to be one after a timeout")
	}
	r.take()
	r.fire(deadlineTryIdle)
	r.want("up.reset", "reply 504 URX,UT upstream_per_try_idle_timeout")
	if r.stat("cluster.c.upstream_rq_per_try_timeout") != 1 || r.stat("cluster.c.upstream_rq_per_try_idle_timeout") != 1 {
		t.Error("not counted")
	}
	r.destroy()
}

func TestPreviousHosts(t *testing.T) {
	t.Parallel()
	r := newRig(t, `{cluster: c, retry_policy: {retry_on: 5xx, num_retries: 3, host_selection_retry_max_attempts: 9,
  retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]}}`,
		"{name: c, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: ["+endpoint("#")+", "+endpoint("@")+"]}]}}")
	r.request(true)
	seen := map[string]int{}
	for range 2 {
		u := r.next()
		seen[u.conn.Net().RemoteAddr().String()]++
		u.headers(true, "503")
		r.fire(deadlineBackoff)
	}
	r.next()
	r.destroy()
	for addr, n := range seen {
		if n > 1 {
			t.Errorf("%s was asked %d times", addr, n)
		}
	}
}

func TestBodyReplay(t *testing.T) {
	t.Parallel()
	r := newRig(t, "{cluster: c, retry_policy: {retry_on: 5xx}}")
	r.request(false, ":method: POST")
	u := r.next()
	r.data("one ", false)
	r.data("two", true)
	u.headers(true, "503")
	r.take()
	r.fire(deadlineBackoff)
	v := r.next()
	v.headers(true, "200")
	r.want("up.headers", "up.data one two end", "down.headers 200 end")
	r.destroy()

	r = newRig(t, "{cluster: c, retry_policy: {retry_on: 5xx}}")
	r.request(false, ":method: POST")
	u = r.next()
	r.inside(func(*stream.Turn) { r.filter.bodyLimit = 4 })
	r.data("12345", true)
	u.headers(true, "503")
	r.want("up.headers", "up.data 12345 end", "down.headers 503 end")
	if r.stat("cluster.c.retry_or_shadow_abandoned") != 1 {
		t.Error("not counted")
	}
	r.destroy()
}

func TestRetryBreaker(t *testing.T) {
	t.Parallel()
	r := newRig(t, "{cluster: c, retry_policy: {retry_on: 5xx}}",
		strings.TrimSuffix(oneHost("c", "@"), "}")+", circuit_breakers: {thresholds: [{max_retries: 0}]}}")
	r.request(true)
	r.next().headers(true, "503")
	r.want("up.headers end", "down.headers 503 end")
	if r.stat("cluster.c.upstream_rq_retry_overflow") != 1 || r.info.Flags != stream.UpstreamOverflow {
		t.Errorf("overflow %d, flags %s", r.stat("cluster.c.upstream_rq_retry_overflow"), r.info.Flags)
	}
	r.destroy()
}

func TestMirror(t *testing.T) {
	t.Parallel()
	r := newRig(t, "{cluster: c, request_mirror_policies: [{cluster: m}, {cluster: gone}]}", oneHost("c", "@"), oneHost("m", "@"))
	r.request(false, ":method: POST")
	u := r.next()
	r.data("body", true)
	m := <-r.streams
	<-m.headed
	if m.value(":authority") != "a-shadow:1" || m.value("x-envoy-internal") != "true" || m.value("x-forwarded-for") != "10.9.9.9" {
		t.Errorf("host %q, internal %q, xff %q", m.value(":authority"), m.value("x-envoy-internal"), m.value("x-forwarded-for"))
	}
	if u.value(":authority") != "a:1" || u.value("x-envoy-internal") != "" {
		t.Error("the request itself was changed")
	}
	r.take()
	m.headers(true, "500")
	u.headers(true, "200")
	r.want("down.headers 200 end")
	if r.stat("cluster.m.upstream_rq_500") != 1 || r.stat("cluster.m.internal.upstream_rq_5xx") != 1 {
		t.Error("not counted")
	}
	r.destroy()
	// The main request ends first; the copy that never gets an answer holds nothing up.
	r.request(true)
	u = r.next()
	if u.conn == m.conn {
		u = r.next()
	}
	u.headers(true, "200")
	r.destroy()
}
