package istiostats

import (
	"sync/atomic"
	"time"
)

// rotation takes away series that were not touched for a while. It has no goroutine: traffic drives
// it, since without traffic there are no new series either.
type rotation struct {
	every, grace time.Duration

	next   atomic.Int64 // unix nanoseconds of the next rotation; 0: not begun
	expire atomic.Int64 // of the end of the grace period; 0: none
	epoch  atomic.Uint32
}

// tick does what is due. A nil rotation does nothing.
func (r *rotation) tick(c *Config) {
	if r == nil {
		return
	}
	now := time.Now().UnixNano()
	if due := r.expire.Load(); due != 0 && now >= due && r.expire.CompareAndSwap(due, 0) {
		for i := range c.metrics {
			c.metrics[i].vector.Expire(r.epoch.Load())
		}
	}
	due := r.next.Load()
	if now < due || !r.next.CompareAndSwap(due, now+int64(r.every)) || due == 0 {
		return
	}
	for i := range c.metrics {
		r.epoch.Store(c.metrics[i].vector.Rotate())
	}
	r.expire.CompareAndSwap(0, now+int64(r.grace))
}
