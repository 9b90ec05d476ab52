package h2

import (
	"math/rand/v2"
	"sync"
	"time"

	"sidecar/api/stream"
	"sidecar/internal/task"
)

// keepalive sends PINGs and closes a connection whose peer does not answer (KeepaliveSettings). The
// zero value does nothing.
type keepalive struct {
	c *conn

	mu      sync.Mutex // guards below; nothing is called while it is held
	timer   *time.Timer
	waiting bool
	stopped bool
}

// start arms the timer if the options want PINGs.
func (k *keepalive) start(c *conn) {
	if c.opt.Keepalive.Interval <= 0 {
		return
	}
	k.mu.Lock()
	k.c = c
	k.timer = time.AfterFunc(k.interval(), func() {
		task.Go("HTTP/2 keepalive", func() { stream.Do(k.fire) }, nil)
	})
	k.mu.Unlock()
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
	if k.stopped {
		k.mu.Unlock()
		return
	}
	late := k.waiting
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
	var data [8]byte
	c.mu.Lock()
	appendFrame(c.w.Begin(), framePing, 0, 0, data[:])
	c.w.End(t)
	c.mu.Unlock()
}

func (k *keepalive) acked() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.timer == nil || k.stopped || !k.waiting {
		return
	}
	k.waiting = false
	k.timer.Reset(k.interval())
}

func (k *keepalive) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = true
	if k.timer != nil {
		k.timer.Stop()
	}
}
