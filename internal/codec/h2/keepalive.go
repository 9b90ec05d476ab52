package h2

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/api/stream"
	"sidecar/internal/task"
)

// keepalive sends PINGs and closes a connection whose peer does not answer (KeepaliveSettings). The
// zero value does nothing.
type keepalive struct {
	c     *conn
	heard atomic.Int64 // when something was read last, on the Turn's clock; kept for Idle alone

	mu      sync.Mutex // guards below; nothing is called while it is held
	timer   *time.Timer
	waiting bool
	stopped bool
}

// start arms the timer if the options want PINGs.
func (k *keepalive) start(c *conn) {
	o := &c.opt.Keepalive
	if o.Interval <= 0 && o.Idle <= 0 {
		return
	}
	k.mu.Lock()
	k.c = c
	if o.Interval > 0 {
		k.arm(k.interval())
	}
	k.mu.Unlock()
	stream.Do(func(t *stream.Turn) { k.heard.Store(t.Nano()) })
}

// arm sets the timer; the caller holds mu.
func (k *keepalive) arm(d time.Duration) {
	if k.timer != nil {
		k.timer.Reset(d)
		return
	}
	k.timer = time.AfterFunc(d, func() {
		task.Go("HTTP/2 keepalive", func() { stream.Do(k.fire) }, nil)
	})
}

// probe sends a PING ahead of a new stream if nothing was read for long: whether the peer is still there
// shows sooner so. The caller holds the connection's lock.
func (k *keepalive) probe(t *stream.Turn) {
	heard := k.heard.Load()
	if heard == 0 || time.Duration(t.Nano()-heard) < k.c.opt.Keepalive.Idle {
		return // 0: it has just been made
	}
	k.mu.Lock()
	ask := !k.waiting && !k.stopped
	if ask {
		k.waiting = true
		k.arm(max(k.c.opt.Keepalive.Timeout, time.Millisecond))
	}
	k.mu.Unlock()
	if ask {
		k.ping(t)
	}
}

// ping sends a PING; the caller holds the connection's lock.
func (k *keepalive) ping(t *stream.Turn) {
	var data [8]byte
	appendFrame(k.c.w.Begin(), framePing, 0, 0, data[:])
	k.c.w.End(t)
}

func (k *keepalive) interval() time.Duration {
	o := &k.c.opt.Keepalive
	d := o.Interval
	if o.Jitter > 0 {
		d += time.Duration(float64(d) * o.Jitter / 100 * rand.Float64())
	}
	return d
}

func (k *keepalive) fire(t *stream.Turn) {
	k.mu.Lock()
	late := k.waiting
	if k.stopped || !late && k.c.opt.Keepalive.Interval <= 0 {
		k.mu.Unlock()
		return
	}
	k.waiting = true
	if !late {
		k.timer.Reset(max(k.c.opt.Keepalive.Timeout, time.Millisecond))
	}
	k.mu.Unlock()
	c := k.c
	if late {
		c.opt.Stats.KeepaliveTimeout.Inc()
		c.local.Store(true)
		c.w.Close()
		return
	}
	c.mu.Lock()
	c.helloLocked(t)
	k.ping(t)
	c.mu.Unlock()
}

func (k *keepalive) acked() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.timer == nil || k.stopped || !k.waiting {
		return
	}
	k.waiting = false
	if k.c.opt.Keepalive.Interval > 0 {
		k.timer.Reset(k.interval())
	} else {
		k.timer.Stop()
	}
}

func (k *keepalive) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = true
	if k.timer != nil {
		k.timer.Stop()
	}
}
