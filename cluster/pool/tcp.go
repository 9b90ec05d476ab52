package pool

import (
	"context"
	"sync/atomic"
	"time"

	"sidecar/api/stream"
	"sidecar/internal/task"
	"sidecar/internal/wire"
)

// TCP is a raw connection that belongs to whoever opened it until its Close.
type TCP struct {
	*wire.Conn
	// Set before it is handed over, never changed.
	pool    *Pool
	id      uint64
	local   stream.Addr
	remote  stream.Addr
	since   time.Time
	session *stream.TLSInfo // nil: plaintext
	// filtered is nil without network filters.
	filtered *filtered
	closed   atomic.Bool
}

// ID returns the connection's number.
func (c *TCP) ID() uint64 { return c.id }

// Local returns our address of the socket.
func (c *TCP) Local() stream.Addr { return c.local }

// Remote returns the peer's address.
func (c *TCP) Remote() stream.Addr { return c.remote }

// TLS returns the session, nil on plaintext.
func (c *TCP) TLS() *stream.TLSInfo { return c.session }

// Close closes the socket, if it isn't closed yet, and ends the accounting of the connection; local
// says that the peer did not close first. Calls after the first do nothing.
func (c *TCP) Close(local bool) {
	if c.closed.Swap(true) {
		return
	}
	c.Conn.Close()
	p := c.pool
	p.mu.Lock()
	delete(p.tcp, c)
	p.mu.Unlock()
	defer p.settle()
	c.filtered.end()
	p.conf.Traffic.RqActive.Dec()
	p.counters.RqActive.Dec()
	p.conf.Breakers.GiveRequest(p.priority)
	p.conf.Traffic.CxLengthMs.Record(uint64(time.Since(c.since).Milliseconds()))
	p.countDestroy(local, true)
}

// Connect opens a raw connection for the stream of target: EventReady (then call OpenTCP) or
// EventFailed is posted to it with seq, unless a fault is returned. http2 says that the caller will speak
// that, which a transport that negotiates is told.
func (l *Lease) Connect(p *Pool, target stream.Target, seq uint32, http2 bool) *stream.Fault {
	*l = Lease{pool: p}
	tr, br := p.conf.Traffic, p.conf.Breakers
	if !br.MayConnect(p.priority) {
		// Envoy's TCP proxy asks before its pool would make it wait.
		tr.CxOverflow.Inc()
		return overflow()
	}
	if !br.TakePending(p.priority) {
		tr.RqPendingOverflow.Inc()
		return overflow()
	}
	p.mu.Lock()
	if f := l.enter(); f != nil || l.retired {
		p.mu.Unlock()
		br.GivePending(p.priority)
		p.settle()
		return f
	}
	p.dialing++
	p.mu.Unlock()
	p.notePending()
	ctx, cancel := context.WithCancel(p.conf.Ctx)
	w := &waiter{target: target, seq: seq, cancel: cancel}
	if http2 {
		w.alpn = []string{alpnHTTP2}
	}
	l.wait = w
	p.countNew()
	task.Go("upstream connection", func() { p.dialTCP(ctx, w) }, nil)
	return nil
}

// OpenTCP returns the connection that EventReady announced.
func (l *Lease) OpenTCP() *TCP {
	p, w := l.pool, l.wait
	l.wait = nil
	if w == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := w.raw
	w.state, w.raw = over, nil
	return c
}

func (p *Pool) dialTCP(ctx context.Context, w *waiter) {
	defer p.dialed()
	defer w.cancel()
	start := time.Now()
	o, err := p.open(ctx, w.alpn)
	if err != nil {
		p.countFailed(err, start)
		p.failTCP(w, connectFailed(err))
		return
	}
	tr := p.conf.Traffic
	tr.CxConnectMs.Record(uint64(time.Since(start).Milliseconds()))
	c := &TCP{
		Conn: o.Conn, pool: p, id: p.conf.NextID(), since: start, session: o.session,
		filtered: o.filtered,
		local:    socketAddr(o.Net().LocalAddr()),
		remote:   socketAddr(o.Net().RemoteAddr()),
	}
	if !p.handOver(w, c) {
		o.discard()
		p.countDestroy(true, false)
		p.failTCP(w, closing())
		return
	}
	p.leftPending()
	stream.Do(func(t *stream.Turn) {
		w.target.Post(t, stream.Event{Kind: stream.EventReady, Seq: w.seq})
	})
}

// dialed ends the account of a TCP connection's dial.
func (p *Pool) dialed() {
	p.mu.Lock()
	p.dialing--
	p.mu.Unlock()
	p.settle()
}

// failTCP tells a stream, if it still waits, that there is no connection for it.
func (p *Pool) failTCP(w *waiter, f *stream.Fault) {
	p.mu.Lock()
	waited := w.state == waits
	w.state = over
	p.mu.Unlock()
	if waited {
		stream.Do(func(t *stream.Turn) { p.fail(t, []*waiter{w}, f) })
	}
}

// handOver gives a connection to the stream it was made for; false if that doesn't want it any more.
func (p *Pool) handOver(w *waiter, c *TCP) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.state != waits || p.closed {
		return false
	}
	w.state, w.raw = assigned, c
	if p.tcp == nil {
		p.tcp = map[*TCP]struct{}{}
	}
	p.tcp[c] = struct{}{}
	// Counted before anybody can close it. Envoy's TCP pools take the request without asking.
	p.conf.Breakers.ForceRequest(p.priority)
	p.conf.Traffic.RqTotal.Inc()
	p.conf.Traffic.RqActive.Inc()
	p.counters.RqTotal.Inc()
	p.counters.RqActive.Inc()
	return true
}
