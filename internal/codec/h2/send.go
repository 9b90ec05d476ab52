package h2

import (
	"strconv"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/task"
)

// EncodeData implements stream.Encoder.
func (s *Stream) EncodeData(t *stream.Turn, p []byte, end bool) {
	c := s.c
	var a after
	c.mu.Lock()
	if !s.writable() {
		c.mu.Unlock()
		return
	}
	if s.noBody() {
		p = nil
	}
	if s.outLeft >= 0 {
		s.outLeft -= int64(len(p))
		if s.outLeft < 0 || end && s.outLeft != 0 {
			c.broken(t, s, &a)
			c.mu.Unlock()
			a.run(t, c)
			return
		}
	}
	s.data(t, t.Holder(p), p, end)
	if end {
		s.finished(t, &a)
	}
	c.mu.Unlock()
	a.run(t, c)
}

// writable tells whether there is still something to send on the stream. The caller holds c.mu.
func (s *Stream) writable() bool { return s.headSent && !s.whole && !s.gone && !s.released }

// broken resets a stream whose body is not what its head announced. The caller holds c.mu.
func (c *conn) broken(t *stream.Turn, s *Stream, a *after) {
	s.whole = true
	if !s.told {
		s.told = true
		a.notify = append(a.notify, note{s.target, stream.Event{Kind: stream.EventReset, Fault: c.localFault()}})
	}
	c.resetStream(t, s, codeInternal, a)
}

// data sends p, or queues what may not go yet; block is what p is a part of, nil if that is not known.
// The caller holds c.mu.
func (s *Stream) data(t *stream.Turn, block *buf.Block, p []byte, end bool) {
	c := s.c
	for s.outq.Len() == 0 && (len(p) > 0 || end) {
		n := min(len(p), c.maxFrame, int(max(min(s.sendWin, c.sendWin), 0)))
		if len(p) > 0 && (n == 0 || c.w.Full()) {
			break
		}
		last := end && n == len(p)
		s.begun(n, last)
		appendData(c.w.Begin(), endFlag(last), s.id, block, p[:n])
		c.w.End(t)
		p = p[n:]
		if last {
			return
		}
	}
	if len(p) > 0 {
		s.outq.AppendShared(block, p)
		c.opt.Stats.PendingSendBytes.Add(int64(len(p)))
		if s.outq.Len() >= streamHigh {
			s.full = true
		}
	}
	if end {
		s.outEnd = endData
	}
	s.list()
}

// begun accounts for a DATA frame of n bytes that is being appended. The caller holds c.mu.
func (s *Stream) begun(n int, end bool) {
	c := s.c
	s.sentEnd = s.sentEnd || end
	s.sendWin -= int64(n)
	c.sendWin -= int64(n)
	s.traffic.WireSent += uint64(headerSize + n)
	c.dataSent++
	c.framed()
}

func endFlag(end bool) uint8 {
	if end {
		return flagEndStream
	}
	return 0
}

// list puts the stream among those that may send. The caller holds c.mu.
func (s *Stream) list() {
	if !s.listed && s.outq.Len() > 0 && s.sendWin > 0 {
		s.listed = true
		s.c.ready = append(s.c.ready, s)
	}
}

// pump sends what waits, one frame a stream in turn. The caller holds c.mu.
func (c *conn) pump(t *stream.Turn, a *after) {
	i := 0
	for i < len(c.ready) && c.sendWin > 0 && !c.w.Full() {
		s := c.ready[i]
		i++
		n := min(s.outq.Len(), c.maxFrame, int(max(min(s.sendWin, c.sendWin), 0)))
		if n == 0 {
			s.listed = false
			continue
		}
		last := n == s.outq.Len()
		end := last && s.outEnd == endData
		s.begun(n, end)
		moveData(c.w.Begin(), endFlag(end), s.id, &s.outq, n)
		c.w.End(t)
		c.opt.Stats.PendingSendBytes.Add(-int64(n))
		if s.full && s.outq.Len() <= streamLow {
			s.full = false
			if !s.released && !s.told {
				a.notify = append(a.notify, note{s.target, stream.Event{Kind: stream.EventDrained}})
			}
		}
		if !last && s.sendWin > 0 {
			c.ready = append(c.ready, s)
			continue
		}
		s.listed = false
		if last {
			s.emptied(t, a)
		}
	}
	c.ready = c.ready[:copy(c.ready, c.ready[i:])]
	clear(c.ready[len(c.ready):cap(c.ready)])
}

// emptied sends what comes behind the queue. The caller holds c.mu.
func (s *Stream) emptied(t *stream.Turn, a *after) {
	if s.outEnd == endTrailers {
		s.writeTrailers(t, s.trailers)
		giveMap(s.trailers)
		s.trailers = nil
	}
	if s.outEnd != endNone {
		s.outEnd = endNone
		s.finished(t, a)
	}
}

// finished is called when the end was encoded; it may be in the queue. The caller holds c.mu.
func (s *Stream) finished(t *stream.Turn, a *after) {
	s.whole = true
	c := s.c
	if !s.sentEnd {
		return
	}
	switch {
	case s.rstAfter:
		c.resetStream(t, s, s.rstCode, a)
	case c.server != nil && !s.readEnd:
		// Nothing that still comes is of use; the client is told not to send it, as Envoy does.
		c.resetStream(t, s, codeNone, a)
	default:
		c.settle(s, a)
	}
}

// resetStream sends RST_STREAM and forgets the stream. The caller holds c.mu.
func (c *conn) resetStream(t *stream.Turn, s *Stream, why code, a *after) {
	if s.gone {
		return
	}
	if !c.ended && s.headersOut() {
		c.opt.Stats.TxReset.Inc()
		s.traffic.WireSent += headerSize + 4
		appendWord(c.w.Begin(), frameReset, s.id, uint32(why))
		c.w.End(t)
		if c.controlled() {
			c.cutOff(t)
		}
	}
	s.whole = true
	if !s.readEnd || s.released || s.told {
		s.dropIn(c)
	}
	s.dropOut(c)
	c.remove(s, a)
}

// headersOut tells whether the peer knows of the stream.
func (s *Stream) headersOut() bool { return s.c.server != nil || s.headSent }

// EncodeTrailers implements stream.Encoder.
func (s *Stream) EncodeTrailers(t *stream.Turn, m *header.Map) {
	c := s.c
	var a after
	c.mu.Lock()
	if !s.writable() {
		c.mu.Unlock()
		return
	}
	switch {
	case s.outLeft > 0:
		c.broken(t, s, &a)
	case m.Len() == 0 || s.noBody():
		s.data(t, nil, nil, true)
		s.finished(t, &a)
	case s.outq.Len() > 0:
		s.trailers = maps.Get()
		s.trailers.CopyFrom(m)
		s.outEnd, s.whole = endTrailers, true
	default:
		s.writeTrailers(t, m)
		s.finished(t, &a)
	}
	c.mu.Unlock()
	a.run(t, c)
}

// noBody tells that the response has no body whatever its head says: it answers HEAD.
func (s *Stream) noBody() bool { return s.c.server != nil && s.isHead }

func (s *Stream) writeTrailers(t *stream.Turn, m *header.Map) {
	s.sentEnd = true
	s.c.writeHead(t, s, m, true, nil)
}

// rewrite changes a head on its way out.
type rewrite struct {
	method, protocol, status string
	dropLength               bool
	bare                     bool // CONNECT has neither scheme nor path
}

// connectionSpecific tells fields that HTTP/2 does not have (RFC 9113, section 8.2.2).
func connectionSpecific(id header.ID, value string) bool {
	switch id {
	case header.Connection, header.KeepAlive, header.ProxyConnection, header.TransferEncoding,
		header.Upgrade, header.HTTP2Settings:
		return true
	case header.TE:
		return value != "trailers"
	}
	return false
}

// fieldOverhead is more than HPACK adds to a field's name and value.
const fieldOverhead = 16

// writeHead encodes a head into the output. The caller holds c.mu.
func (c *conn) writeHead(t *stream.Turn, s *Stream, m *header.Map, end bool, r *rewrite) {
	out := c.w.Begin()
	tail := out.Tail(headerSize + m.Bytes() + fieldOverhead*(m.Len()+4) + 64)
	b := c.appendFields(tail[:headerSize], m, r)
	n := len(b) - headerSize
	flags := uint8(0)
	if end {
		flags = flagEndStream
	}
	size := n
	if n <= c.maxFrame {
		putHeader(b, n, frameHeaders, flags|flagEndHeaders, s.id)
		out.Extend(len(b))
	} else {
		rest := append([]byte(nil), b[headerSize:]...)
		appendFrame(out, frameHeaders, flags, s.id, rest[:c.maxFrame])
		for rest = rest[c.maxFrame:]; len(rest) > c.maxFrame; rest = rest[c.maxFrame:] {
			appendFrame(out, frameContinuation, 0, s.id, rest[:c.maxFrame])
		}
		appendFrame(out, frameContinuation, flagEndHeaders, s.id, rest)
	}
	c.w.End(t)
	c.framed()
	s.traffic.WireSent += uint64(headerSize + size)
	s.traffic.HeaderSent += uint64(size)
}

func (c *conn) appendFields(b []byte, m *header.Map, r *rewrite) []byte {
	for i := range m.Len() {
		name, value := m.At(i)
		id := m.IDAt(i)
		switch {
		case connectionSpecific(id, value):
			continue
		case r == nil:
		case r.bare && (id == header.Scheme || id == header.Path || id == header.Protocol):
			continue
		case id == header.Method && r.method != "":
			value = r.method
		case id == header.Status && r.status != "":
			value = r.status
		case id == header.ContentLength && r.dropLength:
			continue
		case r.protocol != "" && name[0] != ':':
			b = c.enc.Append(b, header.Protocol, ":protocol", r.protocol)
			r.protocol = ""
		}
		b = c.enc.Append(b, id, name, value)
	}
	if r != nil && r.protocol != "" {
		b = c.enc.Append(b, header.Protocol, ":protocol", r.protocol)
	}
	return b
}

// mapLength is the content-length of a head; -1 if there is none.
func mapLength(m *header.Map) int64 {
	v, ok := m.GetID(header.ContentLength)
	if !ok {
		return -1
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// Reset implements stream.Encoder. What waits to be sent is lost, unless the stream was sent to its end:
// then the reset comes behind it.
func (s *Stream) Reset(t *stream.Turn, f *stream.Fault) {
	c := s.c
	var a after
	c.mu.Lock()
	s.told = true
	s.reset(t, f, &a)
	c.mu.Unlock()
	a.run(t, c)
}

// reset is Reset under c.mu.
func (s *Stream) reset(t *stream.Turn, f *stream.Fault, a *after) {
	c := s.c
	if s.gone {
		return
	}
	why := c.codeOf(f)
	if !s.delivering {
		s.dropIn(c)
	}
	if s.whole && !s.sentEnd {
		s.rstAfter = !s.readEnd
		if s.rstCode = why; c.server != nil {
			s.rstCode = codeNone // the answer is whole: no more of the request is wanted
		}
		return
	}
	c.resetStream(t, s, why, a)
}

// codeOf is what a stream is reset with for a fault of ours or of its other side: a code that is
// passed on would tell the peer of what it has no part in.
func (c *conn) codeOf(f *stream.Fault) code {
	if f != nil && f.Reason == stream.ReasonLocalRefusedStream {
		return codeRefused
	}
	return codeInternal
}

// Release implements stream.Encoder. A stream whose end waits in the queue goes on without its user.
func (s *Stream) Release(t *stream.Turn) {
	c := s.c
	var a after
	c.mu.Lock()
	if !s.gone && !(s.whole && (s.readEnd || c.server != nil)) {
		s.reset(t, nil, &a)
	}
	s.released = true
	s.target = stream.Target{}
	if !s.delivering {
		s.dropIn(c)
	}
	if !s.gone && !s.sentEnd {
		c.guardFlush(s)
	}
	c.freed(s, &a)
	c.mu.Unlock()
	a.run(t, c)
}

// SetFlushTimeout changes how long what is left of the stream may wait once it is finished; 0 is for
// ever.
func (s *Stream) SetFlushTimeout(d time.Duration) {
	s.c.mu.Lock()
	s.flush = d
	s.c.mu.Unlock()
}

// guardFlush bounds how long what is left of a finished stream may wait. The caller holds c.mu.
func (c *conn) guardFlush(s *Stream) {
	if s.flush <= 0 {
		return
	}
	id := s.id
	s.timer = time.AfterFunc(s.flush, func() {
		task.Go("HTTP/2 flush timeout", func() { stream.Do(func(t *stream.Turn) { c.flushExpired(t, id) }) }, nil)
	})
}

func (c *conn) flushExpired(t *stream.Turn, id uint32) {
	var a after
	c.mu.Lock()
	if s := c.streams[id]; s != nil && s.released {
		c.opt.Stats.TxFlushTimeout.Inc()
		c.resetStream(t, s, codeCancel, &a)
	}
	c.mu.Unlock()
	a.run(t, c)
}
