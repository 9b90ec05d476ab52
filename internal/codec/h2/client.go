package h2

import (
	"math"
	"strings"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/wire"
)

// ClientHandler is told of a client connection's state. Calls may come inside streams, and from
// several goroutines.
type ClientHandler interface {
	// OnStreamEnd says that a stream has ended in both directions or was reset, once for each.
	OnStreamEnd(t *stream.Turn)
	// OnLimit tells how many streams the peer takes at a time: with its first SETTINGS, and on change.
	OnLimit(t *stream.Turn, n uint32)
	// OnGoAway says, once, that no new stream may begin. Those that the peer has not seen were told with
	// Fault.Reused: they are safe to repeat.
	OnGoAway(t *stream.Turn)
	// OnGone says, once, that the connection has ended and its streams were told.
	OnGone(t *stream.Turn, g Gone)
}

// Gone is how a connection ended.
type Gone struct {
	// Local says that we closed it.
	Local bool
	// Active says that a request was under way.
	Active bool
	// CloseNotify says that the peer had announced the end (GOAWAY).
	CloseNotify bool
	// ProtocolError says that the peer sent what the codec refuses.
	ProtocolError bool
}

// ClientConn is one upstream connection, which carries many requests at a time.
type ClientConn struct {
	conn
	handler ClientHandler

	fresh  int // streams without a head yet; guarded by conn.mu
	active bool
	wrong  bool // the peer broke the protocol
}

// NewClientConn makes the codec of a connection to an upstream host.
func NewClientConn(w *wire.Conn, h ClientHandler, o *ClientOptions) *ClientConn {
	c := &ClientConn{handler: h}
	c.client = c
	c.greeted = true
	c.nextID = 1
	c.peerMax = math.MaxUint32
	c.init(w, o.withDefaults(true))
	c.opt.Stats.Upstreams.Inc()
	return c
}

// Serve reads the connection until it has ended, on the calling goroutine. It may be called after the
// first streams have begun.
func (c *ClientConn) Serve() {
	t := stream.NewTurn()
	c.hello(t)
	t.End()
	c.keep.start(&c.conn)
	c.serve(t)
	c.mu.Lock()
	g := Gone{Local: c.local.Load(), Active: c.active, CloseNotify: c.gotAway, ProtocolError: c.wrong}
	c.mu.Unlock()
	c.handler.OnGone(t, g)
	t.End()
}

// NewStream begins a request whose events go to target; nil when the connection takes no more.
func (c *ClientConn) NewStream(t *stream.Turn, target stream.Target) stream.Encoder {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.gotAway || c.sentAway || c.closing.Load() || c.local.Load() || c.nextID > maxStreamID-2 ||
		uint64(len(c.streams)+c.fresh) >= uint64(c.peerMax) {
		return nil
	}
	if c.opt.Keepalive.Idle > 0 {
		c.keep.probe(t)
	}
	s := c.take0()
	s.target = target
	c.fresh++
	return s
}

// take0 takes a stream that has no number yet. The caller holds c.mu.
func (c *ClientConn) take0() *Stream {
	s := c.conn.begin(0)
	delete(c.streams, 0)
	return s
}

// limit is how many streams the peer takes at a time.
func (c *ClientConn) limit() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peerMax
}

// Drain lets no further stream begin; the connection ends with its last one.
func (c *ClientConn) Drain(t *stream.Turn) {
	var a after
	c.mu.Lock()
	if !c.sentAway && !c.ended {
		c.sentAway = true
		a.shut = len(c.streams)+c.fresh == 0
	}
	c.mu.Unlock()
	a.run(t, &c.conn)
}

// Close closes the connection at once; streams that run are told by its reader. It may be called from
// any goroutine, inside streams too.
func (c *ClientConn) Close(*stream.Turn) {
	c.local.Store(true)
	c.w.Close()
}

// encodeRequest is EncodeHeaders of a request: the stream gets its number with the place of its head in
// the output. The caller holds c.mu.
func (c *ClientConn) encodeRequest(t *stream.Turn, s *Stream, m *header.Map, end bool, a *after) {
	method := m.Value(header.Method)
	if c.ended || c.gotAway || method == "" || method != "CONNECT" && m.Value(header.Path) == "" {
		f := c.unseenFault() // the peer has not seen it
		if !c.ended && !c.gotAway {
			f = &stream.Fault{
				Side: stream.Internal, Flag: stream.LocalReset, Reason: stream.ReasonLocalReset, Status: 503,
				Details: "filter_removed_required_request_headers",
			}
		}
		s.told = true
		a.notify = append(a.notify, note{s.target, stream.Event{Kind: stream.EventReset, Fault: f}})
		c.remove(s, a)
		return
	}
	c.helloLocked(t)
	var r rewrite
	switch {
	case m.Has(header.Upgrade) && strings.EqualFold(m.Value(header.Connection), "upgrade"):
		// Utility::transformUpgradeRequestFromH1toH2
		s.upgrade = strings.Clone(m.Value(header.Upgrade))
		r.method, r.protocol = "CONNECT", s.upgrade
		r.dropLength = m.Value(header.ContentLength) == "0"
		end = false
	case method == "CONNECT":
		s.connect = true
		r.bare = true
	default:
		s.outLeft = mapLength(m)
		if end && s.outLeft > 0 {
			r.dropLength, s.outLeft = true, -1
		}
	}
	if !s.connect && !m.Has(header.Scheme) {
		m.SetStatic(header.Scheme, "http")
	}
	s.isHead = method == "HEAD"
	s.id = c.nextID
	c.nextID += 2
	c.fresh--
	c.streams[s.id] = s
	s.sendWin, s.recvWin, s.window = c.peerWin, c.window, c.window
	s.headSent = true
	s.sentEnd = end
	c.writeHead(t, s, m, end, &r)
	if end {
		s.finished(t, a)
	}
}

// response passes on the head of a response, or a 1xx one.
func (c *ClientConn) response(t *stream.Turn, h read) {
	status := c.head.status
	interim := status/100 == 1
	c.mu.Lock()
	s := c.streams[h.id]
	if s == nil {
		c.mu.Unlock()
		giveMap(h.m)
		return
	}
	s.traffic.WireReceived += headerSize + h.size
	s.traffic.HeaderReceived += h.size
	wrong := false
	switch {
	case interim:
		s.interim++
		wrong = h.end || s.interim > maxInterim
	case s.isHead || status == 304 || status == 204 || s.connect || s.upgrade != "":
	default:
		s.left = c.head.length
		wrong = h.end && s.left > 0
	}
	if h.p == nil && wrong {
		h.p = errMessaging
	}
	if h.p != nil {
		c.mu.Unlock()
		giveMap(h.m)
		c.refuse(t, h.id, h.p)
		return
	}
	c.pass(t, s, h.m, interim, h.end)
}

// maxInterim bounds the 1xx heads before one response.
const maxInterim = 100

// pass posts a head. The caller holds c.mu, and loses it.
func (c *ClientConn) pass(t *stream.Turn, s *Stream, m *header.Map, interim, end bool) {
	if s.released || s.told {
		s.headed, s.readEnd = s.headed || !interim, s.readEnd || end
		var a after
		c.settle(s, &a)
		c.mu.Unlock()
		giveMap(m)
		a.run(t, &c.conn)
		return
	}
	kind := stream.EventInterim
	if !interim {
		kind = stream.EventHeaders
		s.headed, s.readEnd, s.m = true, end, m
		if s.upgrade != "" && m.Value(header.Status) == "200" {
			// Utility::transformUpgradeResponseFromH2toH1
			m.SetStatic(header.Status, "101")
			m.SetID(header.Upgrade, s.upgrade)
			m.SetStatic(header.Connection, "upgrade")
		}
	}
	s.delivering = true
	to := s.target
	c.mu.Unlock()
	// An interim head's map is left to the garbage collector: the stream may look at it later.
	to.Post(t, stream.Event{Kind: kind, Map: m, End: end})
	var a after
	c.mu.Lock()
	c.deliver(t, s, &a)
	c.settle(s, &a)
	c.mu.Unlock()
	a.run(t, &c.conn)
}
