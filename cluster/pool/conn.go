package pool

import (
	"sync/atomic"
	"time"

	"sidecar/api/stream"
	"sidecar/cluster/dial"
	"sidecar/internal/task"
)

// Conn is one HTTP connection of a pool.
type Conn struct {
	// Set by connected, never changed.
	pool    *Pool
	codec   Codec
	stripe  *stripe
	id      uint64
	local   stream.Addr
	remote  stream.Addr
	session *stream.TLSInfo // nil: plaintext
	// filtered is nil without network filters.
	filtered *filtered
	one      bool // in a pool of others, a connection that carries one stream at a time
	since    time.Time
	drained  uint32 // of the pool, when the connection was made

	streams atomic.Uint64
	active  atomic.Bool // a request is counted
	retire  atomic.Bool // max_connection_duration has passed

	// Guarded by stripe.mu.
	idleSince time.Time
	idle      bool
	gone      bool
	closing   bool
	timer     *time.Timer

	m muxed // guarded by Pool.mu
}

// ID returns the connection's number.
func (c *Conn) ID() uint64 { return c.id }

// Streams returns how many streams have begun on the connection.
func (c *Conn) Streams() uint64 { return c.streams.Load() }

// Protocol returns the version that the connection speaks.
func (c *Conn) Protocol() stream.Protocol {
	if c.exclusive() {
		return stream.HTTP11
	}
	return stream.HTTP2
}

// TLS returns the session, nil on plaintext.
func (c *Conn) TLS() *stream.TLSInfo { return c.session }

// Local and Remote return the addresses of the socket.
func (c *Conn) Local() stream.Addr { return c.local }

// Remote returns the peer's address.
func (c *Conn) Remote() stream.Addr { return c.remote }

// begin counts a request; undo takes it back when there was none after all.
func (c *Conn) begin() {
	c.active.Store(true)
	c.streams.Add(1)
	if c.pool.conf.Preconnect > 1 || c.pool.conf.Counted {
		c.pool.active.Add(1)
	}
	c.pool.conf.Traffic.RqActive.Inc()
	c.pool.counters.RqActive.Inc()
}

func (c *Conn) undo() {
	c.streams.Add(^uint64(0))
	c.end()
}

// exclusive tells that the connection carries one stream at a time.
func (c *Conn) exclusive() bool { return !c.pool.mux || c.one }

// end gives back what begin took. An exclusive connection does so once: the reader may find it gone
// while a stream is about to begin on it. False says that there was nothing to give back.
func (c *Conn) end() bool {
	if c.exclusive() && !c.active.CompareAndSwap(true, false) {
		return false
	}
	if c.pool.conf.Preconnect > 1 || c.pool.conf.Counted {
		c.pool.active.Add(-1)
	}
	c.pool.conf.Breakers.GiveRequest(c.pool.priority)
	c.pool.conf.Traffic.RqActive.Dec()
	c.pool.counters.RqActive.Dec()
	return true
}

// stale tells whether the connection is older than the last drain, or than it may get.
func (c *Conn) stale() bool { return c.drained != c.pool.drained.Load() || c.retire.Load() }

// hasGone tells whether the reader has found the connection ended: as its last stream is released it
// must not be given to the next.
func (c *Conn) hasGone() bool {
	c.stripe.mu.Lock()
	defer c.stripe.mu.Unlock()
	return c.gone
}

func (c *Conn) close(t *stream.Turn) {
	c.stripe.mu.Lock()
	c.closing = true
	c.stripe.mu.Unlock()
	c.codec.Close(t)
}

// OnIdle implements Handler.
func (c *Conn) OnIdle(t *stream.Turn) {
	if c.one {
		c.OnStreamEnd(t)
		return
	}
	c.end()
	c.pool.release(t, c)
}

// OnGone implements Handler.
func (c *Conn) OnGone(t *stream.Turn, g Gone) {
	p, s := c.pool, c.stripe
	s.mu.Lock()
	c.gone = true
	s.remove(c)
	local := g.Local || c.closing
	timer := c.timer
	s.mu.Unlock()
	if timer != nil {
		timer.Stop()
	}
	switch {
	case !p.mux:
		c.end()
	case c.one: // else each stream tells its own end
		c.OnStreamEnd(t)
	}
	p.countDestroy(local, g.Active)
	if g.CloseNotify {
		p.conf.Traffic.CxCloseNotify.Inc()
	}
	if g.ProtocolError {
		p.conf.Traffic.CxProtocolError.Inc()
	}
	p.conf.Traffic.RqPerCx.Record(c.streams.Load())
	p.conf.Traffic.CxLengthMs.Record(uint64(t.Now().Sub(c.since).Milliseconds()))
	p.mu.Lock()
	delete(p.all, c)
	if p.mux {
		c.m.ending = true
		p.dropMux(c)
	}
	start, _ := p.wantDial()
	p.mu.Unlock()
	if start {
		p.startDial()
	}
	c.filtered.end()
	p.settle()
}

func (p *Pool) countDestroy(local, active bool) {
	tr := p.conf.Traffic
	tr.CxDestroy.Inc()
	tr.CxActive.Dec()
	p.counters.CxActive.Dec()
	p.conf.Breakers.Connection(p.priority, -1)
	if local {
		tr.CxDestroyLocal.Inc()
	} else {
		tr.CxDestroyRemote.Inc()
	}
	if !active {
		return
	}
	tr.CxDestroyActive.Inc()
	if local {
		tr.CxDestroyLocalActive.Inc()
	} else {
		tr.CxDestroyRemoteActive.Inc()
	}
}

// startDial dials on a goroutine of its own, which reads the connection afterwards.
func (p *Pool) startDial() {
	p.countNew()
	switch {
	case !p.mux:
		p.conf.Traffic.CxHTTP1Total.Inc()
	case !p.conf.Auto: // else it is counted when it is known
		p.conf.Traffic.CxHTTP2Total.Inc()
	}
	task.Go("upstream connection", p.dialHTTP, nil)
}

func (p *Pool) countNew() {
	tr := p.conf.Traffic
	// DIVERGES(alpn-cx-total): where ALPN chooses the version, Envoy counts a connection here twice.
	tr.CxTotal.Inc()
	tr.CxActive.Inc()
	p.counters.CxTotal.Inc()
	p.counters.CxActive.Inc()
	p.conf.Breakers.Connection(p.priority, 1)
}

func (p *Pool) dialHTTP() {
	start := time.Now()
	o, err := p.open(p.conf.Ctx, p.alpn())
	if err != nil {
		p.countFailed(err, start)
		p.dialFailed(err)
		return
	}
	p.conf.Traffic.CxConnectMs.Record(uint64(time.Since(start).Milliseconds()))
	c := p.adopt(o, start)
	if c == nil {
		o.discard()
		p.countDestroy(true, false)
		p.settle()
		return
	}
	if p.mux {
		stream.Do(p.serveMux)
	} else {
		stream.Do(func(t *stream.Turn) { p.release(t, c) })
	}
	c.codec.Serve()
}

// adopt makes a pool connection of a socket; nil when the pool was closed meanwhile.
func (p *Pool) adopt(o *opened, since time.Time) *Conn {
	c := &Conn{
		pool: p, id: p.conf.NextID(), since: since, session: o.session, filtered: o.filtered,
		local:  socketAddr(o.Net().LocalAddr()),
		remote: socketAddr(o.Net().RemoteAddr()),
	}
	c.stripe = &p.stripes[c.id%uint64(len(p.stripes))]
	c.one = p.conf.Auto && (o.session == nil || o.session.ALPN != alpnHTTP2)
	if c.exclusive() {
		c.codec = p.conf.NewCodec(o.Conn, c)
	} else {
		c.codec = p.conf.NewHTTP2(o.Conn, c)
	}
	if p.mux && p.conf.Auto {
		c.countVersion()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.connecting--
	if p.closed {
		return nil
	}
	c.drained = p.drained.Load()
	if p.all == nil {
		p.all = map[*Conn]struct{}{}
	}
	p.all[c] = struct{}{}
	if p.mux {
		c.m.limit, c.m.idleSince = p.streamLimit(assumedStreams), since
		if c.one {
			c.m.limit, p.lastLimit = 1, 1
		}
		p.shared = append(p.shared, c)
		p.armIdle(p.conf.IdleTimeout)
	}
	if p.conf.MaxDuration > 0 {
		c.timer = time.AfterFunc(p.conf.MaxDuration, c.expire)
	}
	return c
}

// expire ends the use of a connection that has reached its maximum duration.
func (c *Conn) expire() {
	c.pool.conf.Traffic.CxMaxDuration.Inc()
	c.retire.Store(true)
	if c.pool.mux {
		c.pool.expireMux(c)
		return
	}
	c.stripe.mu.Lock()
	idle := c.idle
	c.stripe.remove(c)
	c.stripe.mu.Unlock()
	if idle {
		stream.Do(c.close)
	}
}

func (p *Pool) dialFailed(e *dial.Error) {
	p.mu.Lock()
	p.connecting--
	ws := p.takeWaiting()
	p.mu.Unlock()
	stream.Do(func(t *stream.Turn) { p.fail(t, ws, connectFailed(e)) })
	p.settle()
}

func (p *Pool) countFailed(e *dial.Error, since time.Time) {
	p.countDestroy(e.Reason != stream.ReasonRemoteConnectionFailure, false)
	tr := p.conf.Traffic
	tr.CxLengthMs.Record(uint64(time.Since(since).Milliseconds()))
	tr.CxConnectFail.Inc()
	p.counters.CxConnectFail.Inc()
	if e.Bind {
		tr.BindErrors.Inc()
	}
	if e.Reason == stream.ReasonConnectionTimeout {
		tr.CxConnectTimeout.Inc()
	}
}

// countVersion counts a connection whose version was negotiated.
func (c *Conn) countVersion() {
	if c.one {
		c.pool.conf.Traffic.CxHTTP1Total.Inc()
	} else {
		c.pool.conf.Traffic.CxHTTP2Total.Inc()
	}
}
