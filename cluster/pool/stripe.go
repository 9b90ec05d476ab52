package pool

import (
	"sync"
	"time"

	"sidecar/api/stream"
	"sidecar/internal/task"
)

// stripe is a stack of idle connections.
type stripe struct {
	pool *Pool

	mu    sync.Mutex // guards below; a leaf
	idle  []*Conn    // the longest idle first
	timer *time.Timer
	armed bool
	_     [64]byte // a cache line of its own
}

// popIdle reserves the connection that became idle last, of any stripe, beginning with the hint's.
func (p *Pool) popIdle(hint uint32) *Conn {
	n := uint32(len(p.stripes))
	for i := range n {
		if c := p.stripes[(hint+i)%n].pop(); c != nil {
			return c
		}
	}
	return nil
}

func (s *stripe) pop() *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.idle)
	if n == 0 {
		return nil
	}
	c := s.idle[n-1]
	s.idle[n-1] = nil
	s.idle = s.idle[:n-1]
	c.idle = false
	return c
}

// push makes a reserved connection idle.
func (p *Pool) push(t *stream.Turn, c *Conn) {
	s := c.stripe
	now := t.Now()
	s.mu.Lock()
	if c.gone {
		s.mu.Unlock()
		return
	}
	c.idle, c.idleSince = true, now
	s.idle = append(s.idle, c)
	if d := p.conf.IdleTimeout; d > 0 && !s.armed {
		s.arm(d)
	}
	s.mu.Unlock()
	// A drain between the caller's check and the push has missed the connection.
	if !c.stale() && !p.final.Load() {
		return
	}
	s.mu.Lock()
	mine := c.idle
	s.remove(c)
	s.mu.Unlock()
	if mine {
		c.close(t)
	}
}

// arm sets the one timer of the stripe; the caller holds mu.
func (s *stripe) arm(d time.Duration) {
	s.armed = true
	if s.timer == nil {
		s.timer = time.AfterFunc(d, func() { task.Go("idle connections", s.expire, nil) })
		return
	}
	s.timer.Reset(d)
}

// expire closes what has been idle for too long. The timer is armed by the first connection that
// becomes idle and looks again when the longest idle one will be due, so a request costs no timer.
func (s *stripe) expire() {
	now, limit := time.Now(), s.pool.conf.IdleTimeout
	s.mu.Lock()
	n := 0
	for n < len(s.idle) && now.Sub(s.idle[n].idleSince) >= limit {
		s.idle[n].idle = false
		n++
	}
	due := append([]*Conn(nil), s.idle[:n]...)
	left := copy(s.idle, s.idle[n:])
	clear(s.idle[left:])
	s.idle = s.idle[:left]
	s.armed = false
	if left > 0 {
		s.arm(limit - now.Sub(s.idle[0].idleSince))
	}
	s.mu.Unlock()
	s.pool.conf.Traffic.CxIdleTimeout.Add(uint64(n))
	stream.Do(func(t *stream.Turn) {
		for _, c := range due {
			c.close(t)
		}
	})
}

// remove takes a connection out of the stack; the caller holds mu.
func (s *stripe) remove(c *Conn) {
	if !c.idle {
		return
	}
	c.idle = false
	for i, x := range s.idle {
		if x == c {
			last := len(s.idle) - 1
			copy(s.idle[i:], s.idle[i+1:])
			s.idle[last] = nil
			s.idle = s.idle[:last]
			return
		}
	}
}

func (s *stripe) takeAll() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.idle
	s.idle = nil
	for _, c := range all {
		c.idle = false
	}
	if s.timer != nil && s.timer.Stop() {
		s.armed = false
	}
	return all
}
