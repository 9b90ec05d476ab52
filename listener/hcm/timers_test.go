package hcm

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
)

// sleep lets fake time pass and everything that it sets off.
func sleep(d time.Duration) {
	time.Sleep(d) // of the bubble
	synctest.Wait()
}

// timed runs f in a bubble of its own.
func timed(t *testing.T, yaml string, f func(r *rig), filters ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, yaml, filters...)
		r.turn.Fresh()
		f(r)
	})
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		yaml string
		play func(r *rig)
		want string
	}{
		"request headers": {"request_headers_timeout: 1s", func(r *rig) {
			r.begin()
			sleep(999 * time.Millisecond)
			r.want("")
			sleep(time.Millisecond)
		}, "log 408 - request_header_timeout"},
		"request": {"request_timeout: 1s", func(r *rig) {
			r.request(false)
			sleep(900 * time.Millisecond)
			r.data("x", false)
			sleep(100 * time.Millisecond)
		}, "log 408 - request_overall_timeout"},
		"request in time": {"request_timeout: 1s", func(r *rig) {
			r.request(false)
			r.data("x", true)
			sleep(2 * time.Second)
			r.turn.Fresh()
			r.respHeaders(true)
		}, "log 200 - via_upstream"},
		"stream idle while the request comes": {"stream_idle_timeout: 1s", func(r *rig) {
			r.request(false)
			sleep(900 * time.Millisecond)
			r.turn.Fresh()
			r.data("x", false)
			sleep(900 * time.Millisecond)
			if len(r.ended()) != 0 {
				r.t.Error("activity doesn't put it off")
			}
			sleep(100 * time.Millisecond)
		}, "log 408 SI stream_idle_timeout"},
		"stream idle while the response is awaited": {"stream_idle_timeout: 1s", func(r *rig) {
			r.request(true)
			sleep(time.Second)
		}, "log 504 SI stream_idle_timeout"},
		"stream idle in the response": {"stream_idle_timeout: 1s", func(r *rig) {
			r.request(true)
			r.respHeaders(false)
			sleep(time.Second)
		}, "log 200 SI stream_idle_timeout"},
		"no stream idle timeout": {"stream_idle_timeout: 0s", func(r *rig) {
			r.request(true)
			sleep(time.Hour)
			r.respHeaders(true)
		}, "log 200 - via_upstream"},
		"duration": {"common_http_protocol_options: {max_stream_duration: 1s}", func(r *rig) {
			r.request(true)
			sleep(time.Second)
		}, "log 504 - max_duration_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timed(t, c.yaml, func(r *rig) {
				c.play(r)
				got := r.take()
				if lines := strings.Split(got, "\n"); len(r.ended()) != 1 || !strings.Contains(got, c.want) {
					t.Errorf("%d ended: %q", len(r.ended()), lines)
				}
			})
		})
	}
}

// TestTimersAreLazy: deadlines that are put off or taken away cost no runtime timer, and an earlier one
// that comes later still fires in time.
func TestTimersAreLazy(t *testing.T) {
	t.Parallel()
	timed(t, "stream_idle_timeout: 10s", func(r *rig) {
		r.request(true)
		r.inside(func(t *stream.Turn) {
			r.up.s.Arm(t, 0, 5*time.Second)
			r.up.s.Arm(t, 1, 2*time.Second)
			r.up.s.Arm(t, 2, time.Second)
			r.up.s.Arm(t, 2, 0)
		})
		r.take()
		sleep(1999 * time.Millisecond)
		r.want("")
		sleep(time.Millisecond)
		r.want("up.deadline 1")
		sleep(3 * time.Second)
		r.want("up.deadline 0")
		sleep(10 * time.Second)
		if len(r.ended()) != 1 || r.ended()[0].Details != "stream_idle_timeout" {
			t.Errorf("%+v", r.ended())
		}
	})
}

// TestTimerOfAnEarlierUse: the pooled object's timer is left to fire in the next use, for which it
// means nothing.
func TestTimerOfAnEarlierUse(t *testing.T) {
	t.Parallel()
	timed(t, "request_headers_timeout: 1s\nstream_idle_timeout: 0s", func(r *rig) {
		for range 3 {
			r.turn.Fresh()
			r.request(true)
			r.respHeaders(true)
			sleep(600 * time.Millisecond)
		}
		r.turn.Fresh()
		r.begin()
		sleep(900 * time.Millisecond)
		if len(r.ended()) != 3 {
			t.Fatalf("%d streams ended", len(r.ended()))
		}
		sleep(100 * time.Millisecond)
		if len(r.ended()) != 4 || r.ended()[3].Details != "request_header_timeout" {
			t.Errorf("%+v", r.ended())
		}
	})
}

func TestConnectionDrain(t *testing.T) {
	t.Parallel()
	closed := func(r *rig) bool {
		c, ok := r.conn.codec.(*fakeCodec)
		if !ok {
			return false
		}
		select {
		case <-c.closed:
			return true
		default:
			return false
		}
	}
	start := func(r *rig) { r.conn.startIdle() }
	t.Run("idle without a request", func(t *testing.T) {
		t.Parallel()
		timed(t, "common_http_protocol_options: {idle_timeout: 1s}", func(r *rig) {
			start(r)
			sleep(time.Second)
			if !closed(r) || r.cfg.stats.CxIdleTimeout.Value() != 1 {
				t.Error("stays open")
			}
		})
	})
	t.Run("idle after a request", func(t *testing.T) {
		t.Parallel()
		timed(t, "common_http_protocol_options: {idle_timeout: 1s}\ndrain_timeout: 3s", func(r *rig) {
			start(r)
			r.request(true)
			sleep(5 * time.Second) // not idle
			r.turn.Fresh()
			r.respHeaders(true)
			sleep(2 * time.Second)
			if closed(r) || r.cfg.stats.CxIdleTimeout.Value() != 1 {
				t.Fatal("not drained")
			}
			r.request(true)
			r.respHeaders(true)
			if r.enc.last.Value(header.Connection) != "close" {
				t.Error("the response is not the last one")
			}
			sleep(3 * time.Second)
			if !closed(r) {
				t.Error("stays open")
			}
		})
	})
	t.Run("old", func(t *testing.T) {
		t.Parallel()
		timed(t, "common_http_protocol_options: {max_connection_duration: 1s}\ndrain_timeout: 1s", func(r *rig) {
			start(r)
			r.request(true)
			sleep(10 * time.Second)
			if closed(r) || r.cfg.stats.CxMaxDuration.Value() != 1 {
				t.Fatal("a request was cut off")
			}
			r.respHeaders(true)
			if r.enc.last.Value(header.Connection) != "close" {
				t.Error("the response is not the last one")
			}
			r.conn.stopIdle()
		})
	})
}

// TestLateEvents posts events of a use that has ended while others of the pooled object run: none
// reaches them.
func TestLateEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", "a")
	r.quiet = true
	r.up = &fakeUpstream{r: r}
	var resume filter.Resume
	r.scripts["a"].reqHeaders = func(f *fakeFilter, _ *stream.Turn, _ *header.Map, _ bool) filter.Action {
		resume = f.s.Pause(filter.Request)
		return filter.Wait
	}
	var wg sync.WaitGroup
	for range 200 {
		r.request(true)
		target, x := r.to, resume
		r.resume(x)
		for _, post := range []func(t *stream.Turn){
			func(t *stream.Turn) { x.Continue(t) },
			func(t *stream.Turn) { x.Call(t, func(*stream.Turn) {}) },
			func(t *stream.Turn) { target.Post(t, stream.Event{Kind: stream.EventDrained}) },
			func(t *stream.Turn) { target.Post(t, stream.Event{Kind: stream.EventTimer}) },
		} {
			wg.Go(func() {
				stream.Do(post)
			})
		}
		r.respHeaders(true)
		if !r.enc.released.Load() {
			// Another goroutine runs the stream, and gets to the response.
			wg.Wait()
		}
		if !r.enc.released.Load() {
			t.Fatal("not finished")
		}
	}
	wg.Wait()
	if n := len(r.ended()); n != 200 {
		t.Errorf("%d streams finished", n)
	}
	for _, i := range r.ended() {
		if i.Status != 200 {
			t.Fatalf("%+v", i)
		}
	}
}
