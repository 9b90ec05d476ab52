package h2

import (
	"encoding/binary"

	"sidecar/api/header"
	"sidecar/api/stream"
)

// minContinuations is how many CONTINUATION frames any head may have; a larger limit of heads allows
// more. Envoy has none of its own: what ends a flood there is the limit of headers.
const minContinuations = 1024

// onHeaders handles a HEADERS frame, whose fragment may be only the beginning of a head.
func (c *conn) onHeaders(t *stream.Turn, f frame) {
	if f.id == 0 || c.server != nil && f.id&1 == 0 {
		c.drop(t)
		return
	}
	p, pad := f.p, 0
	if f.flags&flagPadded != 0 {
		if len(p) == 0 {
			c.fail(t, codeFrameSize, "HEADERS: no padding length")
			return
		}
		pad, p = int(p[0]), p[1:]
	}
	self := false
	if f.flags&flagPriority != 0 {
		if len(p) < 5 {
			c.fail(t, codeFrameSize, "HEADERS: no priority")
			return
		}
		self = binary.BigEndian.Uint32(p)&maxStreamID == f.id
		p = p[5:]
	}
	switch {
	case pad > len(p):
		c.fail(t, codeProtocol, "HEADERS: insufficient padding size")
		return
	case self:
		c.drop(t)
		return
	}
	f.p = p[:len(p)-pad]
	if f.flags&flagEndHeaders != 0 {
		c.decode(t, f)
		return
	}
	if len(f.p) == 0 && c.emptyFrame(t) {
		return
	}
	c.open, c.cont = f, 0
	c.fields.Append(f.p)
	c.open.p = nil
}

func (c *conn) onContinuation(t *stream.Turn, f frame) {
	if c.open.id == 0 {
		c.fail(t, codeProtocol, "CONTINUATION: unexpected")
		return
	}
	end := f.flags&flagEndHeaders != 0
	if len(f.p) == 0 && !end && c.emptyFrame(t) {
		return
	}
	limit := c.opt.MaxHeadersBytes + minMaxFrame
	c.cont++
	if c.cont > max(minContinuations, limit/minMaxFrame+1) || c.fields.Len()+len(f.p) > 2*limit {
		c.flooded(t, "codec_error:Too_many_CONTINUATION_frames")
		return
	}
	c.fields.Append(f.p)
	if !end {
		return
	}
	g := c.open
	c.open = frame{}
	g.p = c.fields.Bytes()
	c.decode(t, g)
	c.fields.Reset()
}

// decode reads a whole head, whatever becomes of it: the tables must follow the peer's.
func (c *conn) decode(t *stream.Turn, f frame) {
	c.mu.Lock()
	s := c.streams[f.id]
	idle := s == nil && c.isIdle(f.id)
	trailers := s != nil && s.headed
	away := c.sentAway
	c.mu.Unlock()
	if s == nil && (idle && c.client != nil || !idle && c.server != nil && f.id > c.lastRead) {
		c.drop(t)
		return
	}
	kind, server := responseHead, (*ServerOptions)(nil)
	if c.server != nil {
		kind, server = requestHead, c.server.sopt
	}
	if trailers {
		kind++
	}
	m := maps.Get()
	c.head.begin(kind, c.opt, server, m)
	if err := c.dec.Decode(f.p, &c.head); err != nil {
		giveMap(m)
		c.open = frame{id: f.id}
		c.fail(t, codeCompression, "")
		return
	}
	p := c.head.finish()
	h := read{m: m, size: uint64(len(f.p)), end: f.flags&flagEndStream != 0, p: p, id: f.id}
	switch {
	case trailers:
		c.trailersRead(t, s, h)
	case c.server != nil && s == nil && idle:
		if away {
			giveMap(m)
			return
		}
		c.server.begin(t, h)
	case c.client != nil && s != nil:
		c.client.response(t, h)
	default:
		// Of a stream that has ended, or of a number that was passed over: nobody's, as in Envoy.
		giveMap(m)
		if c.client != nil {
			c.opt.Stats.HeadersNoStream.Inc()
		}
	}
}

// read is a head, or trailers, as it was read.
type read struct {
	m    *header.Map
	p    *problem // nil: nothing is wrong
	size uint64   // of the block
	id   uint32
	end  bool
}

func (c *conn) trailersRead(t *stream.Turn, s *Stream, h read) {
	c.mu.Lock()
	if c.streams[h.id] != s {
		c.mu.Unlock()
		giveMap(h.m)
		return
	}
	closed := s.readEnd
	s.traffic.WireReceived += headerSize + h.size
	if h.p == nil && (s.left > 0 || !h.end) {
		h.p = errMessaging
	}
	c.mu.Unlock()
	switch {
	case closed:
		giveMap(h.m)
		c.offended(t, h.id, unknownError)
	case h.p != nil:
		giveMap(h.m)
		c.refuse(t, h.id, h.p)
	default:
		if c.server != nil {
			c.opt.Stats.Trailers.Inc()
		}
		c.gotTrailers(t, s, h.m)
	}
}

// refuse ends a stream for its head or trailers.
func (c *conn) refuse(t *stream.Turn, id uint32, p *problem) {
	if p.reset {
		c.streamError(t, id, codeInternal, p.details)
		return
	}
	c.invalid(t, id, p.details)
}

// invalid ends a stream whose message is malformed and, unless the options say otherwise, its
// connection, as Envoy does.
func (c *conn) invalid(t *stream.Turn, id uint32, details string) {
	c.opt.Stats.RxMessagingError.Inc()
	if c.opt.StreamErrorOnInvalid {
		c.streamError(t, id, codeProtocol, details)
		return
	}
	c.offended(t, id, details)
}

// offended ends the connection for what came on one stream, which is told so.
func (c *conn) offended(t *stream.Turn, id uint32, details string) {
	var a after
	c.mu.Lock()
	if s := c.streams[id]; s != nil {
		c.tell(s, c.offence(details), &a)
	}
	c.mu.Unlock()
	// First, or whoever is told resets a stream on a connection that says nothing any more.
	c.drop(t)
	a.run(t, c)
}
