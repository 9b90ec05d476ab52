package h2

import (
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
)

// onData handles a DATA frame.
func (c *conn) onData(t *stream.Turn, f frame) {
	p, size := f.p, int64(len(f.p))
	if f.id == 0 {
		c.fail(t, codeProtocol, "DATA: stream_id == 0")
		return
	}
	if f.flags&flagPadded != 0 {
		if len(p) == 0 || int(p[0]) >= len(p) {
			c.fail(t, codeProtocol, "DATA: insufficient padding size")
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
		c.fail(t, codeFlowControl, "DATA: more than the window")
		return
	}
	c.recvWin -= size
	s := c.streams[f.id]
	if s == nil || s.readEnd {
		c.giveWindow(t, size)
		idle := s == nil && c.isIdle(f.id)
		c.mu.Unlock()
		switch {
		case idle:
			c.fail(t, codeProtocol, "DATA: stream in idle")
		case s != nil:
			c.fail(t, codeStreamClosed, "DATA: stream in half-closed(remote)")
		}
		return
	}
	if size > s.recvWin+c.slack {
		c.mu.Unlock()
		c.fail(t, codeFlowControl, "DATA: more than the window")
		return
	}
	s.recvWin -= size
	s.traffic.WireReceived += uint64(headerSize + size)
	bad := !s.headed
	if s.left >= 0 {
		s.left -= int64(len(p))
		bad = bad || s.left < 0 || end && s.left != 0
	}
	if bad {
		// A body that is not as long as announced ends its stream alone.
		c.giveWindow(t, size)
		c.mu.Unlock()
		c.streamError(t, f.id, codeProtocol, remoteReset)
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
	if s.paused || s.delivering || s.noRoom || s.waiting() || s.crowded(s.target.M) {
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
		c.tighten(t)
		c.settle(s, a)
		return
	}
	c.giveWindow(t, size)
	s.delivering = true
	to := s.target
	s.grant(t)
	c.mu.Unlock()
	if len(p) > 0 {
		to.Post(t, stream.Event{Kind: stream.EventData, Data: p, Block: c.block})
	}
	if end {
		// The end comes apart from the last bytes, as from HTTP/1.
		to.Post(t, stream.Event{Kind: stream.EventData, End: true})
	}
	c.mu.Lock()
	c.deliver(t, s, a)
	c.settle(s, a)
}

// waiting tells whether data waits. The caller holds c.mu.
func (s *Stream) waiting() bool { return s.inHead < len(s.inq) }

// queue keeps p, by reference where that pays. The caller is the reader and holds c.mu.
func (s *Stream) queue(c *conn, p []byte) {
	if len(p) == 0 {
		return
	}
	c.queued += int64(len(p))
	s.queued += int64(len(p))
	s.slow = true
	s.window = min(s.window, c.slowWindow())
	if c.block != nil && len(p) >= buf.MinShare && c.block.Holds(p) {
		k := chunks.Get()
		*k = chunk{block: c.block.Share(), p: p}
		s.inq = append(s.inq, k)
		return
	}
	if s.waiting() {
		if k := s.inq[len(s.inq)-1]; k.room >= len(p) {
			n := len(k.p)
			k.p = k.p[:n+copy(k.p[n:n+len(p)], p)]
			k.room -= len(p)
			return
		}
	}
	k := chunks.Get()
	b := buf.GetBlock(len(p))
	*k = chunk{block: b, p: b.B[:copy(b.B, p)], room: len(b.B) - len(p)}
	s.inq = append(s.inq, k)
}

// pop takes the first chunk of what waits. The caller holds c.mu.
func (s *Stream) pop(c *conn) *chunk {
	k := s.inq[s.inHead]
	s.inq[s.inHead] = nil
	if s.inHead++; s.inHead == len(s.inq) {
		s.inq, s.inHead = s.inq[:0], 0
	} else if s.inHead >= 64 && s.inHead*2 >= len(s.inq) {
		n := copy(s.inq, s.inq[s.inHead:])
		clear(s.inq[n:])
		s.inq, s.inHead = s.inq[:n], 0
	}
	c.queued -= int64(len(k.p))
	s.queued -= int64(len(k.p))
	return k
}

// grant tells the peer that it may send more, when half of what the stream may have is used. A stream
// that keeps up is granted more each time, up to the configured window. The caller holds c.mu.
func (s *Stream) grant(t *stream.Turn) {
	c := s.c
	if s.recvWin*2 > s.window || s.readEnd || s.gone {
		return
	}
	window := s.window
	if !s.slow {
		window = min(2*window, int64(c.opt.StreamWindow))
	}
	give := window - s.recvWin - s.queued
	if give <= 0 || give*4 < window {
		return
	}
	s.window, s.slow = window, false
	appendWord(c.w.Begin(), frameWindowUpdate, s.id, uint32(give))
	c.w.End(t)
	s.recvWin += give
}

const (
	// tightenAt is how much has to wait for the peer's windows to be made smaller.
	tightenAt = 512 << 10
	// slowTotal is what the streams of a connection that take less than comes may have under way
	// altogether; slowLeast and slowMost bound what one of them gets of it.
	slowTotal = 12 << 20
	slowLeast = 256 << 10
	slowMost  = 1 << 20
)

// slowWindow is how much the peer may send on a stream that takes less than comes. The caller holds
// c.mu.
func (c *conn) slowWindow() int64 {
	return min(max(slowTotal/int64(len(c.streams)+1), slowLeast), slowMost, int64(c.opt.StreamWindow))
}

// tighten takes back, once, what streams were granted before they were known to be slow: a peer that
// uses it all at once would have us keep it all. From then on streams begin with less, and earn more
// by taking it. The caller holds c.mu.
//
// DIVERGES(http2-window): Envoy keeps its first SETTINGS, and as much as they allow.
func (c *conn) tighten(t *stream.Turn) {
	if c.tight || c.queued < tightenAt {
		return
	}
	c.tight = true
	small := c.slowWindow()
	d := c.window - small
	if d <= 0 {
		return
	}
	c.window = small
	for _, s := range c.streams {
		s.recvWin -= d
		s.window = min(s.window, small)
	}
	// Until it has acknowledged it, the peer sends what it was granted before.
	c.slack = d
	c.unacked++
	var room [6]byte
	appendFrame(c.w.Begin(), frameSettings, 0, 0, appendSetting(room[:0], settingInitialWindow, uint32(small)))
	c.w.End(t)
	for _, s := range c.streams {
		s.grant(t) // one that has taken everything has nothing more to take that would have it granted
	}
}

const (
	holdStep  = time.Millisecond
	holdTotal = 100 * time.Millisecond
)

// holdBack has the reader wait for streams to take what is there, while the peer has not heard yet
// that it sends too much: until then the kernel's buffers make it wait. That is the exception to the
// rule that a reader never waits, and bounded: it is for once in the life of a connection, ends when
// nothing was taken for a while, and what the peer may do later than it would is the same.
func (c *conn) holdBack() {
	idle := 0
	for last := int64(0); ; {
		c.mu.Lock()
		queued := c.queued
		hold := c.slack > 0 && queued >= tightenAt && c.held < holdTotal && !c.ended
		if hold {
			c.held += holdStep
		}
		c.mu.Unlock()
		if idle++; queued < last {
			idle = 0
		}
		if !hold || idle > 10 {
			return
		}
		last = queued
		time.Sleep(holdStep)
	}
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
	for !s.paused && !s.released && !s.told && (s.waiting() || s.inEnd != endNone) {
		m, to := s.target.M, s.target
		if s.waiting() && m != nil && (s.noRoom || s.crowded(m)) {
			break
		}
		if !s.waiting() {
			c.deliverEnd(t, s)
			break
		}
		k := s.pop(c)
		if k.held > 0 {
			c.giveWindow(t, int64(k.held))
		}
		s.grant(t)
		c.mu.Unlock()
		to.Post(t, stream.Event{Kind: stream.EventData, Data: k.p, Block: k.block})
		k.free()
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
	again := !paused && !s.delivering && (s.waiting() || s.inEnd != endNone)
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
	case s.paused || s.delivering || s.noRoom || s.waiting():
		s.tm, s.inEnd = m, endTrailers
	default:
		s.tm, s.inEnd, s.delivering = m, endTrailers, true
		c.deliver(t, s, &a)
	}
	c.settle(s, &a)
	c.mu.Unlock()
	a.run(t, c)
}
