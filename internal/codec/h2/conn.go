package h2

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/codec/hpack"
	"sidecar/internal/wire"
)

// conn is what the two ends have in common.
type conn struct {
	// Set by init, never changed.
	w      *wire.Conn
	opt    *Options
	server *ServerConn // one of the two is not nil
	client *ClientConn
	always func() bool

	// Owned by the reader.
	in       buf.Buffer // the beginning of a frame
	block    *buf.Block // what is being handled is in it
	fields   buf.Buffer // of a head whose CONTINUATIONs have not all come
	open     frame      // the HEADERS that fields belong to
	cont     int        // CONTINUATIONs of it
	size     int        // of the next read
	greeted  bool       // the preface was read
	acked    bool       // the peer knows our SETTINGS
	settled  bool       // the first SETTINGS was read
	dec      hpack.Decoder
	lastRead uint32 // the highest stream number that the peer began
	flood    flood
	head     fieldReader

	closing atomic.Bool // nothing that is read matters any more
	local   atomic.Bool // we close, not the peer

	mu        sync.Mutex // guards below; taken before the lock of w, with nothing called under it
	streams   map[uint32]*Stream
	enc       hpack.Encoder
	sendWin   int64 // the peer's connection window
	peerWin   int64 // SETTINGS_INITIAL_WINDOW_SIZE of the peer
	maxFrame  int   // of the peer
	peerMax   uint32
	extended  bool          // the peer takes extended CONNECT
	ready     []*Stream     // those that have something to send and a window for it, in turn
	recvWin   int64         // what the peer may still send
	owed      int64         // received and not returned yet
	queued    int64         // received data that waits in streams
	window    int64         // what a stream begins with
	slack     int64         // what the peer may send on a stream beyond its window, not knowing better
	held      time.Duration // how long the reader has held back
	unacked   int           // SETTINGS that the peer has not acknowledged
	tight     bool          // the window was made smaller, or is small enough
	control   outstanding   // frames that the peer made us send
	framesOut outstanding   // other frames
	dataSent  uint64        // DATA frames, for the WINDOW_UPDATE limit
	opened    uint64        // streams, for the PRIORITY limit
	nextID    uint32
	lastGone  uint32 // last-stream-id of the peer's GOAWAY
	gotAway   bool
	sentAway  bool // the final GOAWAY was sent
	drained   bool // the first GOAWAY was sent
	ended     bool // streams were told of the end
	said      bool // our preface and SETTINGS are in the output
	keep      keepalive
}

// after is what has to be done once conn.mu is free: rule 3 of the data path, and its cost is nothing
// while it is empty.
type after struct {
	notify  []note
	ends    int     // streams that are over
	recycle *Stream // a list by Stream.next: a slice would be an allocation for each stream
	away    bool    // GOAWAY came
	limit   bool    // the peer's stream limit came
	shut    bool    // the last stream of a connection that takes no more has ended
}

type note struct {
	to stream.Target
	e  stream.Event
}

func (c *conn) init(w *wire.Conn, o *Options) {
	c.w, c.opt, c.size = w, o, buf.Read
	c.always = func() bool { return true }
	c.sendWin, c.peerWin, c.maxFrame = defaultWindow, defaultWindow, minMaxFrame
	c.recvWin = max(int64(o.ConnectionWindow), defaultWindow)
	c.window = int64(o.StreamWindow)
	c.lastGone = maxStreamID
	c.dec.Init(o.TableSize)
	c.enc.Init()
	if o.HuffmanOff {
		c.enc.DisableHuffman()
	}
	w.SetDrained(c.onDrained)
	w.SetShared()
}

// hello sends the preface and our SETTINGS before anything else: a server once the client has shown
// that it speaks HTTP/2.
func (c *conn) hello(t *stream.Turn) {
	c.mu.Lock()
	c.helloLocked(t)
	c.mu.Unlock()
}

func (c *conn) helloLocked(t *stream.Turn) {
	if !c.said {
		c.said = true
		c.greet(t)
	}
}

// greet sends our SETTINGS and the connection's window, as Envoy's.
func (c *conn) greet(t *stream.Turn) {
	var room [64]byte
	b := room[:0]
	if c.client != nil {
		b = appendSetting(b, settingEnablePush, 0)
	}
	b = appendSetting(b, settingTableSize, c.opt.TableSize)
	allow := uint32(0)
	if c.opt.AllowConnect {
		allow = 1
	}
	b = appendSetting(b, settingConnectProtocol, allow)
	b = appendSetting(b, settingMaxStreams, c.opt.MaxConcurrentStreams)
	b = appendSetting(b, settingInitialWindow, c.opt.StreamWindow)
	c.unacked++
	out := c.w.Begin()
	if c.client != nil {
		out.AppendString(preface)
	}
	appendFrame(out, frameSettings, 0, 0, b)
	if c.opt.ConnectionWindow > defaultWindow {
		appendWord(out, frameWindowUpdate, 0, c.opt.ConnectionWindow-defaultWindow)
	}
	c.w.End(t)
}

// serve reads until the connection has ended.
func (c *conn) serve(t *stream.Turn) {
	for c.turn(t) {
		t.End()
	}
	t.End()
	c.keep.stop()
	c.w.Close()
	c.in.Reset()
	c.fields.Reset()
	c.w.Release()
}

func (c *conn) turn(t *stream.Turn) bool {
	c.holdBack()
	b, n, err := c.w.ReadBehind(&c.in, c.size, c.always)
	if err != nil {
		return c.onReadError(t, err)
	}
	if c.closing.Load() {
		b.Put()
		return true
	}
	if c.opt.Keepalive.Idle > 0 {
		c.keep.heard.Store(t.Nano())
	}
	if n >= c.size {
		c.size = buf.Bulk
	} else if n < buf.Read {
		c.size = buf.Read
	}
	c.block = b
	if used := c.use(t, b.B[:n]); used < n && !c.closing.Load() {
		c.in.AppendShared(b, b.B[used:n])
	}
	c.block = nil
	b.Put()
	return true
}

func length(b []byte) int { return int(b[0])<<16 | int(b[1])<<8 | int(b[2]) }

// use handles what is whole in p and returns how much that was.
func (c *conn) use(t *stream.Turn, p []byte) (n int) {
	if !c.greeted {
		c.server.begun()
		k := min(len(p), len(preface))
		if string(p[:k]) != preface[:k] {
			c.drop(t)
			return len(p)
		}
		if k < len(preface) {
			return 0
		}
		c.greeted, n = true, k
		c.hello(t)
	}
	for len(p)-n >= headerSize && !c.closing.Load() {
		h := p[n:]
		size := length(h)
		if size > minMaxFrame {
			c.fail(t, codeFrameSize, "too large frame size")
			return len(p)
		}
		if len(h) < headerSize+size {
			break
		}
		c.frame(t, frame{
			kind: h[3], flags: h[4], id: binary.BigEndian.Uint32(h[5:]) & maxStreamID,
			p: h[headerSize : headerSize+size],
		})
		n += headerSize + size
	}
	return n
}

// fail ends the connection for what the peer sent: GOAWAY with the code and a text for people, then
// close. Envoy counts in goaway_sent only those of drains.
func (c *conn) fail(t *stream.Turn, why code, text string) {
	if c.closing.Swap(true) {
		return
	}
	last := c.lastRead
	if c.server != nil {
		last = max(last, c.open.id)
	}
	c.mu.Lock()
	appendGoAway(c.w.Begin(), last, why, text)
	c.w.End(t)
	c.mu.Unlock()
	c.countError()
	c.breakOff(t, codecError)
}

// drop ends the connection for a frame that is well-formed and has no place where it stands, or a
// message that is malformed. As Envoy, whose library asks it what to do then, it says nothing.
func (c *conn) drop(t *stream.Turn) {
	if c.closing.Swap(true) {
		return
	}
	c.countError()
	c.breakOff(t, codecError)
}

// flooded ends the connection of a peer that sends too many frames of a kind, without a word and not
// as a protocol error.
func (c *conn) flooded(t *stream.Turn, details string) {
	if !c.closing.Swap(true) {
		c.breakOff(t, details)
	}
}

func (c *conn) countError() {
	if c.server != nil && c.server.sopt.ProtocolError != nil {
		c.server.sopt.ProtocolError.Inc()
	}
}

// breakOff tells the streams and closes. The caller has set closing.
func (c *conn) breakOff(t *stream.Turn, details string) {
	c.local.Store(true)
	c.mu.Lock()
	if c.client != nil {
		c.client.wrong = true
	}
	c.sentAway = true
	c.mu.Unlock()
	if c.open.id != 0 && c.server != nil && c.open.id > c.lastRead {
		c.server.unread(t, c.open.id)
	}
	f := c.protocolFault(details)
	f.Close = true
	c.tellAll(t, f)
	c.closeSoon(t)
}

// closeSoon lets the peer read what is left before the connection ends.
func (c *conn) closeSoon(*stream.Turn) {
	c.closing.Store(true)
	wait := time.Second
	if c.server != nil {
		wait = c.server.sopt.DelayedCloseTimeout
	}
	if wait <= 0 || c.client != nil {
		c.w.CloseAfterFlush()
		return
	}
	c.w.CloseWrite()
	// An error means that the socket is closed already, which the reader sees.
	_ = c.w.SetReadDeadline(time.Now().Add(wait))
}

// tellAll resets every stream.
func (c *conn) tellAll(t *stream.Turn, f *stream.Fault) {
	var a after
	c.mu.Lock()
	if c.client != nil && !c.ended && !c.client.wrong {
		c.client.active = !c.idle() // of one that broke the protocol the streams end first
	}
	c.ended = true
	for _, s := range c.streams {
		if !s.released && !s.told && !s.complete() {
			s.told = true
			a.notify = append(a.notify, note{s.target, stream.Event{Kind: stream.EventReset, Fault: f}})
		}
		s.dropIn(c)
		s.dropOut(c)
		c.remove(s, &a)
	}
	a.shut = false
	c.mu.Unlock()
	a.run(t, c)
}

// complete tells that the end of the connection changes nothing for the stream's user: the response was
// read, or sent, to its end. The caller holds c.mu.
func (s *Stream) complete() bool {
	if s.c.server != nil {
		return s.whole
	}
	return s.readEnd && !s.waiting()
}

// run does what was noted. No lock is held.
func (a *after) run(t *stream.Turn, c *conn) {
	for i := range a.notify {
		a.notify[i].to.Post(t, a.notify[i].e)
	}
	for s := a.recycle; s != nil; {
		next := s.next
		s.giveBack()
		s = next
	}
	if c.client != nil {
		if a.limit {
			c.client.handler.OnLimit(t, c.client.limit())
		}
		if a.away {
			c.client.handler.OnGoAway(t)
		}
		for range a.ends {
			c.client.handler.OnStreamEnd(t)
		}
	}
	if a.shut {
		c.local.Store(true)
		c.closeSoon(t)
	}
}

// remove takes a stream out of the table. The caller holds c.mu.
func (c *conn) remove(s *Stream, a *after) {
	if s.gone {
		return
	}
	s.gone = true
	delete(c.streams, s.id)
	c.opt.Stats.StreamsActive.Dec()
	a.ends++
	s.unlisted(c)
	if c.client != nil && s.id == 0 {
		c.client.fresh--
	}
	if (c.sentAway || c.gotAway) && c.idle() {
		a.shut = !c.closing.Load()
	}
	c.freed(s, a)
}

// idle tells that no stream is under way. The caller holds c.mu.
func (c *conn) idle() bool {
	return len(c.streams) == 0 && (c.client == nil || c.client.fresh == 0)
}

// freed notes a stream that nobody holds any more. The caller holds c.mu.
func (c *conn) freed(s *Stream, a *after) {
	if s.gone && s.released && !s.delivering && s.pending == 0 && !s.pooled {
		s.pooled = true
		s.next, a.recycle = a.recycle, s
	}
}

// settle removes the stream if both directions have ended on the wire. The caller holds c.mu.
func (c *conn) settle(s *Stream, a *after) {
	if s.sentEnd && s.readEnd {
		c.remove(s, a)
	}
}

// onDrained is called by whoever flushed the output below its low watermark.
func (c *conn) onDrained(t *stream.Turn) {
	var a after
	c.mu.Lock()
	c.pump(t, &a)
	c.mu.Unlock()
	a.run(t, c)
}

// outstanding counts frames that may not have left yet: those of the output, and those of what was
// taken from it and is being sent.
type outstanding struct {
	takes        uint64
	output, sent int
}

// add counts one more and returns how many there are at most.
func (o *outstanding) add(w *wire.Conn) int {
	if n := w.Takes(); n != o.takes {
		if n > o.takes+1 {
			o.output = 0
		}
		o.takes, o.sent, o.output = n, o.output, 0
	}
	o.output++
	return o.sent + o.output
}

// controlled counts a frame that the peer made us send and tells whether there are too many. The
// caller holds c.mu.
func (c *conn) controlled() bool {
	if c.control.add(c.w) <= int(c.opt.MaxOutboundControl) || c.w.Pending() == 0 {
		return false
	}
	c.opt.Stats.OutboundControlFlood.Inc()
	return true
}

// framed does the same for other frames. The caller holds c.mu.
func (c *conn) framed() {
	if c.framesOut.add(c.w) <= int(c.opt.MaxOutbound) || c.closing.Load() || c.w.Pending() == 0 {
		return
	}
	c.opt.Stats.OutboundFlood.Inc()
	c.framesOut = outstanding{}
	c.local.Store(true)
	c.w.Close()
}
