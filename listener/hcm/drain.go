package hcm

import (
	"time"

	"sidecar/api/stream"
)

// A connection drains because it was idle, has lasted or has served for long enough, because what it
// was accepted by goes away, or under overload. HTTP/1 says so in its next response and ends with it.
// HTTP/2 sends a GOAWAY that still takes streams, drain_timeout later one that takes none, and ends
// with its last stream (Envoy: ConnectionManagerImpl::startDrainSequence).

// shouldClose tells whether the response of s is to be the last of its connection, which for HTTP/2
// only means that the connection drains.
func (c *Conn) shouldClose(t *stream.Turn, s *Stream) bool {
	if c.draining.Load() {
		return true
	}
	if limit := c.cfg.maxRequestsPerConnection; limit > 0 && c.requests.Load() >= limit {
		if c.draining.CompareAndSwap(false, true) {
			c.stats.CxMaxRequests.Inc()
		}
		return true
	}
	if c.drain != nil && c.drain.Draining(s.random) {
		if c.draining.CompareAndSwap(false, true) {
			c.stats.CxDrainClose.Inc()
			c.beginDrain(t)
		}
		return true
	}
	if c.cfg.overload == nil || !c.cfg.overload.DisableKeepAlive() {
		return false
	}
	if c.multiplexed() && c.draining.CompareAndSwap(false, true) {
		c.beginDrain(t)
	}
	return true
}

// beginDrain starts the drain sequence of a multiplexed connection, once, after draining was set. Of
// HTTP/1 the next response ends the connection.
func (c *Conn) beginDrain(t *stream.Turn) {
	if !c.multiplexed() {
		return
	}
	c.codec.Drain(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return
	}
	d := c.drainTime()
	c.drainEnd = time.Now().Add(d)
	if c.timer == nil {
		c.timer = time.AfterFunc(d, c.onIdleTimer)
		return
	}
	c.timer.Reset(d)
}

// startIdle arms the idle timeout and the maximum duration of the connection: one timer that looks
// at what has happened when it fires, and sets itself for the rest.
func (c *Conn) startIdle() {
	c.since = c.info.Start
	d := c.cfg.idleTimeout
	if m := c.cfg.maxConnectionDuration; m > 0 && (d == 0 || m < d) {
		d = m
	}
	if d == 0 {
		return
	}
	c.mu.Lock()
	c.timer = time.AfterFunc(d, c.onIdleTimer)
	c.mu.Unlock()
}

func (c *Conn) stopIdle() {
	c.mu.Lock()
	c.gone = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
}

// verdict is what is to happen to the connection when its timer has fired.
type verdict uint8

const (
	goOn     verdict = iota
	notice           // a GOAWAY that still takes streams
	goAway           // no stream is taken any more
	closeNow         // the connection is closed
)

func (c *Conn) onIdleTimer() {
	now := time.Now()
	c.mu.Lock()
	if c.gone {
		c.mu.Unlock()
		return
	}
	next, v := c.look(now)
	if next > 0 {
		c.timer.Reset(next)
	}
	c.mu.Unlock()
	switch v {
	case goOn:
	case notice:
		stream.Do(c.codec.Drain)
	case goAway:
		stream.Do(c.codec.GoAway)
	case closeNow:
		stream.Do(c.codec.Close)
	}
}

// look begins the drain sequence when the connection has been idle, or has lasted, for too long, as
// Envoy does: a request that comes within drain_timeout is served (over HTTP/1 with connection:
// close); after it an idle connection is closed. It returns when to look again, 0 for never. The
// caller holds mu.
func (c *Conn) look(now time.Time) (time.Duration, verdict) {
	active := c.active.Load() > 0
	if !c.drainEnd.IsZero() {
		if left := c.drainEnd.Sub(now); left > 0 {
			return left, goOn
		}
		switch {
		case c.multiplexed():
			return 0, goAway // its last stream ends it
		case !active:
			return 0, closeNow
		}
		return c.cfg.drainTimeout + time.Millisecond, goOn // its last response ends it
	}
	next := time.Hour
	if m := c.cfg.maxConnectionDuration; m > 0 {
		left := m - now.Sub(c.info.Start)
		if left <= 0 {
			c.stats.CxMaxDuration.Inc()
			return c.startDrain(now)
		}
		next = min(next, left)
	}
	if d := c.cfg.idleTimeout; d > 0 {
		left := d
		if !active {
			left = d - now.Sub(c.since)
		}
		if left <= 0 {
			c.stats.CxIdleTimeout.Inc()
			return c.startDrain(now)
		}
		next = min(next, left)
	}
	return next, goOn
}

// startDrain returns when the connection is to be closed; one that never had a request has no client
// that could be about to send another, unless it said that it speaks HTTP/2.
func (c *Conn) startDrain(now time.Time) (time.Duration, verdict) {
	c.draining.Store(true)
	if c.requests.Load() == 0 && !c.multiplexed() {
		return 0, closeNow
	}
	d := c.drainTime()
	c.drainEnd = now.Add(d)
	if c.multiplexed() {
		return max(d, 1), notice
	}
	if d <= 0 {
		return 0, closeNow
	}
	return d, goOn
}

// drainTime is drain_timeout, with its jitter.
func (c *Conn) drainTime() time.Duration {
	d := c.cfg.drainTimeout
	if j := c.cfg.drainJitter; j > 0 {
		d += time.Duration(float64(d) * j * float64(c.cfg.random()>>11) / (1 << 53))
	}
	return d
}
