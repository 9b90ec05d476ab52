package cluster

import (
	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster/host"
	"sidecar/cluster/lb"
	"sidecar/cluster/load"
	"sidecar/cluster/pool"
)

// Context is what a stream knows when it asks for a host. It belongs to the caller and is read only
// while the call lasts.
type Context struct {
	lb.Context
	// Priority is the routing priority of the route.
	Priority load.Priority
	// Hint spreads streams over processors: one value for one downstream connection.
	Hint uint32
	// Seq comes back in the event, so that a stream can tell its attempts apart.
	Seq uint32
	// Protocol of the downstream request, for clusters that go by it (use_downstream_protocol_config).
	Protocol stream.Protocol
	// SpeaksHTTP2 says what a caller of Connect will send, to be told where the protocol is negotiated.
	SpeaksHTTP2 bool
	// Headers of the request, for ORIGINAL_DST with use_http_header; may be nil.
	Headers *header.Map
	// Conn is the downstream connection, if one causes the attempt: of a cluster whose connections tell
	// of clients, or belong to them, it is the one that the connection is for.
	Conn *stream.ConnInfo
	// Info is the stream's record, for what filters have written of the way to go; nil if there is none.
	Info *stream.Info
	// Ask is what the connection is to be like, as Cluster.Ask works it out; nil asks for nothing.
	Ask *filter.ConnectOptions
}

// Attempt is one try of one stream at a cluster. The stream keeps it with its own state, so that an
// attempt allocates nothing; all methods are called inside the stream. The zero value is ready, and a
// used one is ready for the next attempt once it was cancelled or its stream has ended.
type Attempt struct {
	// Host is the chosen one; nil if there was none.
	Host       *host.Host
	cluster    *Cluster
	lease      pool.Lease
	tcp        *pool.TCP
	raw        bool        // a TCP proxy's
	resolution *resolution // of a dynamic forward proxy, until the name is resolved
}

// NewStream chooses a host and begins a stream on a connection to it. There are three outcomes:
//   - an encoder: the stream has begun; its events go to target.
//   - a fault: there will be no stream.
//   - neither: the stream waits for a connection. EventReady is posted to target, upon which the
//     caller calls Attempt.Open, or EventFailed with the fault; Seq is the context's. The caller may
//     call Attempt.Cancel before, and must do so if it ends without having seen the event.
//
// Attempt.Host is set in all cases but "no healthy upstream" and the overflow of pending requests.
func (c *Cluster) NewStream(t *stream.Turn, ctx *Context, target stream.Target, a *Attempt) (stream.Encoder, *stream.Fault) {
	if fwd := c.forward.Load(); fwd != nil {
		if waits, f := fwd.resolve(ctx, target, a, false); waits || f != nil {
			return nil, f
		}
	}
	mux := c.conf.Load().HTTP.multiplexed(ctx.Protocol)
	*a = Attempt{cluster: c}
	p, f := c.prepare(ctx, a, mux)
	if f != nil {
		return nil, f
	}
	enc, f := a.lease.Get(t, p, target, ctx.Hint, ctx.Seq)
	for a.lease.Retired() && f == nil {
		if p, f = c.use().find(a.Host, ctx, mux); f == nil {
			enc, f = a.lease.Get(t, p, target, ctx.Hint, ctx.Seq)
		}
	}
	if a.lease.Refused() {
		a.Host = nil // Envoy: a stream that may not wait has no upstream host, in logs and counters
	}
	return enc, f
}

// Connect chooses a host and opens a raw connection to it for a TCP proxy. Unless a fault is returned
// EventReady (call Attempt.OpenTCP) or EventFailed is posted to target, as with NewStream.
func (c *Cluster) Connect(ctx *Context, target stream.Target, a *Attempt) *stream.Fault {
	if fwd := c.forward.Load(); fwd != nil {
		if waits, f := fwd.resolve(ctx, target, a, true); waits || f != nil {
			return f
		}
	}
	*a = Attempt{cluster: c, raw: true}
	p, f := c.prepare(ctx, a, false)
	if f != nil {
		return f
	}
	f = a.lease.Connect(p, target, ctx.Seq, ctx.SpeaksHTTP2)
	for a.lease.Retired() && f == nil {
		if p, f = c.use().find(a.Host, ctx, false); f == nil {
			f = a.lease.Connect(p, target, ctx.Seq, ctx.SpeaksHTTP2)
		}
	}
	return f
}

func (c *Cluster) prepare(ctx *Context, a *Attempt, mux bool) (*pool.Pool, *stream.Fault) {
	act := c.use()
	h := c.choose(act, ctx)
	if h == nil {
		act.traffic.CxNoneHealthy.Inc()
		return nil, noHealthyUpstream()
	}
	a.Host = h
	if act.ahead != nil && !a.raw {
		c.predict(act, ctx.Priority, mux)
	}
	return act.find(h, ctx, mux)
}

// find returns the pool for a stream to a host.
func (a *active) find(h *host.Host, ctx *Context, mux bool) (*pool.Pool, *stream.Fault) {
	if ctx.Ask == nil && !a.keyed {
		p := a.pool(h, ctx.Priority, mux)
		p.MakeRoom()
		return p, nil
	}
	p := a.keyedPool(h, ctx, mux)
	if p == nil {
		a.traffic.CxPoolOverflow.Inc()
		return nil, noHealthyUpstream()
	}
	p.MakeRoom()
	return p, nil
}

func (c *Cluster) choose(act *active, ctx *Context) *host.Host {
	if act.dst != nil {
		return act.dst.choose(ctx)
	}
	if fwd := c.forward.Load(); fwd != nil {
		return fwd.choose(ctx)
	}
	if act.ahead != nil && len(ctx.Tried) == 0 {
		if h := act.ahead.take(c.set.Load()); h != nil {
			return h
		}
	}
	h, panicked := act.balancer.Pick(c.set.Load(), &ctx.Context)
	if panicked {
		act.traffic.LbHealthyPanic.Inc()
	}
	return h
}

// pool returns the connections to a host for one priority and kind of codec.
func (a *active) pool(h *host.Host, priority load.Priority, mux bool) *pool.Pool {
	slot, create := slot(priority, mux), pool.New
	if mux {
		create = pool.NewMux
	}
	if p, ok := h.PeekPool(slot).(*pool.Pool); ok {
		return p
	}
	p, _ := h.Pool(slot, func() host.Pool { return create(&a.pools, h, priority) }).(*pool.Pool)
	return p
}

// slot is the number of a host's pool.
func slot(priority load.Priority, mux bool) int {
	n := 2 * int(priority)
	if mux {
		n++
	}
	return n
}

func noHealthyUpstream() *stream.Fault {
	return &stream.Fault{
		Side: stream.Upstream, Flag: stream.NoHealthyUpstream, Status: 503,
		Details: "no_healthy_upstream", Body: "no healthy upstream",
	}
}

// Open begins the stream that EventReady announced. Without an encoder or a fault it waits once more:
// what was ready was the name of the host.
func (a *Attempt) Open(t *stream.Turn) (stream.Encoder, *stream.Fault) {
	if a.Resolved() {
		return a.Continue(t)
	}
	return a.lease.Open(t)
}

// OpenTCP returns the connection that EventReady announced. The caller owns it and must call its
// Close once.
func (a *Attempt) OpenTCP() *pool.TCP {
	a.tcp = a.lease.OpenTCP()
	return a.tcp
}

// Cancel gives up an attempt that waits. It does nothing to one that has begun or failed: a begun
// stream is reset through its encoder.
func (a *Attempt) Cancel(t *stream.Turn) {
	if w := a.resolution; w != nil {
		a.resolution = nil
		w.abandon()
	}
	a.lease.Cancel(t)
}

// Cluster returns the cluster of the attempt; nil before the first.
func (a *Attempt) Cluster() *Cluster { return a.cluster }

// Describe fills in what is known of the attempt so far: the host at once, the connection when the
// stream has begun.
func (a *Attempt) Describe(u *stream.UpstreamInfo) {
	if a.cluster == nil {
		return
	}
	u.Cluster = a.cluster.Config().ObservabilityName()
	if h := a.Host; h != nil {
		attr := h.Attr()
		u.Host, u.HostName, u.HostMetadata = h.Addr(), h.Hostname(), attr.Metadata
		if u.Remote.IsZero() {
			u.Remote = u.Host
		}
		if l := attr.Locality; l != nil {
			u.Locality, u.Region, u.Zone, u.SubZone = true, l.Region, l.Zone, l.SubZone
		}
	}
	if c := a.lease.Conn(); c != nil {
		u.Protocol, u.TLS, u.Conn = c.Protocol(), c.TLS(), c.Filtered()
		u.Local, u.Remote, u.ConnID, u.NumStreams = c.Local(), c.Remote(), c.ID(), c.Streams()
	}
	if c := a.tcp; c != nil {
		u.Local, u.Remote, u.ConnID, u.NumStreams = c.Local(), c.Remote(), c.ID(), 1
		u.TLS, u.Conn = c.TLS(), c.Filtered()
	}
}

// DropOverload decides whether the request is to be dropped for the cluster's drop_overloads: nil, or
// the fault (503; flag DO, or UDO when everything is dropped).
func (c *Cluster) DropOverload() *stream.Fault {
	drops := c.set.Load().Drops
	if len(drops) == 0 || drops[0].PerMillion == 0 {
		return nil
	}
	f := &stream.Fault{Side: stream.Internal, Status: 503}
	if drops[0].PerMillion >= 1_000_000 {
		f.Flag, f.Details = stream.UnconditionalDropOverload, "unconditional_drop_overload"
		f.Body = "unconditional drop overload"
		return f
	}
	if c.m.opt.Random()%1_000_000 >= uint64(drops[0].PerMillion) {
		return nil
	}
	f.Flag, f.Details, f.Body = stream.DropOverload, "drop_overload", "drop overload"
	return f
}
