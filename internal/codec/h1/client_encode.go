package h1

import (
	"sidecar/api/header"
	"sidecar/api/stream"
)

// Protocol implements stream.Encoder.
func (c *ClientConn) Protocol() stream.Protocol { return stream.HTTP11 }

// EncodeInterim implements stream.Encoder. A request has no interim heads.
func (c *ClientConn) EncodeInterim(*stream.Turn, *header.Map) {}

// EncodeHeaders implements stream.Encoder.
func (c *ClientConn) EncodeHeaders(t *stream.Turn, m *header.Map, end bool) {
	var f uint32
	target := m.Value(header.Path)
	switch m.Value(header.Method) {
	case "HEAD":
		f |= factHead
	case "CONNECT":
		f |= factConnect
		target = m.Value(header.Authority)
	}
	if target == "" || !token(m.Value(header.Method)) {
		c.incomplete(t)
		return
	}
	if isUpgrade(m) {
		f |= factUpgrade
	}
	c.facts.Store(f)
	if hasToken(m.Value(header.Connection), "close") {
		c.last.Store(true)
	}
	p := requestPlan(m, end)
	c.out.begin(p)
	c.headed.Store(true)
	out := c.w.Begin()
	n := out.Len()
	size := encodeRequest(out, &c.opt.Options, m, p)
	c.encoded(out, n, size)
	if end {
		c.out.end(out, &c.opt.Options, nil)
	}
	c.w.End(t)
	if end {
		c.requestDone(t)
	}
}

// incomplete refuses a head that makes no request line, since a filter took something out of it.
func (c *ClientConn) incomplete(t *stream.Turn) {
	to := c.currentTarget()
	c.shut()
	to.Post(t, stream.Event{Kind: stream.EventReset, Fault: &stream.Fault{
		Side: stream.Internal, Flag: stream.LocalReset, Reason: stream.ReasonLocalReset, Status: 503,
		Details: "filter_removed_required_request_headers",
	}})
}

// EncodeData implements stream.Encoder.
func (c *ClientConn) EncodeData(t *stream.Turn, p []byte, end bool) {
	if c.whole.Load() || !c.headed.Load() {
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
		c.requestDone(t)
	}
}

// EncodeTrailers implements stream.Encoder.
func (c *ClientConn) EncodeTrailers(t *stream.Turn, m *header.Map) {
	if c.whole.Load() || !c.headed.Load() {
		return
	}
	out := c.w.Begin()
	n := out.Len()
	c.out.end(out, &c.opt.Options, m)
	c.encoded(out, n, 0)
	c.w.End(t)
	c.requestDone(t)
}

// requestDone notes the end of the request. A tunnel's end is that of our side of the connection. A
// body that is shorter than announced leaves the peer waiting: the connection ends, and the stream
// is told by its reader; one that was longer was cut, and the connection ends with the response.
func (c *ClientConn) requestDone(*stream.Turn) {
	switch {
	case c.out.frame == frameRaw:
		c.last.Store(true)
		c.w.CloseWrite()
	case c.out.broken:
		c.last.Store(true)
		if c.out.left > 0 {
			c.w.CloseAfterFlush()
		}
	}
	c.whole.Store(true)
}

// Reset implements stream.Encoder: HTTP/1 can only end the connection.
func (c *ClientConn) Reset(*stream.Turn, *stream.Fault) {
	over := c.answered.Load() && c.whole.Load()
	if over && !c.last.Load() {
		return // both directions are over: there is nothing to reset
	}
	if !over {
		c.cut.Store(true)
	}
	c.shut()
}

// shut ends the connection without telling the stream.
func (c *ClientConn) shut() {
	c.last.Store(true)
	c.setTarget(stream.Target{})
	c.local.Store(true)
	c.closing.Store(true)
	c.w.Close()
	c.awake()
}

// Release implements stream.Encoder. The connection serves another stream if both directions of
// this one have ended, nothing was left over and nobody said that it is the last.
func (c *ClientConn) Release(t *stream.Turn) {
	done := c.answered.Load() && c.whole.Load() && !c.last.Load() && !c.closing.Load()
	c.setTarget(stream.Target{})
	if !done {
		if c.answered.Load() {
			c.active.Store(false) // so that the reader does not take the request for one cut off
		}
		c.shut()
		c.active.Store(false)
		return
	}
	giveMap(c.m)
	giveMap(c.trailers)
	c.m, c.trailers = nil, nil
	c.paused.Store(false)
	c.active.Store(false)
	c.handler.OnIdle(t)
}
