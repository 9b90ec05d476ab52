package hcm

import (
	"testing"
	"time"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
)

// oneStream is one stream of a multiplexed rig.
type oneStream struct {
	enc *fakeEncoder
	to  stream.Target
	up  *fakeUpstream
}

// multiplexed makes a rig whose connections speak HTTP/2.
func multiplexed(tb testing.TB, yaml string, filters ...string) *rig {
	tb.Helper()
	r := newRig(tb, yaml, filters...)
	r.proto = stream.HTTP2
	return r
}

// keep returns the stream that was begun last, so that others can be begun beside it.
func (r *rig) keep() oneStream { return oneStream{r.enc, r.to, r.up} }

// use makes a kept stream the one that the rig's functions are about.
func (r *rig) use(s oneStream) { r.enc, r.to, r.up = s.enc, s.to, s.up }

func TestMultiplexed(t *testing.T) {
	t.Parallel()
	r := multiplexed(t, "")
	r.request(true)
	first := r.keep()
	r.request(false)
	second := r.keep()
	if got := r.cfg.stats.RqActive.Value(); got != 2 {
		t.Errorf("%d active", got)
	}
	r.use(first)
	r.respHeaders(true)
	r.use(second)
	r.data("x", true)
	r.respHeaders(false)
	r.respData("y", false)
	r.respTrailers("grpc-status: 0")
	r.want("up.headers end", "up.headers", "enc.headers 200 end", "log 200 - via_upstream", "up.destroy",
		"up.data x end", "enc.headers 200", "enc.data y", "enc.trailers grpc-status=0",
		"log 200 - via_upstream", "up.destroy")
	st := r.cfg.stats
	for name, c := range map[string][2]uint64{
		"downstream_cx_http2_total": {st.CxHTTP2Total.Value(), 1},
		"downstream_cx_http1_total": {st.CxHTTP1Total.Value(), 0},
		"downstream_rq_http2_total": {st.RqHTTP2Total.Value(), 2},
		"downstream_rq_http1_total": {st.RqHTTP1Total.Value(), 0},
		"downstream_rq_completed":   {st.RqCompleted.Value(), 2},
	} {
		if c[0] != c[1] {
			t.Errorf("%s: %d, want %d", name, c[0], c[1])
		}
	}
	if got := r.ended()[0].Protocol; got != stream.HTTP2 {
		t.Errorf("protocol %s", got)
	}
	if st.CxHTTP2Active.Value() != 1 {
		t.Error("the connection is not active")
	}
	r.conn.countGone()
	if st.CxHTTP2Active.Value() != 0 {
		t.Error("the connection is still active")
	}
}

// TestResponsesOfHTTP2 never say anything of their connection.
func TestResponsesOfHTTP2(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		do   func(r *rig)
		want string
	}{
		{"an early response", func(r *rig) { r.request(false); r.take(); r.respHeaders(true) }, ""},
		{"a bad request", func(r *rig) { r.request(true, "-:authority") }, ""},
		{"rejected", func(r *rig) {
			r.begin()
			r.post(stream.Event{Kind: stream.EventRejected, Fault: &stream.Fault{Status: 431, Details: "x"}})
		}, ""},
		{"rejected for good", func(r *rig) {
			r.begin()
			r.post(stream.Event{Kind: stream.EventRejected, Fault: &stream.Fault{Status: 431, Details: "x", Close: true}})
		}, "codec.drain"},
		{"an upgrade that is not allowed", func(r *rig) {
			r.request(false, "connection: upgrade", "upgrade: websocket")
		}, "codec.drain"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := multiplexed(t, "")
			tt.do(r)
			defer r.conn.stopIdle()
			if r.enc.last.Len() == 0 || r.enc.last.Has(header.Connection) {
				t.Errorf("head %s", names(&r.enc.last))
			}
			got := ""
			for _, l := range r.lines() {
				if l == "codec.goaway" || l == "codec.drain" {
					got += l
				}
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestResetOfOneStream leaves the others and the connection alone.
func TestResetOfOneStream(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, want string
		f          stream.Fault
		active     bool
	}{
		{"by the peer", "DR http2.remote_reset", stream.Fault{Reason: stream.ReasonRemoteReset, Details: "http2.remote_reset"}, false},
		{"refused", "DR http2.remote_refuse", stream.Fault{Reason: stream.ReasonRemoteRefusedStream, Details: "http2.remote_refuse"}, false},
		{"for its messaging", "DPE http2.x", stream.Fault{Reason: stream.ReasonProtocolError, Details: "http2.x"}, false},
		{"by overload", "OM ", stream.Fault{Reason: stream.ReasonOverloadManager}, false},
		{"with its connection", "DC gone", stream.Fault{Reason: stream.ReasonConnectionTermination, Details: "gone"}, true},
		{"as the codec says", "DPE y", stream.Fault{
			Reason: stream.ReasonConnectionTermination, Flag: stream.DownstreamProtocolError, Details: "y",
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := multiplexed(t, "")
			r.request(true)
			first := r.keep()
			r.request(true)
			r.post(stream.Event{Kind: stream.EventReset, Fault: &tt.f})
			if got := r.ended()[0].Flags.String() + " " + r.ended()[0].Details; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if r.conn.endedActive.Load() != tt.active {
				t.Errorf("ended with active streams: %t", !tt.active)
			}
			r.use(first)
			r.respHeaders(true)
			if len(r.ended()) != 2 || r.ended()[1].Status != 200 {
				t.Errorf("%+v", r.ended())
			}
		})
	}
}

// TestGracefulDrain: a notice, then the last GOAWAY, whatever the reason is.
func TestGracefulDrain(t *testing.T) {
	t.Parallel()
	check := func(r *rig, drained bool) {
		r.t.Helper()
		n := 0
		for _, l := range r.lines() {
			if l == "codec.drain" {
				n++
			}
			if l == "codec.goaway" {
				r.t.Error("the last GOAWAY came first")
			}
		}
		if (n == 1) != drained || n > 1 {
			r.t.Fatalf("%d notices", n)
		}
	}
	last := func(r *rig) {
		r.t.Helper()
		r.take()
		sleep(3 * time.Second)
		r.want("codec.goaway")
		sleep(time.Hour)
		r.want("")
	}
	for name, tt := range map[string]struct {
		yaml string
		do   func(r *rig)
	}{
		"idle": {"common_http_protocol_options: {idle_timeout: 1s}\ndrain_timeout: 3s", func(r *rig) {
			r.conn.startIdle()
			r.request(true)
			r.respHeaders(true)
			check(r, false)
			sleep(time.Second)
			check(r, true)
		}},
		"old": {
			"common_http_protocol_options: {max_connection_duration: 1s, idle_timeout: 0s}\ndrain_timeout: 3s\nstream_idle_timeout: 0s",
			func(r *rig) {
				r.conn.startIdle()
				r.request(true) // and stays
				sleep(time.Second)
				check(r, true)
			},
		},
		"enough requests": {
			"common_http_protocol_options: {max_requests_per_connection: 2, idle_timeout: 0s}\ndrain_timeout: 3s",
			func(r *rig) {
				r.request(true)
				r.respHeaders(true)
				check(r, false)
				r.request(true)
				check(r, true)
				r.respHeaders(true)
				r.request(true) // the client has not seen the notice
				r.respHeaders(true)
				if got := r.cfg.stats.CxMaxRequests.Value(); got != 1 {
					r.t.Errorf("counted %d times", got)
				}
			},
		},
		"the listener": {"common_http_protocol_options: {idle_timeout: 0s}\ndrain_timeout: 3s", func(r *rig) {
			r.conn.drain = always{}
			r.request(true)
			check(r, false)
			r.respHeaders(true)
			check(r, true)
			r.request(true)
			r.respHeaders(true)
			if got := r.cfg.stats.CxDrainClose.Value(); got != 1 {
				r.t.Errorf("counted %d times", got)
			}
		}},
		"overload": {"common_http_protocol_options: {idle_timeout: 0s}\ndrain_timeout: 3s", func(r *rig) {
			r.cfg.overload = always{}
			r.request(true)
			r.respHeaders(true)
			check(r, true)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timed(t, tt.yaml, func(r *rig) {
				r.proto = stream.HTTP2
				tt.do(r)
				last(r)
				r.conn.stopIdle()
				if r.up != nil && !r.enc.released.Load() {
					r.turn.Fresh()
					r.respHeaders(true)
				}
			})
		})
	}
}

// always drains, and is overloaded.
type always struct{}

func (always) Draining(uint64) bool   { return true }
func (always) DisableKeepAlive() bool { return true }

var _ filter.Drainer = always{}

// TestPrematureResets: a connection whose streams are reset before they are answered is closed.
func TestPrematureResets(t *testing.T) {
	t.Parallel()
	reset := stream.Event{Kind: stream.EventReset, Fault: &stream.Fault{Reason: stream.ReasonRemoteReset}}
	for name, tt := range map[string]struct {
		good, bad int
		proto     stream.Protocol
		closed    bool
	}{
		"too few":          {0, 249, stream.HTTP2, false},
		"all of them":      {0, 250, stream.HTTP2, true},
		"after some":       {100, 250, stream.HTTP2, true},
		"less than half":   {400, 399, stream.HTTP2, false},
		"half of them":     {400, 400, stream.HTTP2, true},
		"HTTP/1 can't":     {0, 300, stream.HTTP11, false},
		"all are answered": {1000, 0, stream.HTTP2, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			r.proto = tt.proto
			for range tt.good {
				r.request(true)
				r.respHeaders(true)
			}
			for range tt.bad {
				r.request(true)
				r.post(reset)
			}
			if got := r.cfg.stats.RqTooManyPremature.Value() == 1; got != tt.closed {
				t.Errorf("closed: %t", got)
			}
		})
	}
}

// TestTunnelsOfHTTP2: an extended CONNECT is an upgrade to the manager; a tunnel says nothing of its
// connection and ends alone.
func TestTunnelsOfHTTP2(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		request  []string
		response []string
		status   string
		want     string // of the response head
	}{
		"websocket": {
			[]string{"connection: Upgrade", "upgrade: websocket"},
			[]string{":status: 101", "connection: upgrade", "upgrade: websocket"},
			"101", ":status=101 connection=upgrade date=now server=envoy upgrade=websocket",
		},
		"CONNECT": {
			[]string{":method: CONNECT", "-:path"},
			[]string{":status: 200"},
			"200",
			":status=200 date=now server=envoy",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := multiplexed(t, `
upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: CONNECT}]
route_config:
  name: r
  virtual_hosts:
  - name: v
    domains: ["*"]
    routes:
    - {match: {connect_matcher: {}}, route: {cluster: c}}
    - {match: {prefix: /}, route: {cluster: c}}
`)
			r.request(false, tt.request...)
			first := r.keep()
			r.request(true) // beside it
			r.respHeaders(true)
			r.use(first)
			r.take()
			h := fields(tt.response...)
			r.inside(func(t *stream.Turn) { r.up.s.RespondHeaders(t, h, false) })
			if got := names(&r.enc.last); got != tt.want {
				t.Errorf("head %s", got)
			}
			r.data("a", false)
			r.respData("b", false)
			r.data("", true)
			r.respData("", true)
			r.want("enc.headers "+tt.status, "up.data a", "enc.data b", "up.data  end", "enc.data  end",
				"log "+tt.status+" - via_upstream", "up.destroy")
			if got := r.cfg.stats.CxUpgradesTotal.Value(); got != 1 {
				t.Errorf("%d upgrades", got)
			}
			if r.conn.draining.Load() {
				t.Error("the connection drains")
			}
		})
	}
}
