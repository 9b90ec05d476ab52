package h1

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/wire"
)

// ServerConn is one downstream connection: it reads requests, one at a time, and is the Encoder of
// the response to the one it has read. Serve's goroutine parses and runs the stream; it never waits
// for anything while it could read, except for back-pressure of the one stream it serves.
type ServerConn struct {
	link

	// Set by NewServerConn, never changed.
	opt     *ServerOptions
	handler stream.ServerHandler
	useFn   func(t *stream.Turn, p []byte) int

	// Owned by the reader.
	reader  headReader
	body    bodyReader
	h       head
	inBody  bool
	begun   bool // the stream of this request exists
	refused bool // a rejection was posted
	remote  bool // the client ended the connection before we did
	to      stream.Target

	m, trailers *header.Map // the reader's until whole is set, the stream's afterwards

	busy     atomic.Bool // a stream has not been released
	whole    atomic.Bool // its request was read to the end
	answered atomic.Bool // its response was encoded to the end, or it was reset
	facts    atomic.Uint32
	draining atomic.Bool
	lastLeft atomic.Int64 // unsent bytes when the closing connection was last looked at

	// Owned by whoever runs the stream.
	out       bodyWriter
	lastReply bool // the connection ends with this response
}

// facts about a request that its response depends on.
const (
	factHead uint32 = 1 << iota
	factConnect
	factHTTP10
	factClose
)

// NewServerConn makes the codec of a connection that was accepted.
func NewServerConn(w *wire.Conn, h stream.ServerHandler, o *ServerOptions) *ServerConn {
	c := &ServerConn{opt: o, handler: h}
	c.init(w, c.want)
	c.useFn = c.use
	c.reader = headReader{opt: &o.Options, server: o, max: maxHead(&o.Options, false)}
	c.body = bodyReader{opt: &o.Options, server: o, max: c.reader.max}
	return c
}

// SetDrain makes the next response the last one. It may be called from any goroutine.
func (c *ServerConn) SetDrain() { c.draining.Store(true) }

// Drain does nothing: HTTP/1 announces the end of a connection with a response.
func (c *ServerConn) Drain(*stream.Turn) {}

// GoAway does nothing, as Drain.
func (c *ServerConn) GoAway(*stream.Turn) {}

// Idle tells that no request is under way. It may be called from any goroutine.
func (c *ServerConn) Idle() bool { return !c.busy.Load() }

// Close closes the connection at once; a stream that runs is told. It may be called from any
// goroutine, inside streams too.
func (c *ServerConn) Close(*stream.Turn) {
	c.local.Store(true)
	c.w.Close()
	c.closing.Store(true)
	c.awake()
}

// Serve reads the connection until it ends, on the calling goroutine.
func (c *ServerConn) Serve(t *stream.Turn) {
	for c.turn(t) {
		t.End()
	}
	t.End()
	c.w.Close()
	c.in.Reset()
	c.body.trailer.Reset()
	c.w.Release()
	c.handler.OnGone(t)
	t.End()
}

// blocked tells that what comes next has to wait: for the response before it to be made, and to be
// taken by the client, or for the stream that cannot take more.
func (c *ServerConn) blocked() bool {
	if c.closing.Load() {
		return false
	}
	if c.busy.Load() {
		return c.refused || c.paused.Load() || c.whole.Load()
	}
	// Else who pipelines and never reads would fill our memory with responses.
	return c.w.Full()
}

// want is asked by the socket's reader at each wake-up.
func (c *ServerConn) want() bool { return !c.blocked() }

// turn waits for one thing to do and does it; false ends the connection.
func (c *ServerConn) turn(t *stream.Turn) bool {
	if c.in.Len() > 0 && !c.needMore {
		c.sleep(c.blocked)
		if !c.closing.Load() {
			c.in.Consume(c.use(t, c.in.Bytes()))
			return true
		}
	}
	block, n, err := c.w.Read(c.size, c.wantFn)
	switch {
	case err != nil:
		return c.ended(t, err)
	case block == nil:
		// Pipelined bytes, or more of a body than the stream can take: they stay in the kernel.
		c.sleep(c.blocked)
		return true
	case c.closing.Load():
		block.Put()
		return true
	}
	c.grow(n)
	c.input(t, block.B[:n], c.useFn)
	block.Put()
	return true
}

// use parses what it can and returns how much that was.
func (c *ServerConn) use(t *stream.Turn, p []byte) (n int) {
	c.needMore = false
	for n < len(p) && !c.blocked() && !c.closing.Load() {
		if c.inBody {
			n += c.readBody(t, p[n:])
			continue
		}
		k := c.readHead(t, p[n:])
		n += k
		if k == 0 {
			c.needMore = !c.refused
			break
		}
	}
	return n
}

// readHead parses a head, whose stream begins with its first byte, as in Envoy: an access log line
// is due even if no more comes.
func (c *ServerConn) readHead(t *stream.Turn, p []byte) int {
	if !c.begun {
		if n := leadingLines(p, false); n > 0 {
			return n
		}
		c.begin(t)
	}
	n, err := c.reader.read(p, c.m, &c.h)
	if err != nil {
		c.received.Add(uint64(len(p)))
		c.reject(t, err)
		return 0
	}
	if n == 0 {
		return 0
	}
	c.received.Add(uint64(n))
	c.headReceived.Add(c.h.size)
	c.headDone(t)
	return n
}

func (c *ServerConn) begin(t *stream.Turn) {
	c.begun, c.refused = true, false
	c.h = head{}
	c.reader.reset()
	c.m = maps.Get()
	if c.opt.PreserveCase {
		c.m.KeepRawNames()
	}
	c.resetTraffic()
	c.facts.Store(0)
	c.whole.Store(false)
	c.answered.Store(false)
	c.paused.Store(false)
	c.busy.Store(true)
	c.out, c.lastReply = bodyWriter{}, false
	c.to = c.handler.NewStream(t, c)
	c.setTarget(c.to)
}

func (c *ServerConn) headDone(t *stream.Turn) {
	var f uint32
	if c.h.isHead {
		f |= factHead
	}
	if c.h.connect {
		f |= factConnect
	}
	if c.h.http10 {
		f |= factHTTP10
	}
	if c.h.close {
		f |= factClose
	}
	c.facts.Store(f)
	if c.h.expect && !c.opt.Proxy100Continue {
		c.m.RemoveID(header.Expect)
		if !c.answered.Load() {
			c.write(t, "HTTP/1.1 100 Continue\r\n\r\n")
		}
	}
	c.body.begin(&c.h, false)
	m, end := c.m, c.body.done()
	c.inBody = !end
	if end {
		c.requestDone()
	}
	c.to.Post(t, stream.Event{Kind: stream.EventHeaders, Map: m, End: end})
}

// requestDone gives the request to the stream: from here on the reader touches nothing of it. It
// comes before the event that tells of the end, since the stream may be over when that returns.
func (c *ServerConn) requestDone() {
	c.inBody, c.begun = false, false
	c.whole.Store(true)
}

func (c *ServerConn) readBody(t *stream.Turn, p []byte) int {
	n, data, err := c.body.read(p, c.trailerMap())
	c.received.Add(uint64(n))
	if len(data) > 0 {
		c.to.Post(t, stream.Event{Kind: stream.EventData, Data: data})
		c.giveRoom(t, c.to.M)
	}
	switch {
	case err != nil:
		c.reject(t, err)
	case c.body.done():
		// The end comes apart from the last bytes: filters see it as Envoy shows it.
		e := stream.Event{Kind: stream.EventData, End: true}
		if c.trailers != nil && c.trailers.Len() > 0 {
			e = stream.Event{Kind: stream.EventTrailers, Map: c.trailers}
		}
		c.requestDone()
		c.to.Post(t, e)
	}
	return n
}

// trailerMap is where the trailers of this body go; nil drops them.
func (c *ServerConn) trailerMap() *header.Map {
	if c.opt.EnableTrailers && c.trailers == nil && c.h.chunked {
		c.trailers = maps.Get()
	}
	return c.trailers
}

// reject posts what is wrong with the request. No more of the connection is read.
func (c *ServerConn) reject(t *stream.Turn, p *problem) {
	c.refused = true
	c.to.Post(t, stream.Event{Kind: stream.EventRejected, Fault: p.rejected()})
}

// ended handles the end of what the client sends, or of the socket. A client that half-closes is
// gone, as in Envoy.
func (c *ServerConn) ended(t *stream.Turn, err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) && c.closing.Load() && !c.local.Load() {
		return c.linger()
	}
	c.remote = !c.closing.Load()
	if !c.busy.Load() || c.answered.Load() {
		return false
	}
	details := "downstream_remote_disconnect"
	if c.local.Load() {
		details = "downstream_local_disconnect"
	}
	f := &stream.Fault{
		Side: stream.Downstream, Flag: stream.DownstreamConnectionTermination, Details: details,
		Reason: stream.ReasonConnectionTermination, Close: true,
	}
	if !errors.Is(err, io.EOF) {
		f.Err = err
	}
	c.w.Close()
	c.to.Post(t, stream.Event{Kind: stream.EventReset, Fault: f})
	return false
}

// linger is called when a closing connection has waited for the client long enough: it goes on as
// long as the client takes what is left to send.
func (c *ServerConn) linger() bool {
	left := int64(c.w.Pending())
	if left > 0 && left < c.lastLeft.Swap(left) {
		return c.w.SetReadDeadline(time.Now().Add(c.opt.DelayedCloseTimeout)) == nil
	}
	if n := c.opt.DelayedCloseExpired; n != nil {
		n.Inc()
	}
	return false
}

// Local tells, once Serve has returned, that we and not the client ended the connection.
func (c *ServerConn) Local() bool { return c.local.Load() || c.closing.Load() && !c.remote }
