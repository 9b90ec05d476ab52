package pool

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/cluster/dial"
	"sidecar/cluster/host"
	"sidecar/cluster/load"
	"sidecar/internal/netfilter"
	"sidecar/internal/wire"
)

// Codec is a client connection of one HTTP version.
type Codec interface {
	// NewStream begins a request whose events go to target; nil when the connection has gone, or takes
	// no more now. It is called inside the target's stream; by a pool that is not shared, one request at
	// a time.
	NewStream(t *stream.Turn, target stream.Target) stream.Encoder
	// Serve reads the connection until it has ended. It runs on the connection's own goroutine.
	Serve()
	// Close closes an idle connection, and one in use at once.
	Close(t *stream.Turn)
}

// Handler is told of a connection's state by its codec. OnIdle is for codecs that carry one stream at
// a time, whose calls come one at a time; OnStreamEnd, OnLimit and OnGoAway for the others, whose calls
// may come from several goroutines, inside streams too.
type Handler interface {
	// OnIdle says that a stream has ended in both directions and another one may begin.
	OnIdle(t *stream.Turn)
	// OnStreamEnd says that a stream has ended in both directions or was reset, once for each that
	// NewStream has begun.
	OnStreamEnd(t *stream.Turn)
	// OnLimit tells how many streams the peer takes at a time.
	OnLimit(t *stream.Turn, n uint32)
	// OnGoAway says that no further stream may begin.
	OnGoAway(t *stream.Turn)
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

// Config is what the pools of one cluster have in common. It never changes.
type Config struct {
	// Ctx ends dials that are under way when the process stops.
	Ctx      context.Context //nolint:containedctx // the life of dials
	Dial     *dial.Options
	NewCodec func(conn *wire.Conn, h Handler) Codec
	// NewHTTP2 makes the codec of a connection that carries many streams; for NewMux.
	NewHTTP2 func(conn *wire.Conn, h Handler) Codec
	// Transport returns the transport socket of a host; a nil func or result is plaintext.
	Transport func(h *host.Host) filter.UpstreamTransport
	// Auto has NewMux's connections speak what they negotiate, HTTP/1.1 unless that is HTTP/2.
	Auto bool
	// MaxStreams of such a connection at a time; 0 leaves it to the peer.
	MaxStreams uint32
	// NextID numbers connections.
	NextID func() uint64
	// IdleTimeout closes a connection that long after its last stream; 0 never.
	IdleTimeout time.Duration
	// MaxDuration ends a connection's use that long after it was made; 0 never.
	MaxDuration time.Duration
	// MaxRequests a connection; 0 is no limit.
	MaxRequests uint64
	// HighWatermark of the output in bytes; 0 is the default.
	HighWatermark int
	// Stripes of idle connections, at least 1: as many as processors at work.
	Stripes int
	// Filters see each connection above its transport, under the cluster's name and metadata.
	Filters         netfilter.Chain
	ClusterName     string
	ClusterMetadata map[string]map[string]any
	// Preconnect is how many streams are to be provided for, for each that is under way or waits
	// (per_upstream_preconnect_ratio); up to 1 is none in advance.
	Preconnect float64
	// Counted has pools count their streams, for those who ask for Room and Preconnect.
	Counted bool

	Traffic  *load.Traffic
	Breakers *load.Breakers
}

// Pool is the connections of one priority to one host.
type Pool struct {
	// Set by New, never changed.
	conf     *Config
	host     *host.Host
	priority load.Priority
	counters *host.Counters
	stripes  []stripe
	mux      bool // connections carry many streams at a time
	limited  bool // the cluster's number of pools is
	key      string
	ask      filter.ConnectOptions

	active  atomic.Int64  // streams; kept for Preconnect alone
	retired atomic.Bool   // of a keyed pool: it had nothing left and takes nothing more
	waiting atomic.Int32  // len(pending)
	drained atomic.Uint32 // counts Drain: older connections serve no further stream
	final   atomic.Bool   // the host is gone: connections are not kept idle

	mu         sync.Mutex // guards below; a leaf
	pending    []*waiter
	connecting int
	dialing    int // TCP connections
	all        map[*Conn]struct{}
	tcp        map[*TCP]struct{}
	closed     bool
	counted    bool // among the cluster's pools
	// Of a mux pool: the connections in use, the oldest first.
	shared    []*Conn
	lastLimit uint32 // of the peer, as it was last told
	idleTimer *time.Timer
	idleArmed bool
}

// New makes a pool without connections.
func New(conf *Config, h *host.Host, priority load.Priority) *Pool {
	p := &Pool{conf: conf, host: h, priority: priority, counters: h.Counters()}
	p.limited = conf.Breakers.LimitsPools(priority)
	p.stripes = make([]stripe, max(1, conf.Stripes))
	for i := range p.stripes {
		p.stripes[i].pool = p
	}
	return p
}

// waiter is a stream that waits for a connection.
type waiter struct {
	target stream.Target
	seq    uint32
	alpn   []string           // of a raw connection
	cancel context.CancelFunc // ends the dial of a TCP connection; nil for HTTP

	// Guarded by Pool.mu.
	state waitState
	conn  *Conn
	raw   *TCP
}

type waitState uint8

const (
	waits waitState = iota
	assigned
	over
)

// Lease is one stream's use of a pool. The user keeps it with its own state, so that taking an idle
// connection allocates nothing; its methods are called inside the stream. The zero value is ready.
type Lease struct {
	pool    *Pool
	wait    *waiter
	conn    *Conn
	refused bool
	retired bool
}

// Get takes an idle connection and begins a stream on it. Without one the stream waits: Get returns
// neither an encoder nor a fault, and EventReady (then call Open) or EventFailed is posted to target
// with seq, unless Cancel is called first. hint picks the stripe; use the same for one downstream
// connection.
func (l *Lease) Get(t *stream.Turn, p *Pool, target stream.Target, hint, seq uint32) (stream.Encoder, *stream.Fault) {
	*l = Lease{pool: p}
	for {
		c := p.reserve(hint)
		if c == nil {
			break
		}
		enc, f := l.attach(t, c, target)
		if enc != nil || f != nil {
			return enc, f
		}
	}
	w := &waiter{target: target, seq: seq}
	l.wait = w
	if f := l.enqueue(w); f != nil || l.retired {
		l.wait, l.refused = nil, true
		p.settle()
		return nil, f
	}
	p.serve(t)
	return nil, nil
}

// Retired tells that the pool was given up just before it was asked, so that another is to be asked.
func (l *Lease) Retired() bool { return l.retired }

// reserve takes a connection, or a place on one that is shared; nil if there is none.
func (p *Pool) reserve(hint uint32) *Conn {
	if !p.mux {
		return p.popIdle(hint)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pickMux()
}

// attach begins a stream on a reserved connection; neither an encoder nor a fault means that the
// connection has gone meanwhile, or takes no more.
func (l *Lease) attach(t *stream.Turn, c *Conn, target stream.Target) (stream.Encoder, *stream.Fault) {
	p := l.pool
	if !p.conf.Breakers.TakeRequest(p.priority) {
		p.conf.Traffic.RqActiveOverflow.Inc()
		p.release(t, c)
		return nil, overflow()
	}
	c.begin()
	enc := c.codec.NewStream(t, target)
	if enc == nil {
		c.undo()
		if p.mux {
			p.refusedMux(t, c)
		}
		return nil, nil
	}
	l.conn = c
	p.conf.Traffic.RqTotal.Inc()
	p.counters.RqTotal.Inc()
	p.preconnect()
	return enc, nil
}

// Open begins the stream on the connection that EventReady announced.
func (l *Lease) Open(t *stream.Turn) (stream.Encoder, *stream.Fault) {
	p, w := l.pool, l.wait
	l.wait = nil
	if w == nil {
		return nil, terminated(false)
	}
	p.mu.Lock()
	c := w.conn
	w.state, w.conn = over, nil
	p.mu.Unlock()
	if c == nil {
		return nil, terminated(false)
	}
	reused := c.streams.Load() > 0
	enc, f := l.attach(t, c, w.target)
	if enc == nil && f == nil {
		return nil, terminated(reused)
	}
	return enc, f
}

// Refused tells whether the stream was not even let wait for a connection.
func (l *Lease) Refused() bool { return l.refused }

// Conn returns the connection of the stream that was begun, nil before.
func (l *Lease) Conn() *Conn { return l.conn }

// Cancel gives up waiting: no event comes any more, and a connection that was meant for the stream
// goes to another one. It does nothing after Open, or when nothing was waited for.
func (l *Lease) Cancel(t *stream.Turn) {
	w := l.wait
	if w == nil {
		return
	}
	p := l.pool
	l.wait = nil
	p.mu.Lock()
	was, c, raw := w.state, w.conn, w.raw
	w.state, w.conn, w.raw = over, nil, nil
	if was == waits {
		p.remove(w)
	}
	p.mu.Unlock()
	switch {
	case was == waits:
		p.conf.Traffic.RqCancelled.Inc()
		p.leftPending()
		if w.cancel != nil {
			// Nobody else can use the connection (Envoy: CancelPolicy::CloseExcess). An HTTP dial goes on,
			// since its connection serves the next stream (CancelPolicy::Default).
			w.cancel()
		}
	case c != nil:
		p.conf.Traffic.RqCancelled.Inc()
		p.release(t, c)
	case raw != nil:
		p.conf.Traffic.RqCancelled.Inc()
		raw.Close(true)
	}
	p.settle()
}

// remove takes a waiter out of the queue; the caller holds mu.
func (p *Pool) remove(w *waiter) {
	for i, x := range p.pending {
		if x == w {
			p.pending = append(p.pending[:i], p.pending[i+1:]...)
			p.waiting.Add(-1)
			return
		}
	}
}

func (p *Pool) leftPending() {
	p.conf.Breakers.GivePending(p.priority)
	p.conf.Traffic.RqPendingActive.Dec()
	p.counters.RqPendingActive.Dec()
}

// enqueue makes a stream wait and sees to it that there will be a connection for it.
func (l *Lease) enqueue(w *waiter) *stream.Fault {
	p := l.pool
	tr := p.conf.Traffic
	if !p.conf.Breakers.TakePending(p.priority) {
		tr.RqPendingOverflow.Inc()
		return overflow()
	}
	p.mu.Lock()
	if f := l.enter(); f != nil || l.retired {
		p.mu.Unlock()
		p.conf.Breakers.GivePending(p.priority)
		return f
	}
	p.notePending()
	p.pending = append(p.pending, w)
	p.waiting.Add(1)
	start, over := p.wantDial()
	p.mu.Unlock()
	if over {
		tr.CxOverflow.Inc()
	}
	if start {
		p.startDial()
	}
	p.preconnect()
	return nil
}

func (p *Pool) notePending() {
	p.conf.Traffic.RqPendingTotal.Inc()
	p.conf.Traffic.RqPendingActive.Inc()
	p.counters.RqPendingActive.Inc()
}

// wantDial tells whether to dial, and counts it if so; the caller holds mu. Each pool may have one
// connection whatever the limit says, so that no host starves (Envoy does the same, and counts the
// overflow).
func (p *Pool) wantDial() (start, over bool) {
	if p.closed || p.connecting*p.perConnection() >= len(p.pending) {
		return false, false
	}
	over = !p.mayConnect()
	if over && (len(p.all) > 0 || p.connecting > 0) {
		return false, true
	}
	p.connecting++
	return true, over
}

// serve gives idle connections to those who wait.
func (p *Pool) serve(t *stream.Turn) {
	if p.mux {
		p.serveMux(t)
		return
	}
	for p.waiting.Load() > 0 {
		c := p.popIdle(0)
		if c == nil {
			return
		}
		if !p.assign(t, c) {
			p.push(t, c)
		}
	}
}

// assign gives a reserved connection to the stream that has waited longest; false if none waits.
func (p *Pool) assign(t *stream.Turn, c *Conn) bool {
	p.mu.Lock()
	if len(p.pending) == 0 {
		p.mu.Unlock()
		return false
	}
	p.serveFirst(t, c)
	return true
}

// serveFirst gives a connection to the stream that has waited longest. The caller holds mu, which it
// gives up, and there is such a stream.
func (p *Pool) serveFirst(t *stream.Turn, c *Conn) {
	w := p.pending[0]
	p.remove(w)
	w.state, w.conn = assigned, c
	p.mu.Unlock()
	p.leftPending()
	w.target.Post(t, stream.Event{Kind: stream.EventReady, Seq: w.seq})
}

// release takes back a connection whose stream has ended or never began.
func (p *Pool) release(t *stream.Turn, c *Conn) {
	if p.mux {
		p.giveMux(t, c, true)
		return
	}
	if most := p.conf.MaxRequests; most > 0 && c.streams.Load() >= most {
		p.conf.Traffic.CxMaxRequests.Inc()
		c.close(t)
		return
	}
	if c.stale() {
		c.close(t)
		return
	}
	if p.waiting.Load() > 0 && !c.hasGone() && p.assign(t, c) {
		return
	}
	p.push(t, c)
	p.serve(t)
}

// fail ends the wait of everybody: a host that refuses one connection is not tried for each of them
// (Envoy: ConnPoolImplBase::onConnectionEvent purges all pending streams).
func (p *Pool) fail(t *stream.Turn, ws []*waiter, f *stream.Fault) {
	for _, w := range ws {
		p.conf.Traffic.RqPendingFailureEject.Inc()
		p.leftPending()
		w.target.Post(t, stream.Event{Kind: stream.EventFailed, Fault: f, Seq: w.seq})
	}
}

// takeWaiting empties the queue; the caller holds mu.
func (p *Pool) takeWaiting() []*waiter {
	ws := p.pending
	p.pending = nil
	p.waiting.Store(0)
	for _, w := range ws {
		w.state = over
	}
	return ws
}

// Drain closes idle connections, and each other one after its stream. Streams that wait are served.
// removed says that the host is gone: the connections made for them are not kept either. It may be
// called from any goroutine, outside streams and locks.
func (p *Pool) Drain(removed bool) {
	if removed {
		p.final.Store(true)
	}
	p.drained.Add(1)
	if p.mux {
		p.drainMux()
		return
	}
	stream.Do(func(t *stream.Turn) {
		for i := range p.stripes {
			for _, c := range p.stripes[i].takeAll() {
				c.close(t)
			}
		}
	})
}

// Close ends the pool at once: who waits fails, and every connection is closed. Dials under way end
// with Config.Ctx.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	ws := p.takeWaiting()
	conns := make([]*Conn, 0, len(p.all))
	for c := range p.all {
		conns = append(conns, c)
	}
	raws := make([]*TCP, 0, len(p.tcp))
	for c := range p.tcp {
		raws = append(raws, c)
	}
	p.mu.Unlock()
	stream.Do(func(t *stream.Turn) {
		p.fail(t, ws, closing())
		for _, c := range conns {
			c.close(t)
		}
	})
	for _, c := range raws {
		c.Close(true)
	}
}

// Size returns the number of HTTP connections, for tests and admin.
func (p *Pool) Size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all)
}

var _ host.Pool = (*Pool)(nil)

// socketAddr is an address as log lines show it, read once for a connection.
func socketAddr(a net.Addr) stream.Addr {
	switch a := a.(type) {
	case *net.TCPAddr:
		return stream.IPAddr(a.AddrPort())
	case *net.UnixAddr:
		return stream.PipeAddr(a.Name)
	}
	return stream.Addr{}
}
