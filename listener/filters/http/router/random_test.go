package router

import (
	"math/rand/v2"
	"sync"
	"testing"

	"sidecar/api/header"
	"sidecar/api/stream"
)

// TestInterleavings lets the client's side, the upstream's side and the timers act at random and at the
// same time, over retries, timeouts and aborts. At the end nothing is left over: no request is active,
// no retry accounted for, and every stream has had its end.
func TestInterleavings(t *testing.T) {
	t.Parallel()
	const action = "{cluster: c, timeout: 5s, retry_policy: {retry_on: '5xx,reset', num_retries: 2, per_try_timeout: 1s}}"
	var all sync.WaitGroup
	for seed := range uint64(12) {
		all.Go(func() {
			r := newRig(t, action)
			rnd := rand.New(rand.NewPCG(seed, 1))
			for range 25 {
				r.play(rnd)
			}
			for _, name := range []string{"cluster.c.upstream_rq_active", "cluster.c.upstream_rq_pending_active", "cluster.c.circuit_breakers.default.rq_retry_open"} {
				if n := r.stat(name); n != 0 {
					t.Errorf("seed %d: %s is %d", seed, name, n)
				}
			}
		})
	}
	all.Wait()
}

// play is one stream.
func (r *rig) play(rnd *rand.Rand) {
	r.mu.Lock()
	r.committed = false
	clear(r.arms)
	r.mu.Unlock()
	whole := rnd.IntN(2) == 0
	r.request(whole)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	other := rand.New(rand.NewPCG(rnd.Uint64(), 2))
	wg.Go(func() { r.playUpstream(other, stop) })
	for range 1 + rnd.IntN(8) {
		switch k := rnd.IntN(6); {
		case k < 2 && !whole:
			whole = rnd.IntN(3) == 0
			r.data("x", whole)
		case k == 2:
			r.fireIfArmed(uint8(rnd.IntN(5)))
		case k == 3:
			r.inside(func(t *stream.Turn) { r.filter.OnResponseFull(t) })
		case k == 4:
			r.inside(func(t *stream.Turn) { r.filter.OnResponseDrained(t) })
		default:
			r.fireIfArmed(deadlineBackoff)
		}
	}
	r.destroy()
	close(stop)
	wg.Wait()
	for len(r.streams) > 0 {
		<-r.streams
	}
	r.take()
}

func (r *rig) fireIfArmed(which uint8) {
	r.inside(func(t *stream.Turn) {
		r.mu.Lock()
		_, armed := r.arms[which]
		delete(r.arms, which)
		r.mu.Unlock()
		if armed {
			r.filter.OnDeadline(t, which)
		}
	})
}

// playUpstream answers attempts in some way until stop.
func (r *rig) playUpstream(rnd *rand.Rand, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case u := <-r.streams:
			head := func(status string, end bool) {
				h := &header.Map{}
				h.Add(":status", status)
				u.send(stream.Event{Kind: stream.EventHeaders, Map: h, End: end})
			}
			switch rnd.IntN(5) {
			case 0:
				head("200", true)
			case 1:
				head("503", true)
			case 2:
				head("200", false)
				u.send(stream.Event{Kind: stream.EventData, Data: []byte("y"), End: rnd.IntN(2) == 0})
			case 3:
				u.send(stream.Event{Kind: stream.EventReset, Fault: &stream.Fault{
					Reason: stream.ReasonConnectionTermination, Flag: stream.UpstreamConnectionTermination,
				}})
			default: // no answer
			}
		}
	}
}
