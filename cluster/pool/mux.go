package pool

import (
	"time"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/cluster/host"
	"sidecar/cluster/load"
	"sidecar/internal/task"
)

// assumedStreams is how many streams a peer is taken to serve before its SETTINGS have come: what
// turns out to be too many is refused and repeated.
const assumedStreams = 100

// muxed is the state of a connection that carries many streams at a time; all of it is guarded by
// Pool.mu.
type muxed struct {
	taken     uint32 // streams reserved or under way
	reserved  uint64 // streams ever reserved
	limit     uint32 // of the peer and of the configuration
	full      bool   // the codec took no stream although there was room by our count
	ending    bool   // serves no further stream
	idleSince time.Time
}

// NewKeyed makes a pool, without connections, for streams that ask for the same: key tells it from the
// host's others, ask is what its transport is told. mux is as with NewMux.
func NewKeyed(conf *Config, h *host.Host, priority load.Priority, mux bool, key string,
	ask *filter.ConnectOptions,
) *Pool {
	p := New(conf, h, priority)
	p.mux, p.key, p.ask = mux, key, *ask
	return p
}

// NewMux makes a pool, without connections, of those that carry many streams at a time (HTTP/2).
func NewMux(conf *Config, h *host.Host, priority load.Priority) *Pool {
	p := New(conf, h, priority)
	p.mux = true
	return p
}

// pickMux reserves a place on the first connection that has one, as Envoy does, so that the others
// become idle; the caller holds mu.
func (p *Pool) pickMux() *Conn {
	for _, c := range p.shared {
		if !c.m.full && c.m.taken < c.m.limit && !c.finished() {
			c.m.taken++
			c.m.reserved++
			return c
		}
	}
	return nil
}

// finished tells that a connection serves no further stream; the caller holds Pool.mu.
func (c *Conn) finished() bool {
	most := c.pool.conf.MaxRequests
	return c.m.ending || c.stale() || most > 0 && c.m.reserved >= most
}

// giveMux gives a place back: of a stream that has ended, or of one that never began.
func (p *Pool) giveMux(t *stream.Turn, c *Conn, undone bool) {
	p.mu.Lock()
	c.m.taken--
	if undone {
		c.m.reserved--
	}
	c.m.full = false
	shut := p.shutMux(t, c)
	p.mu.Unlock()
	if shut {
		c.close(t)
	}
	if p.waiting.Load() > 0 {
		p.serveMux(t)
	}
}

// refusedMux notes that the codec took no stream.
func (p *Pool) refusedMux(t *stream.Turn, c *Conn) {
	p.mu.Lock()
	c.m.taken--
	c.m.reserved--
	c.m.full = true
	if c.m.taken == 0 {
		// Nothing would tell that there is room again.
		c.m.ending = true
	}
	shut := p.shutMux(t, c)
	p.mu.Unlock()
	if shut {
		c.close(t)
	}
}

// shutMux looks at a connection that may have no stream left: true has the caller close it, once. One
// that may serve others begins to be idle. The caller holds mu.
func (p *Pool) shutMux(t *stream.Turn, c *Conn) bool {
	if c.m.taken > 0 {
		return false
	}
	if !c.finished() && !p.final.Load() {
		c.m.idleSince = t.Now()
		p.armIdle(p.conf.IdleTimeout)
		return false
	}
	if most := p.conf.MaxRequests; most > 0 && c.m.reserved >= most && !c.m.ending {
		p.conf.Traffic.CxMaxRequests.Inc()
	}
	c.m.ending = true
	return p.dropMux(c)
}

// dropMux takes a connection out of those in use; false if it was out. The caller holds mu.
func (p *Pool) dropMux(c *Conn) bool {
	for i, x := range p.shared {
		if x == c {
			last := len(p.shared) - 1
			copy(p.shared[i:], p.shared[i+1:])
			p.shared[last] = nil
			p.shared = p.shared[:last]
			return true
		}
	}
	return false
}

// serveMux gives places to those who wait, and dials if there are not enough.
func (p *Pool) serveMux(t *stream.Turn) {
	for {
		p.mu.Lock()
		if len(p.pending) == 0 {
			p.mu.Unlock()
			return
		}
		c := p.pickMux()
		if c == nil {
			start, over := p.wantDial()
			p.mu.Unlock()
			if over {
				p.conf.Traffic.CxOverflow.Inc()
			}
			if start {
				p.startDial()
			}
			return
		}
		p.serveFirst(t, c)
	}
}

// perConnection is how many of those who wait a new connection is expected to serve; the caller
// holds mu.
func (p *Pool) perConnection() int {
	if !p.mux {
		return 1
	}
	n := p.streamLimit(assumedStreams)
	if p.lastLimit > 0 {
		n = p.lastLimit
	}
	if most := p.conf.MaxRequests; most > 0 && most < uint64(n) {
		n = uint32(most)
	}
	return int(max(1, n))
}

// streamLimit bounds the peer's number of streams by ours.
func (p *Pool) streamLimit(n uint32) uint32 {
	if most := p.conf.MaxStreams; most > 0 {
		return min(n, most)
	}
	return n
}

// OnStreamEnd implements Handler.
func (c *Conn) OnStreamEnd(t *stream.Turn) {
	if c.end() {
		c.pool.giveMux(t, c, false)
	}
}

// OnLimit implements Handler.
func (c *Conn) OnLimit(t *stream.Turn, n uint32) {
	p := c.pool
	p.mu.Lock()
	c.m.limit = p.streamLimit(n)
	c.m.full = false
	p.lastLimit = c.m.limit
	p.mu.Unlock()
	p.serveMux(t)
}

// OnGoAway implements Handler.
func (c *Conn) OnGoAway(t *stream.Turn) {
	p := c.pool
	p.mu.Lock()
	c.m.ending = true
	shut := p.shutMux(t, c)
	p.mu.Unlock()
	if shut {
		c.close(t)
	}
	p.serveMux(t)
}

// armIdle sets the one timer for the pool's idle connections; the caller holds mu.
func (p *Pool) armIdle(d time.Duration) {
	if p.conf.IdleTimeout <= 0 || p.idleArmed || p.closed {
		return
	}
	p.idleArmed = true
	if p.idleTimer == nil {
		p.idleTimer = time.AfterFunc(d, func() { task.Go("idle connections", p.expireIdle, nil) })
		return
	}
	p.idleTimer.Reset(d)
}

// expireIdle closes what has been idle for too long, and looks again when the next one is due.
func (p *Pool) expireIdle() {
	now, next := time.Now(), time.Duration(0)
	var due []*Conn
	p.mu.Lock()
	p.idleArmed = false
	for _, c := range p.shared {
		if c.m.taken > 0 {
			continue
		}
		left := p.conf.IdleTimeout - now.Sub(c.m.idleSince)
		if left <= 0 {
			due = append(due, c)
		} else if next == 0 || left < next {
			next = left
		}
	}
	for _, c := range due {
		c.m.ending = true
		p.dropMux(c)
	}
	if next > 0 {
		p.armIdle(next)
	}
	p.mu.Unlock()
	p.conf.Traffic.CxIdleTimeout.Add(uint64(len(due)))
	closeAll(due)
}

// drainMux closes the connections without a stream; the others are stale by now and end with their
// last one.
func (p *Pool) drainMux() {
	var idle []*Conn
	p.mu.Lock()
	for _, c := range p.shared {
		if c.m.taken == 0 {
			c.m.ending = true
			idle = append(idle, c)
		}
	}
	for _, c := range idle {
		p.dropMux(c)
	}
	p.mu.Unlock()
	closeAll(idle)
}

// expireMux ends the use of a connection that has reached its maximum duration.
func (p *Pool) expireMux(c *Conn) {
	p.mu.Lock()
	c.m.ending = true
	idle := c.m.taken == 0 && p.dropMux(c)
	p.mu.Unlock()
	if idle {
		stream.Do(c.close)
	}
}

func closeAll(conns []*Conn) {
	stream.Do(func(t *stream.Turn) {
		for _, c := range conns {
			c.close(t)
		}
	})
}
