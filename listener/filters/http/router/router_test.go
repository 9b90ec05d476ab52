package router

import (
	"strings"
	"testing"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/config/configtest"
)

func TestFieldsAccounted(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, fields)
}

func TestForward(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.request(false)
	u := r.next()
	r.data("x", false)
	r.data("y", true)
	u.headers(false, "200")
	u.data("z", false)
	u.post(stream.Event{Kind: stream.EventTrailers, Map: &header.Map{}})
	r.destroy()
	r.want("up.headers", "up.data x", "up.data y end", "down.headers 200", "down.data z", "down.trailers")
	for name, want := range map[string]int64{
		"http.x.rq_total": 1, "cluster.c.upstream_rq_200": 1, "cluster.c.external.upstream_rq_2xx": 1,
		"cluster.c.upstream_rq_total": 1, "cluster.c.upstream_cx_active": 1,
	} {
		if got := r.stat(name); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	// The connection is used again.
	r.request(true)
	if r.next() != u || u.begun != 2 {
		t.Error("another connection")
	}
	u.headers(true, "204")
	r.destroy()
}

// TestBodyBeforeTheConnection keeps what comes while there is no connection yet, and its source stops
// at the limit.
func TestBodyBeforeTheConnection(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	// Inside the stream no event of the pool is handled.
	r.inside(func(t *stream.Turn) {
		h := &header.Map{}
		h.AddID(header.Authority, "a")
		h.AddID(header.Path, "/")
		h.AddID(header.Method, "POST")
		h.Add("x-forwarded-proto", "http")
		r.info.Reset(t.Now(), &stream.ConnInfo{})
		r.info.Request = h
		r.entry = r.table.Match(h, &r.info, 0)
		r.info.Cluster = "c"
		r.filter, _ = r.cfg.NewTerminal(r).(*Filter)
		r.filter.OnRequestHeaders(t, h, false)
		r.filter.bodyLimit = 4
		var b buf.Buffer
		b.AppendString("123")
		r.filter.OnRequestData(t, &b, false)
		b.Reset()
		b.AppendString("45")
		r.filter.OnRequestData(t, &b, false)
		b.Reset()
	})
	u := r.next()
	r.data("6", true)
	r.want("pause true", "up.headers", "up.data 12345", "pause false", "up.data 6 end")
	u.headers(true, "200")
	r.destroy()
}

func TestBackPressure(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.request(false)
	u := r.next()
	u.setFull(true)
	r.data("x", false)
	u.setFull(false)
	u.post(stream.Event{Kind: stream.EventDrained})
	r.data("", true)
	u.headers(false, "200")
	r.inside(func(t *stream.Turn) { r.filter.OnResponseFull(t) })
	r.inside(func(t *stream.Turn) { r.filter.OnResponseDrained(t) })
	u.data("y", true)
	r.destroy()
	r.want("up.headers", "up.data x", "pause true", "pause false", "up.data  end", "down.headers 200", "up.pause true",
		"up.pause false", "down.data y end")
}

// TestAbort: the client goes away in each phase; the upstream hears of it.
func TestAbort(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.inside(func(t *stream.Turn) { // while connecting: no event of the pool is handled in here
		r.begin(t, true)
		r.end(t)
	})
	r.want("")
	r.request(true)
	r.next()
	r.destroy()
	r.want("up.headers end", "up.reset")
	r.request(true)
	u := r.next()
	u.headers(false, "200")
	r.destroy()
	r.want("up.headers end", "down.headers 200", "up.reset")
	// Whole response, request still coming: the connection can't be used again.
	r.mu.Lock()
	r.committed = false
	r.mu.Unlock()
	r.request(false)
	u = r.next()
	u.headers(true, "200")
	r.destroy()
	r.want("up.headers", "down.headers 200 end", "up.reset")
	u.data("late", true) // an event of an attempt that is over
	r.mon.Retire()
}

func TestNoUpstream(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		action string
		want   string
		body   string
	}{
		"unknown cluster":      {"{cluster: x}", "reply 503 NC cluster_not_found", ""},
		"unknown cluster, 404": {"{cluster: x, cluster_not_found_response_code: NOT_FOUND}", "reply 404 NC cluster_not_found", ""},
		"cluster header, none": {"{cluster_header: x-c}", "reply 503 NC cluster_not_found", ""},
		"no hosts":             {"{cluster: empty}", "reply 503 UH no_healthy_upstream", "no healthy upstream"},
		"refused":              {"{cluster: dead}", "reply 503 UF upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}", "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"},
		"no requests may be":   {"{cluster: none}", "reply 503 UO upstream_reset_before_response_started{overflow}", "upstream connect error or disconnect/reset before headers. reset reason: overflow"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.action, oneHost("dead", deadPort(t)), "{name: empty}",
				strings.TrimSuffix(oneHost("none", "@"), "}")+", circuit_breakers: {thresholds: [{max_pending_requests: 0}]}}")
			r.request(true)
			deadline := time.Now().Add(wait)
			got := r.take()
			for got == "" && time.Now().Before(deadline) {
				r.inside(func(*stream.Turn) {})
				got = r.take()
			}
			if got != c.want || r.body != c.body {
				t.Errorf("%s, %q\nwant %s, %q", got, r.body, c.want, c.body)
			}
			r.destroy()
		})
	}
	r := newRig(t, "")
	r.inside(func(t *stream.Turn) {
		h := &header.Map{}
		r.info.Reset(t.Now(), &stream.ConnInfo{})
		f, _ := r.cfg.NewTerminal(r).(*Filter)
		r.filter = f
		f.OnRequestHeaders(t, h, true)
	})
	r.want("reply 404 NR route_not_found")
	r.destroy()
}

func TestFailures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		reason stream.Reason
		flag   stream.Flag
		want   string
		body   string
	}{
		"ended":    {stream.ReasonConnectionTermination, stream.UpstreamConnectionTermination, "reply 503 UC upstream_reset_before_response_started{connection_termination}", "connection termination"},
		"reset":    {stream.ReasonRemoteReset, stream.UpstreamRemoteReset, "reply 503 UR upstream_reset_before_response_started{remote_reset}", "remote reset"},
		"protocol": {stream.ReasonProtocolError, stream.UpstreamProtocolError, "reply 502 UPE upstream_reset_before_response_started{protocol_error}", "protocol error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			r.request(true)
			u := r.next()
			r.take()
			u.fail(c.reason, c.flag)
			r.want(c.want)
			if want := "upstream connect error or disconnect/reset before headers. reset reason: " + c.body; r.body != want {
				t.Errorf("body %q", r.body)
			}
			r.destroy()
		})
	}
	// A fault that says how to answer.
	r := newRig(t, "{cluster: c, retry_policy: {retry_on: '5xx,reset'}}")
	r.request(true)
	u := r.next()
	r.take()
	u.post(stream.Event{Kind: stream.EventReset, Fault: &stream.Fault{
		Status: 503, Details: "filter_removed_required_request_headers", Body: "missing", Flag: stream.LocalReset,
	}})
	r.want("reply 503 LR filter_removed_required_request_headers")
	if r.body != "missing" {
		t.Errorf("body %q", r.body)
	}
	r.destroy()
	r = newRig(t, "")
	r.request(true)
	u = r.next()
	u.headers(false, "200")
	r.take()
	u.fail(stream.ReasonConnectionTermination, stream.UpstreamConnectionTermination)
	r.want("reset UC upstream_reset_after_response_started{connection_termination}")
	r.destroy()
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	r := newRig(t, "{cluster: c, timeout: 2s}")
	r.request(false)
	r.next()
	if r.armed(deadlineRoute) != 0 {
		t.Error("runs before the request is complete")
	}
	r.data("", true)
	if d := r.armed(deadlineRoute); d != 2*time.Second {
		t.Errorf("armed for %s", d)
	}
	r.take()
	r.fire(deadlineRoute)
	r.want("up.reset", "reply 504 UT response_timeout")
	if r.body != "upstream request timeout" || r.stat("cluster.c.upstream_rq_timeout") != 1 || r.stat("cluster.c.upstream_rq_504") != 1 {
		t.Errorf("body %q", r.body)
	}
	r.destroy()
	// After the head no code is counted for it.
	r = newRig(t, "{cluster: c, timeout: 2s}")
	r.request(true)
	r.next().headers(false, "200")
	r.fire(deadlineRoute)
	if r.stat("cluster.c.upstream_rq_504") != 0 {
		t.Error("504 counted")
	}
	r.destroy()
}

func TestTimeoutHeaders(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		action            string
		head              []string
		route, try        time.Duration
		expected, grpcOut string
	}{
		"default":           {"{cluster: c}", nil, 15 * time.Second, 0, "15000", ""},
		"none":              {"{cluster: c, timeout: 0s}", nil, 0, 0, "", ""},
		"header":            {"{cluster: c}", []string{"x-envoy-upstream-rq-timeout-ms: 70"}, 70 * time.Millisecond, 0, "70", ""},
		"header zero":       {"{cluster: c}", []string{"x-envoy-upstream-rq-timeout-ms: 0"}, 0, 0, "", ""},
		"header that isn't": {"{cluster: c}", []string{"x-envoy-upstream-rq-timeout-ms: x"}, 15 * time.Second, 0, "15000", ""},
		"per try":           {"{cluster: c, retry_policy: {per_try_timeout: 1s}}", nil, 15 * time.Second, time.Second, "1000", ""},
		"per try header":    {"{cluster: c}", []string{"x-envoy-upstream-rq-per-try-timeout-ms: 5"}, 15 * time.Second, 5 * time.Millisecond, "5", ""},
		"per try is longer": {"{cluster: c, timeout: 1s, retry_policy: {per_try_timeout: 2s}}", nil, time.Second, 0, "1000", ""},
		"grpc":              {"{cluster: c, max_grpc_timeout: 10s}", []string{"content-type: application/grpc", "grpc-timeout: 3S"}, 3 * time.Second, 0, "3000", "3000m"},
		"grpc limit":        {"{cluster: c, max_grpc_timeout: 2s}", []string{"content-type: application/grpc", "grpc-timeout: 3S"}, 2 * time.Second, 0, "2000", "2000m"},
		"grpc offset":       {"{cluster: c, max_grpc_timeout: 0s, grpc_timeout_offset: 1s}", []string{"content-type: application/grpc", "grpc-timeout: 3S"}, 2 * time.Second, 0, "2000", "2000m"},
		"not grpc":          {"{cluster: c, max_grpc_timeout: 2s}", []string{"content-type: application/grpc;x", "grpc-timeout: 3S"}, 15 * time.Second, 0, "15000", "3S"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.action)
			r.request(true, c.head...)
			u := r.next()
			if r.armed(deadlineRoute) != c.route || r.armed(deadlineTry) != c.try {
				t.Errorf("route %s, try %s", r.armed(deadlineRoute), r.armed(deadlineTry))
			}
			if got := u.value("x-envoy-expected-rq-timeout-ms"); got != c.expected {
				t.Errorf("expected-rq-timeout %q", got)
			}
			if got := u.value("grpc-timeout"); got != c.grpcOut {
				t.Errorf("grpc-timeout %q", got)
			}
			// Envoy leaves what it can't read.
			if u.value("x-envoy-upstream-rq-timeout-ms") != "" && name != "header that isn't" {
				t.Error("the header goes on")
			}
			r.destroy()
		})
	}
}

func TestPayloadWaits(t *testing.T) {
	t.Parallel()
	ws := []string{"connection: upgrade", "upgrade: websocket"}
	r := newRig(t, "")
	r.request(false, ws...)
	u := r.next()
	r.data("early", false)
	r.want("up.headers")
	u.headers(false, "101")
	r.data("late", false)
	r.want("down.headers 101", "up.data early", "up.data late")
	r.destroy()
	r = newRig(t, "")
	r.request(false, ws...)
	u = r.next()
	r.data("early", false)
	u.headers(false, "200", "x: 1", "content-length: 9")
	r.want("up.headers", "reply 200 - websocket_handshake_unsuccessful")
	if v, _ := r.reply.Get("x"); v != "1" || r.reply.Has(header.ContentLength) {
		t.Error("not the upstream's headers")
	}
	r.destroy()
	r = newRig(t, "")
	r.request(false, ws...)
	u = r.next()
	r.data("early", false)
	u.headers(true, "400")
	r.destroy()
	r.want("up.headers", "down.headers 400 end", "up.reset")
	r = newRig(t, "")
	r.request(false, ":method: CONNECT")
	u = r.next()
	r.data("early", false)
	u.headers(false, "200")
	r.want("up.headers", "down.headers 200", "up.data early")
	r.destroy()
}

func TestInterim(t *testing.T) {
	t.Parallel()
	r := newRig(t, "{cluster: c, retry_policy: {retry_on: 5xx}}")
	r.request(true)
	u := r.next()
	for range 2 {
		h := &header.Map{}
		h.Add(":status", "103")
		u.post(stream.Event{Kind: stream.EventInterim, Map: h})
	}
	u.headers(true, "503")
	r.want("up.headers end", "interim 103", "down.headers 503 end")
	if r.stat("cluster.c.upstream_rq_103") != 1 {
		t.Error("counted each")
	}
	r.destroy()
}
