package h2

import (
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/wire"
)

// ServerConn is one downstream connection. Serve's goroutine reads frames and runs the streams that
// they belong to.
type ServerConn struct {
	conn
	sopt    *ServerOptions
	handler stream.ServerHandler
}

// NewServerConn makes the codec of a connection that was accepted.
func NewServerConn(w *wire.Conn, h stream.ServerHandler, o *ServerOptions) *ServerConn {
	c := &ServerConn{sopt: o, handler: h}
	c.server = c
	c.init(w, o.withDefaults(false))
	c.opt.Stats.Downstreams.Inc()
	return c
}

// Serve reads the connection until it ends, on the calling goroutine.
func (c *ServerConn) Serve(t *stream.Turn) {
	c.keep.start(&c.conn)
	c.serve(t)
	c.handler.OnGone(t)
	t.End()
}

// Close closes the connection at once; streams that run are told by its reader. It may be called from
// any goroutine, inside streams too.
func (c *ServerConn) Close(*stream.Turn) {
	c.local.Store(true)
	c.w.Close()
}

// Local tells, once Serve has returned, that we and not the client ended the connection.
func (c *ServerConn) Local() bool { return c.local.Load() }

// Drain tells the client that the connection will end soon; streams are still taken.
func (c *ServerConn) Drain(t *stream.Turn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drained || c.sentAway || c.ended {
		return
	}
	c.drained = true
	c.opt.Stats.GoAwaySent.Inc()
	c.helloLocked(t)
	appendGoAway(c.w.Begin(), maxStreamID, codeNone, "")
	c.w.End(t)
}

// GoAway tells the client which stream is the last; the connection ends with the last that runs.
func (c *ServerConn) GoAway(t *stream.Turn) {
	var a after
	c.mu.Lock()
	if !c.sentAway && !c.ended {
		c.sentAway = true
		c.opt.Stats.GoAwaySent.Inc()
		c.helloLocked(t)
		appendGoAway(c.w.Begin(), c.lastRead, codeNone, "")
		c.w.End(t)
		a.shut = len(c.streams) == 0
	}
	c.mu.Unlock()
	a.run(t, &c.conn)
}

// begin begins the stream of a request whose head was decoded.
func (c *ServerConn) begin(t *stream.Turn, h read) {
	m := h.m
	c.mu.Lock()
	c.lastRead = h.id
	if len(c.streams) >= int(c.opt.MaxConcurrentStreams) {
		c.mu.Unlock()
		giveMap(m)
		if c.acked {
			c.drop(t) // it knows
			return
		}
		c.opt.Stats.StreamRefused.Inc()
		c.streamError(t, h.id, codeRefused, "")
		return
	}
	s := c.conn.begin(h.id)
	s.m, s.headed, s.readEnd = m, true, h.end
	s.delivering = true // nobody recycles it, or posts for it, while we do
	s.isHead, s.connect = c.head.isHead, c.head.connect
	if c.head.extended {
		s.upgraded(m)
	} else {
		s.left = c.head.length
	}
	if h.p == nil && h.end && s.left > 0 {
		h.p = errMessaging
	}
	s.traffic.WireReceived = headerSize + h.size
	s.traffic.HeaderReceived = h.size
	c.mu.Unlock()
	to := c.handler.NewStream(t, s)
	c.mu.Lock()
	if !s.released {
		s.target = to
	}
	c.mu.Unlock()
	if h.p != nil {
		c.refuseHead(t, s, to, h.p)
	} else {
		if c.head.expect {
			c.expect(t, s, m, h.end)
		}
		to.Post(t, stream.Event{Kind: stream.EventHeaders, Map: m, End: h.end})
	}
	var a after
	c.mu.Lock()
	c.deliver(t, s, &a)
	c.settle(s, &a)
	c.mu.Unlock()
	a.run(t, &c.conn)
}

// ProtocolHandler may be implemented by the handler of a connection: OnProtocol says, perhaps more than
// once, that the client has begun to speak the protocol.
type ProtocolHandler interface{ OnProtocol(p stream.Protocol) }

// begun tells the handler that the client speaks.
func (c *ServerConn) begun() {
	if h, ok := c.handler.(ProtocolHandler); ok {
		h.OnProtocol(stream.HTTP2)
	}
}

// unread makes the stream of a request whose head never came whole, since the connection ends: its
// user is told with all others.
func (c *ServerConn) unread(t *stream.Turn, id uint32) {
	c.mu.Lock()
	c.lastRead = id
	s := c.conn.begin(id)
	s.m, s.headed = maps.Get(), true
	s.left = -1
	c.mu.Unlock()
	to := c.handler.NewStream(t, s)
	c.mu.Lock()
	if !s.released {
		s.target = to
	}
	c.mu.Unlock()
}

// upgraded makes an extended CONNECT look as an upgrade of HTTP/1 to those who read it
// (Utility::transformUpgradeRequestFromH2toH1).
func (s *Stream) upgraded(m *header.Map) {
	s.upgrade = m.Value(header.Protocol)
	m.RemoveID(header.Protocol)
	m.SetStatic(header.Method, "GET")
	m.SetID(header.Upgrade, s.upgrade)
	m.SetStatic(header.Connection, "upgrade")
}

// refuseHead resets a stream whose head was not taken; one that is malformed ends the connection,
// unless the options say otherwise.
func (c *ServerConn) refuseHead(t *stream.Turn, s *Stream, to stream.Target, p *problem) {
	c.mu.Lock()
	told := s.told || s.released
	s.told = true
	c.mu.Unlock()
	// First, or the stream's user resets it with a code of its own.
	c.refuse(t, s.id, p)
	if told {
		return
	}
	f := c.protocolFault(p.details)
	f.Close = !p.reset && !c.opt.StreamErrorOnInvalid
	if p.reset {
		f.Flag, f.Reason = stream.DownstreamRemoteReset, stream.ReasonRemoteReset
	}
	to.Post(t, stream.Event{Kind: stream.EventReset, Fault: f})
}

// expect answers a client that waits before it sends its body.
func (c *ServerConn) expect(t *stream.Turn, s *Stream, m *header.Map, end bool) {
	if c.sopt.Proxy100Continue {
		return
	}
	m.RemoveID(header.Expect)
	if end {
		return
	}
	h := maps.Get()
	h.AddStatic(":status", "100")
	s.EncodeInterim(t, h)
	giveMap(h)
}

// EncodeInterim implements stream.Encoder. A request has no interim heads.
func (s *Stream) EncodeInterim(t *stream.Turn, m *header.Map) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil || s.headSent || s.gone || s.released || m.Value(header.Status) == "101" {
		return
	}
	c.writeHead(t, s, m, false, nil)
}

// EncodeHeaders implements stream.Encoder.
func (s *Stream) EncodeHeaders(t *stream.Turn, m *header.Map, end bool) {
	c := s.c
	var a after
	c.mu.Lock()
	if s.headSent || s.gone || s.released {
		dead := c.client != nil && s.gone && !s.told && !s.released
		s.told = s.told || dead
		to := s.target
		c.mu.Unlock()
		if dead {
			to.Post(t, stream.Event{Kind: stream.EventReset, Fault: c.unseenFault()})
		}
		return
	}
	if c.client != nil {
		c.client.encodeRequest(t, s, m, end, &a)
	} else {
		c.server.encodeResponse(t, s, m, end, &a)
	}
	c.mu.Unlock()
	a.run(t, c)
}

// encodeResponse is EncodeHeaders of a response. The caller holds c.mu.
func (c *ServerConn) encodeResponse(t *stream.Turn, s *Stream, m *header.Map, end bool, a *after) {
	var r rewrite
	status := m.Value(header.Status)
	tunnel := s.connect && len(status) == 3 && status[0] == '2'
	if s.upgrade != "" && status == "101" {
		// Utility::transformUpgradeResponseFromH1toH2
		r.status, tunnel = "200", true
		r.dropLength = m.Value(header.ContentLength) == "0"
	}
	n := mapLength(m)
	switch {
	case tunnel:
	case status == "204":
		r.dropLength = true
	case s.isHead || status == "304":
	case end && n > 0:
		r.dropLength = true
	default:
		s.outLeft = n
	}
	s.headSent = true
	s.sentEnd = end
	c.writeHead(t, s, m, end, &r)
	if end {
		s.finished(t, a)
	}
}
