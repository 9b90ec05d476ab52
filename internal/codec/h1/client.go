package h1

import (
	"errors"
	"io"
	"sync/atomic"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/wire"
)

// ClientHandler is told of a client connection's state. Calls come one at a time.
type ClientHandler interface {
	// OnIdle says that a stream has ended in both directions and another one may begin. It may be
	// called inside that stream.
	OnIdle(t *stream.Turn)
	// OnGone says, once, that the connection has ended and its stream, if any, was told.
	OnGone(t *stream.Turn, g Gone)
}

// Gone is how a connection ended.
type Gone struct {
	// Local says that we closed it.
	Local bool
	// Active says that a request was under way.
	Active bool
	// CloseNotify says that the peer had announced the end (connection: close).
	CloseNotify bool
	// ProtocolError says that the peer sent what the codec refuses.
	ProtocolError bool
}

// maxInterim bounds the 1xx heads before one response.
const maxInterim = 100

// ClientConn is one upstream connection. It carries one request at a time and is the Encoder of it.
// Its reader parses responses and runs the stream that they belong to.
type ClientConn struct {
	link

	// Set by NewClientConn, never changed.
	opt     *ClientOptions
	handler ClientHandler
	useFn   func(t *stream.Turn, p []byte) int

	// Owned by the reader.
	reader  headReader
	body    bodyReader
	h       head
	inBody  bool
	reading bool // the first byte of a response was seen
	interim int  // heads of 1xx before the response
	gone    Gone

	m, trailers *header.Map // the reader's until answered is set, the stream's afterwards

	active   atomic.Bool // a stream was begun and not released
	headed   atomic.Bool // its request head was encoded
	whole    atomic.Bool // its request was encoded to the end
	answered atomic.Bool // its response was read to the end, or it was told of a failure
	last     atomic.Bool // the connection serves no further stream
	cut      atomic.Bool // its stream was reset under way
	facts    atomic.Uint32
	streams  atomic.Uint64
	ended    bool // guarded by link.mu: no stream may begin

	// Owned by whoever runs the stream.
	out bodyWriter
}

// factUpgrade is a fact about a request: it asked for an upgrade.
const factUpgrade uint32 = 1 << 8

// NewClientConn makes the codec of a connection to an upstream host.
func NewClientConn(w *wire.Conn, h ClientHandler, o *ClientOptions) *ClientConn {
	c := &ClientConn{opt: o, handler: h}
	c.init(w, c.want)
	c.useFn = c.use
	c.reader = headReader{opt: &o.Options, response: true, max: maxHead(&o.Options, true)}
	c.body = bodyReader{opt: &o.Options, max: c.reader.max}
	return c
}

// NewStream begins a request whose events go to target; nil when the connection has ended. It is
// called inside the target's stream, after OnIdle or as the first one.
func (c *ClientConn) NewStream(_ *stream.Turn, target stream.Target) stream.Encoder {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.last.Load() {
		return nil
	}
	c.target = target
	c.resetTraffic()
	c.facts.Store(0)
	c.streams.Add(1)
	c.headed.Store(false)
	c.whole.Store(false)
	c.answered.Store(false)
	c.paused.Store(false)
	c.out = bodyWriter{}
	c.active.Store(true)
	return c
}

// Reusable tells whether another stream may begin once the running one has ended.
func (c *ClientConn) Reusable() bool { return !c.last.Load() }

// Close closes the connection at once; a stream that runs is told. It may be called from any
// goroutine, inside streams too.
func (c *ClientConn) Close(*stream.Turn) {
	c.last.Store(true)
	c.local.Store(true)
	c.closing.Store(true)
	c.w.Close()
	c.awake()
}

// Serve reads the connection until it has ended, on the calling goroutine.
func (c *ClientConn) Serve() {
	t := stream.NewTurn()
	for c.turn(t) {
		t.End()
	}
	t.End()
	c.w.Close()
	c.in.Reset()
	c.body.trailer.Reset()
	c.w.Release()
	c.handler.OnGone(t, c.gone)
	t.End()
}

func (c *ClientConn) blocked() bool { return c.paused.Load() && !c.closing.Load() }

func (c *ClientConn) want() bool { return !c.blocked() }

func (c *ClientConn) turn(t *stream.Turn) bool {
	if c.in.Len() > 0 && !c.needMore {
		c.sleep(c.blocked)
		if c.closing.Load() {
			return c.end(t, nil)
		}
		c.in.Consume(c.use(t, c.in.Bytes()))
		return true
	}
	block, n, err := c.w.Read(c.size, c.wantFn)
	if err != nil {
		return c.end(t, err)
	}
	if block == nil {
		c.sleep(c.blocked)
		return true
	}
	if !c.active.Load() || !c.headed.Load() || c.answered.Load() {
		// Nobody asked: what comes could be taken for the answer to the next request.
		block.Put()
		c.gone.ProtocolError = true
		return c.fail(t, errPrematureData)
	}
	c.grow(n)
	c.input(t, block.B[:n], c.useFn)
	block.Put()
	return !c.closing.Load() || c.end(t, nil)
}

func (c *ClientConn) use(t *stream.Turn, p []byte) (n int) {
	c.needMore = false
	for n < len(p) && !c.blocked() && !c.closing.Load() {
		if c.inBody {
			n += c.readBody(t, p[n:])
			continue
		}
		if c.answered.Load() {
			// Bytes behind the response: the connection was marked, the release closes it.
			return len(p)
		}
		k := c.readHead(t, p[n:])
		n += k
		if k == 0 {
			c.needMore = true
			break
		}
	}
	return n
}

func (c *ClientConn) readHead(t *stream.Turn, p []byte) int {
	if !c.reading {
		c.reading = true
		c.reader.reset()
		c.m = maps.Get()
		c.keepCase(c.m)
	}
	if c.reader.first == 0 {
		f := c.facts.Load()
		c.h = head{isHead: f&factHead != 0, connect: f&factConnect != 0, upgrade: f&factUpgrade != 0}
	}
	n, err := c.reader.read(p, c.m, &c.h)
	if err != nil {
		c.received.Add(uint64(len(p)))
		c.refuse(t, err)
		return len(p)
	}
	if n == 0 {
		return 0
	}
	c.received.Add(uint64(n))
	c.headReceived.Add(c.h.size)
	if c.h.interim() {
		c.gotInterim(t)
		return n
	}
	c.gotHead(t, len(p)-n)
	return n
}

func (c *ClientConn) keepCase(m *header.Map) {
	if c.opt.PreserveCase {
		m.KeepRawNames()
	}
}

// gotInterim passes a 1xx head on. Its map is left to the garbage collector: the stream may look at
// it after the next head was read.
func (c *ClientConn) gotInterim(t *stream.Turn) {
	m := c.m
	c.m = new(header.Map)
	c.keepCase(c.m)
	c.reader.reset()
	if c.interim++; c.interim > maxInterim {
		c.refuse(t, errInterim)
		return
	}
	c.currentTarget().Post(t, stream.Event{Kind: stream.EventInterim, Map: m})
}

// gotHead passes the head on; extra bytes were read behind it.
func (c *ClientConn) gotHead(t *stream.Turn, extra int) {
	c.gone.CloseNotify = c.gone.CloseNotify || c.h.closeToken || c.h.http10 && c.h.close
	if c.h.close {
		c.last.Store(true)
	}
	c.body.begin(&c.h, true)
	m, end := c.m, c.body.done()
	c.inBody = !end
	to := c.currentTarget()
	if end {
		c.responseDone(extra)
	}
	to.Post(t, stream.Event{Kind: stream.EventHeaders, Map: m, End: end})
}

// responseDone gives the response to the stream, before the event that tells of its end: the stream
// may be over, and another begun, when that returns. Bytes behind a response are a reason not to
// use the connection again.
func (c *ClientConn) responseDone(extra int) {
	c.inBody, c.reading, c.interim = false, false, 0
	if extra > 0 {
		c.last.Store(true)
		c.gone.ProtocolError = true
	}
	c.answered.Store(true)
}

func (c *ClientConn) readBody(t *stream.Turn, p []byte) int {
	if c.opt.EnableTrailers && c.trailers == nil && c.h.chunked {
		c.trailers = maps.Get()
	}
	n, data, err := c.body.read(p, c.trailers)
	c.received.Add(uint64(n))
	to := c.currentTarget()
	if len(data) > 0 {
		to.Post(t, stream.Event{Kind: stream.EventData, Data: data})
		c.giveRoom(t, to.M)
	}
	switch {
	case err != nil:
		c.refuse(t, err)
	case c.body.done():
		e := stream.Event{Kind: stream.EventData, End: true}
		if c.trailers != nil && c.trailers.Len() > 0 {
			e = stream.Event{Kind: stream.EventTrailers, Map: c.trailers}
		}
		c.responseDone(len(p) - n)
		to.Post(t, e)
	}
	return n
}

// refuse ends the connection, and its stream, for what the peer sent.
func (c *ClientConn) refuse(t *stream.Turn, p *problem) {
	c.gone.ProtocolError = true
	c.fail(t, p)
}

// fail tells the stream of a protocol error and ends the connection; it returns false.
func (c *ClientConn) fail(t *stream.Turn, p *problem) bool {
	c.gone.Local = true
	c.closing.Store(true)
	return c.tell(t, p.upstream())
}

// end handles the end of what the peer sends, or of the socket.
func (c *ClientConn) end(t *stream.Turn, err error) bool {
	// However the peer ends the connection, by FIN or RST: Envoy makes no difference.
	eof := err != nil && !c.local.Load()
	c.gone.Local = c.local.Load()
	if eof && c.inBody && c.body.state == bodyUntilClose && !c.h.upgrade {
		to := c.currentTarget()
		c.last.Store(true)
		c.responseDone(0)
		to.Post(t, stream.Event{Kind: stream.EventData, End: true})
	}
	if c.gone.ProtocolError {
		return c.tell(t, nil) // the stream knows
	}
	f := &stream.Fault{
		Side: stream.Upstream, Flag: stream.UpstreamConnectionTermination,
		Reason: stream.ReasonConnectionTermination,
		// A connection that was used before and ends before a byte of the answer was most likely
		// closed by the peer before it saw the request.
		Reused: !c.reading && c.streams.Load() > 1 && !c.local.Load(),
	}
	if c.local.Load() {
		f.Flag, f.Reason = stream.LocalReset, stream.ReasonLocalReset
	}
	if eof && (c.reading && !c.betweenHeads() && !c.inBody || c.inBody && c.body.state != bodyUntilClose) {
		// Envoy's parser takes the end of the data within a message for an error in it.
		f = errCutShort.upstream()
		c.gone.ProtocolError = true
	}
	if err != nil && !errors.Is(err, io.EOF) {
		f.Err = err
	}
	return c.tell(t, f)
}

// betweenHeads tells that nothing of a response has come after a 1xx head.
func (c *ClientConn) betweenHeads() bool { return c.interim > 0 && !c.reader.started }

// tell posts the end to the stream, if one runs that has no whole response, and lets no other
// begin.
func (c *ClientConn) tell(t *stream.Turn, f *stream.Fault) bool {
	c.last.Store(true)
	c.mu.Lock()
	first := !c.ended
	c.ended = true
	to := c.target
	c.mu.Unlock()
	if first {
		c.gone.Active = c.active.Load() || c.cut.Load()
	}
	if f != nil && c.active.Load() && !c.answered.Swap(true) {
		c.w.Close()
		to.Post(t, stream.Event{Kind: stream.EventReset, Fault: f})
	}
	return false
}
