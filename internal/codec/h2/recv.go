package h2

import (
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
)

// onData handles a DATA frame.
func (c *conn) onData(t *stream.Turn, f frame) {
	p, size := f.p, int64(len(f.p))
	if f.id == 0 {
		c.fail(t, codeProtocol, "http2.data_on_connection")
		return
	}
	if f.flags&flagPadded != 0 {
		if len(p) == 0 || int(p[0]) >= len(p) {
			c.fail(t, codeProtocol, "http2.padding")
			return
		}
		p = p[1 : len(p)-int(p[0])]
	}
	end := f.flags&flagEndStream != 0
	if len(f.p) == 0 && !end && c.emptyFrame(t) {
		return
	}
	if len(f.p) > 0 {
		c.flood.empty = 0
	}
	var a after
	c.mu.Lock()
	if size > c.recvWin {
		c.mu.Unlock()
		c.fail(t, codeFlowControl, "http2.flow_control")
		return
	}
	c.recvWin -= size
	s := c.streams[f.id]
	if s == nil || s.readEnd {
		c.giveWindow(t, size)
		idle := s == nil && c.isIdle(f.id)
		if s != nil {
			c.resetStream(t, s, codeStreamClosed, &a)
		}
		c.mu.Unlock()
		if idle {
			c.fail(t, codeProtocol, "http2.data_on_idle_stream")
			return
		}
		a.run(t, c)
		return
	}
	if size > s.recvWin {
		c.mu.Unlock()
		c.fail(t, codeFlowControl, "http2.flow_control")
		return
	}
	s.recvWin -= size
	s.owed += size - int64(len(p))
	s.traffic.WireReceived += uint64(headerSize + size)
	bad := !s.headed
	if s.left >= 0 {
		s.left -= int64(len(p))
		bad = bad || s.left < 0 || end && s.left != 0
	}
	if bad {
		c.giveWindow(t, size)
		c.mu.Unlock()
		c.invalid(t, f.id, messagingRule)
		return
	}
	c.take(t, s, p, size, end, &a)
	c.mu.Unlock()
	a.run(t, c)
}

// take passes data on, or queues it. The caller holds c.mu, which is free while the data is posted.
func (c *conn) take(t *stream.Turn, s *Stream, p []byte, size int64, end bool, a *after) {
	if s.released || s.told {
		c.giveWindow(t, size)
		if end {
			s.readEnd = true
			c.settle(s, a)
		}
		return
	}
	s.readEnd = s.readEnd || end
	if s.paused || s.delivering || s.noRoom || len(s.inq) > 0 || s.crowded(s.target.M) {
		s.queue(c, p)
		if end {
			s.inEnd = endData
		}
		if c.queued <= int64(c.opt.ConnectionWindow) {
			c.giveWindow(t, size)
		} else {
			c.giveWindow(t, size-int64(len(p))) // the rest as it is delivered
			if n := len(s.inq); n > 0 && len(p) > 0 {
				s.inq[n-1].held += len(p)
			}
		}
		c.settle(s, a)
		return
	}
	c.giveWindow(t, size)
	s.delivering = true
	to := s.target
	if len(p) > 0 {
		s.delivered(t, int64(len(p)))
	}
	c.mu.Unlock()
	if len(p) > 0 {
		to.Post(t, stream.Event{Kind: stream.EventData, Data: p})
	}
	if end {
		// The end comes apart from the last bytes, as from HTTP/1.
		to.Post(t, stream.Event{Kind: stream.EventData, End: true})
	}
	c.mu.Lock()
	c.deliver(t, s, a)
	c.settle(s, a)
}

// queue keeps a copy of p. The caller holds c.mu.
func (s *Stream) queue(c *conn, p []byte) {
	if len(p) == 0 {
		return
	}
	c.queued += int64(len(p))
	s.window = min(s.window, slowWindow)
	if n := len(s.inq); n > 0 {
		if k := s.inq[n-1]; len(k.block.B)-k.n >= len(p) {
			k.n += copy(k.block.B[k.n:], p)
			return
		}
	}
	k := chunks.Get()
	k.block = buf.GetBlock(len(p))
	k.n = copy(k.block.B, p)
	s.inq = append(s.inq, k)
}

// slowWindow is how much the peer may send on a stream that takes less than comes: what was granted
// before still arrives, and is not granted again.
const slowWindow = 512 << 10

// delivered returns window for n bytes that the stream has got, when half of what it may have is used.
// A stream that keeps up is granted more each time, up to the configured window. The caller holds c.mu.
func (s *Stream) delivered(t *stream.Turn, n int64) {
	s.owed += n
	c := s.c
	if s.recvWin*2 > s.window || s.readEnd || s.gone {
		return
	}
	if len(s.inq) == 0 {
		s.window = min(2*s.window, int64(c.opt.StreamWindow))
	}
	give := min(s.owed, s.window-s.recvWin)
	if give <= 0 {
		return
	}
	appendWord(c.w.Begin(), frameWindowUpdate, s.id, uint32(give))
	c.w.End(t)
	s.recvWin += give
	s.owed -= give
}

// giveWindow returns n bytes of the connection's window, when it is half of it. The caller holds c.mu.
func (c *conn) giveWindow(t *stream.Turn, n int64) {
	c.owed += n
	if c.owed*2 < max(int64(c.opt.ConnectionWindow), defaultWindow) {
		return
	}
	appendWord(c.w.Begin(), frameWindowUpdate, 0, uint32(c.owed))
	c.w.End(t)
	c.recvWin += c.owed
	c.owed = 0
}

// deliver posts what waits, as long as the stream takes it. The caller has set delivering and holds
// c.mu, which is free while something is posted.
func (c *conn) deliver(t *stream.Turn, s *Stream, a *after) {
	for !s.paused && !s.released && !s.told && (len(s.inq) > 0 || s.inEnd != endNone) {
		m, to := s.target.M, s.target
		if len(s.inq) > 0 && m != nil && (s.noRoom || s.crowded(m)) {
			break
		}
		if len(s.inq) == 0 {
			c.deliverEnd(t, s)
			break
		}
		k := s.inq[0]
		copy(s.inq, s.inq[1:])
		s.inq[len(s.inq)-1] = nil
		s.inq = s.inq[:len(s.inq)-1]
		c.queued -= int64(k.n)
		if k.held > 0 {
			c.giveWindow(t, int64(k.held))
		}
		s.delivered(t, int64(k.n))
		c.mu.Unlock()
		to.Post(t, stream.Event{Kind: stream.EventData, Data: k.block.B[:k.n]})
		k.block.Put()
		*k = chunk{}
		chunks.Put(k)
		c.mu.Lock()
	}
	s.delivering = false
	if s.released || s.told {
		s.dropIn(c)
	}
	c.freed(s, a)
}

// deliverEnd posts the end of what was queued. The caller holds c.mu.
func (c *conn) deliverEnd(t *stream.Turn, s *Stream) {
	e := stream.Event{Kind: stream.EventData, End: true}
	if s.inEnd == endTrailers {
		e = stream.Event{Kind: stream.EventTrailers, Map: s.tm}
	}
	s.inEnd = endNone
	to := s.target
	c.mu.Unlock()
	to.Post(t, e)
	c.mu.Lock()
}

// crowded tells whether the stream's mailbox has no room, and has resume called when it has some. The
// caller holds c.mu.
func (s *Stream) crowded(m *stream.Monitor) bool {
	if m == nil || !m.NotifyRoom(s.resumeFn) {
		return false
	}
	s.noRoom = true
	s.pending++
	return true
}

// Pause implements stream.Encoder.
func (s *Stream) Pause(t *stream.Turn, paused bool) {
	c := s.c
	c.mu.Lock()
	s.paused = paused
	again := !paused && !s.delivering && (len(s.inq) > 0 || s.inEnd != endNone)
	if again {
		s.pending++
	}
	c.mu.Unlock()
	if again {
		// Outside the stream, where posting copies nothing.
		t.Later(s.resumeFn)
	}
}

// resume goes on to deliver. It runs outside streams and locks.
func (s *Stream) resume(t *stream.Turn) {
	c := s.c
	var a after
	c.mu.Lock()
	s.pending--
	s.noRoom = false
	if s.delivering {
		c.mu.Unlock()
		return
	}
	s.delivering = true
	c.deliver(t, s, &a)
	c.mu.Unlock()
	a.run(t, c)
}

// gotTrailers passes trailers on, or queues them behind the data.
func (c *conn) gotTrailers(t *stream.Turn, s *Stream, m *header.Map) {
	var a after
	c.mu.Lock()
	s.readEnd = true
	switch {
	case s.released || s.told || s.gone:
		giveMap(m)
	case s.paused || s.delivering || s.noRoom || len(s.inq) > 0:
		s.tm, s.inEnd = m, endTrailers
	default:
		s.tm, s.inEnd, s.delivering = m, endTrailers, true
		c.deliver(t, s, &a)
	}
	c.settle(s, &a)
	c.mu.Unlock()
	a.run(t, c)
}
