package h1

import (
	"math"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
)

// write appends to the output and counts what the stream has sent.
func (l *link) write(t *stream.Turn, s string) {
	l.w.Begin().AppendString(s)
	l.w.End(t)
	l.sent.Add(uint64(len(s)))
}

// encoded counts what was appended to out since it had n bytes, head of them fields of a head.
func (l *link) encoded(out *buf.Chain, n, head int) {
	l.sent.Add(uint64(out.Len() - n))
	l.headSent.Add(uint64(head))
}

// Protocol implements stream.Encoder.
func (c *ServerConn) Protocol() stream.Protocol {
	if c.facts.Load()&factHTTP10 != 0 {
		return stream.HTTP10
	}
	return stream.HTTP11
}

// EncodeInterim implements stream.Encoder.
func (c *ServerConn) EncodeInterim(t *stream.Turn, m *header.Map) {
	if c.answered.Load() {
		return
	}
	out := c.w.Begin()
	n := out.Len()
	status := statusOf(m)
	encodeResponse(out, &c.opt.Options, m, status, c.facts.Load()&factHTTP10 != 0, extraNone, plan{})
	c.encoded(out, n, 0)
	c.w.End(t)
}

// EncodeHeaders implements stream.Encoder. It says connection: close in the head when the
// connection cannot or shall not be used again: the request is not whole, its sender wants it, we
// drain, or the body has no other end.
func (c *ServerConn) EncodeHeaders(t *stream.Turn, m *header.Map, end bool) {
	if c.answered.Load() {
		return
	}
	f := c.facts.Load()
	r := reply{end: end, isHead: f&factHead != 0, connect: f&factConnect != 0, http10: f&factHTTP10 != 0}
	status := statusOf(m)
	p := responsePlan(m, status, r)
	// DIVERGES(unasked-upgrade): Envoy passes a 101 that nobody asked for on and keeps the connection,
	// on which neither end can say any more what comes next; here it ends with that.
	said := hasToken(m.Value(header.Connection), "close")
	c.lastReply = said || f&factClose != 0 || c.draining.Load() || !c.whole.Load() ||
		p.frame == frameRaw || p.frame == frameClose || status == 101
	x := extraNone
	switch {
	case p.frame == frameRaw || said:
	case c.lastReply:
		x = extraClose
	case r.http10:
		x = extraKeepAlive
	}
	c.out.begin(p)
	out := c.w.Begin()
	n := out.Len()
	size := encodeResponse(out, &c.opt.Options, m, status, r.http10, x, p)
	c.encoded(out, n, size)
	if end {
		c.out.end(out, &c.opt.Options, nil)
	}
	c.w.End(t)
	if end {
		c.responseDone()
	}
}

// EncodeData implements stream.Encoder.
func (c *ServerConn) EncodeData(t *stream.Turn, p []byte, end bool) {
	if c.answered.Load() {
		return
	}
	out := c.w.Begin()
	n := out.Len()
	c.out.data(out, p)
	if end {
		c.out.end(out, &c.opt.Options, nil)
	}
	c.encoded(out, n, 0)
	c.w.End(t)
	if end || c.out.broken {
		c.responseDone()
	}
}

// EncodeTrailers implements stream.Encoder.
func (c *ServerConn) EncodeTrailers(t *stream.Turn, m *header.Map) {
	if c.answered.Load() {
		return
	}
	out := c.w.Begin()
	n := out.Len()
	c.out.end(out, &c.opt.Options, m)
	c.encoded(out, n, 0)
	c.w.End(t)
	c.responseDone()
}

// responseDone ends the connection if this was its last response.
func (c *ServerConn) responseDone() {
	whole := c.whole.Load()
	c.answered.Store(true)
	switch {
	case !whole:
		// The client may be in the middle of sending: closing now could make it lose the response.
		c.closeSoon()
	case c.lastReply || c.out.broken || c.draining.Load():
		c.closing.Store(true)
		c.w.CloseAfterFlush()
		c.guard()
	}
}

// Reset implements stream.Encoder: HTTP/1 can only end the connection. What was encoded is still
// sent.
func (c *ServerConn) Reset(*stream.Turn, *stream.Fault) {
	if c.answered.Swap(true) {
		return
	}
	c.closeSoon()
}

// closeSoon sends what is left and FIN, then waits for the client to close, up to the timeout.
//
// DIVERGES(delayed-close): Envoy sends FIN when the timeout is over, not before it.
func (c *ServerConn) closeSoon() {
	c.closing.Store(true)
	if c.opt.DelayedCloseTimeout <= 0 {
		c.w.CloseAfterFlush()
	} else {
		c.w.CloseWrite()
		c.guard()
	}
	c.awake()
}

// guard bounds how long a closing connection may last.
func (c *ServerConn) guard() {
	if c.opt.DelayedCloseTimeout <= 0 {
		return
	}
	c.lastLeft.Store(math.MaxInt64)
	// An error means that the socket is closed already, which the reader sees.
	_ = c.w.SetReadDeadline(time.Now().Add(c.opt.DelayedCloseTimeout))
}

// Release implements stream.Encoder.
func (c *ServerConn) Release(t *stream.Turn) {
	c.Reset(t, nil)
	c.setTarget(stream.Target{})
	if c.whole.Load() {
		giveMap(c.m)
		giveMap(c.trailers)
		c.m, c.trailers = nil, nil
	}
	c.paused.Store(false)
	c.busy.Store(false)
	c.awake()
}
