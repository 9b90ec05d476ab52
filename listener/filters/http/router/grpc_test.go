package router

import (
	"strings"
	"testing"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
)

// TestCallOfHost: whether a call was a success for its host shows in its status, as in Envoy.
func TestCallOfHost(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		kind        string
		play        func(u *upstream)
		success, rq uint64
	}{
		"trailers only":      {"application/grpc", func(u *upstream) { u.headers(true, "200", "grpc-status: 0") }, 1, 0},
		"a client's mistake": {"application/grpc", func(u *upstream) { u.headers(true, "200", "grpc-status: 5") }, 1, 0},
		"failed at once":     {"application/grpc", func(u *upstream) { u.headers(true, "200", "grpc-status: 14") }, 0, 1},
		"no status":          {"application/grpc", func(u *upstream) { u.headers(true, "200") }, 0, 1},
		"a success": {"application/grpc", func(u *upstream) {
			u.headers(false, "200")
			u.trailers("grpc-status: 0")
		}, 1, 0},
		"a failure": {"application/grpc", func(u *upstream) {
			u.headers(false, "200")
			u.trailers("grpc-status: 13")
		}, 0, 1},
		"still running": {"application/grpc", func(u *upstream) { u.headers(false, "200") }, 0, 0},
		"a proxy":       {"application/grpc", func(u *upstream) { u.headers(true, "503") }, 0, 1},
		"no call": {"text/plain", func(u *upstream) {
			u.headers(false, "200")
			u.trailers("grpc-status: 13")
		}, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			r.request(true, "content-type: "+tt.kind)
			u := r.next()
			tt.play(u)
			r.inside(func(*stream.Turn) {
				c := r.filter.attempt.Host.Counters()
				if c.RqSuccess.Value() != tt.success || c.RqError.Value() != tt.rq {
					t.Errorf("success %d, error %d", c.RqSuccess.Value(), c.RqError.Value())
				}
			})
			r.destroy()
		})
	}
}

func (u *upstream) trailers(lines ...string) {
	h := fieldsOf(lines...)
	u.post(stream.Event{Kind: stream.EventTrailers, Map: h})
}

// TestReplay: what an upstream did not look at is repeated without any policy, if it still can be.
func TestReplay(t *testing.T) {
	t.Parallel()
	refuse := func(u *upstream) {
		u.post(stream.Event{Kind: stream.EventReset, Fault: &stream.Fault{
			Side: stream.Upstream, Reason: stream.ReasonRemoteRefusedStream, Reused: true,
		}})
	}
	t.Run("a head", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "")
		r.request(true)
		for range maxReplays {
			refuse(r.next())
		}
		r.next().headers(true, "200")
		r.want("up.headers end", "up.headers end", "up.headers end", "up.headers end", "down.headers 200 end")
		if r.stat("cluster.c.upstream_rq_retry") != 0 {
			t.Error("counted as a retry")
		}
		r.destroy()
	})
	t.Run("too often", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "")
		r.request(true)
		for range maxReplays + 1 {
			u := r.next()
			r.take()
			refuse(u)
		}
		r.want("reply 503 - upstream_reset_before_response_started{remote_refused_stream_reset}")
		r.destroy()
	})
	t.Run("a body that is not kept", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "")
		r.request(false)
		u := r.next()
		r.data("x", false)
		r.take()
		refuse(u)
		r.want("reply 503 - upstream_reset_before_response_started{remote_refused_stream_reset}")
		r.destroy()
	})
	t.Run("before its body", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "")
		r.request(false)
		refuse(r.next())
		r.next()
		r.data("x", true)
		r.want("up.headers", "up.headers", "up.data x end")
		r.destroy()
	})
	t.Run("a body that is kept", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "{cluster: c, retry_policy: {retry_on: connect-failure}}")
		r.request(false)
		u := r.next()
		r.data("x", false)
		refuse(u)
		r.next()
		r.data("y", true)
		r.want("up.headers", "up.data x", "up.headers", "up.data x", "up.data y end")
		r.destroy()
	})
}

func TestGRPCTimeoutHeader(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]struct {
		header string
		armed  time.Duration
	}{
		"5S":   {"5000m", 5 * time.Second},
		"100S": {"20000m", 20 * time.Second}, // max_grpc_timeout
		"":     {"20000m", 20 * time.Second},
	} {
		t.Run(in, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "{cluster: c, max_grpc_timeout: 20s}")
			lines := []string{"content-type: application/grpc"}
			if in != "" {
				lines = append(lines, "grpc-timeout: "+in)
			}
			r.request(true, lines...)
			u := r.next()
			if got := u.value("grpc-timeout"); got != want.header {
				t.Errorf("grpc-timeout %s, want %s", got, want.header)
			}
			if got := r.armed(deadlineRoute); got != want.armed {
				t.Errorf("armed %s", got)
			}
			r.destroy()
		})
	}
}

func fieldsOf(lines ...string) *header.Map {
	h := &header.Map{}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(name, value)
	}
	return h
}
