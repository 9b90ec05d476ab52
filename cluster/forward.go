package cluster

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster/dnscache"
	"sidecar/cluster/host"
)

// The filter state that says where a dynamic forward proxy goes, before the request does.
const (
	DynamicHostKey = "envoy.upstream.dynamic_host"
	DynamicPortKey = "envoy.upstream.dynamic_port"
)

// forwardHosts are the hosts of a dynamic forward proxy: the names that its DNS cache has resolved, each
// one host, whatever its addresses are.
type forwardHosts struct {
	// Set by startForward, never changed.
	c     *Cluster
	cache *dnscache.Cache
	port  uint16 // of names without one
	stop  func()

	mu    sync.RWMutex // guards below
	hosts map[dnscache.Name]*host.Host
}

// startForward begins to use the cluster's DNS cache. There is nothing to wait for: names are resolved
// as requests come.
func (c *Cluster) startForward(conf *Config) {
	f := &forwardHosts{c: c, cache: c.m.caches.Acquire(conf.dnsCache), port: 80, hosts: map[dnscache.Name]*host.Host{}}
	if conf.transports != nil && conf.transports.fallback != nil {
		f.port = 443
	}
	c.forward.Store(f)
	end := f.cache.Observe(f)
	f.stop = sync.OnceFunc(func() {
		end()
		f.cache.Release()
	})
	c.find(stopper(f.stop))
	c.markReady()
}

// stopper is a finder that only has to be stopped.
type stopper func()

func (s stopper) stop() { s() }

// OnAddresses implements dnscache.Observer.
func (f *forwardHosts) OnAddresses(r dnscache.Result) { f.add(r) }

// add makes the host of a name, or moves it.
func (f *forwardHosts) add(r dnscache.Result) {
	at := &host.Addresses{Addr: stream.IPAddr(r.Addrs[0])}
	for _, a := range r.Addrs[1:] {
		at.More = append(at.More, stream.IPAddr(a))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.hosts[r.Name]
	if h != nil {
		h.SetAddresses(at)
		return
	}
	h = host.New(at.Addr, r.Name.String(), at.More, dstAttr)
	f.hosts[r.Name] = h
	f.c.countMatch(dstAttr)
	f.count()
}

// OnRemoved implements dnscache.Observer.
func (f *forwardHosts) OnRemoved(n dnscache.Name) {
	f.mu.Lock()
	h := f.hosts[n]
	delete(f.hosts, n)
	f.count()
	f.mu.Unlock()
	if h != nil {
		h.Drain(true)
	}
}

// count keeps the membership gauges; the caller holds mu.
func (f *forwardHosts) count() {
	m := f.c.member.Get()
	m.Total.Set(int64(len(f.hosts)))
	m.Healthy.Set(int64(len(f.hosts)))
	m.Change.Inc()
}

func (f *forwardHosts) all() []*host.Host {
	f.mu.RLock()
	defer f.mu.RUnlock()
	hosts := make([]*host.Host, 0, len(f.hosts))
	for _, h := range f.hosts {
		hosts = append(hosts, h)
	}
	return hosts
}

// ForwardPort is the port of names without one, of a dynamic forward proxy; 0 for other clusters.
func (c *Cluster) ForwardPort() uint16 {
	if f := c.forward.Load(); f != nil {
		return f.port
	}
	return 0
}

// ForwardName works out where a dynamic forward proxy sends a stream to. False says that it is not told.
func (c *Cluster) ForwardName(ctx *Context) (dnscache.Name, bool) {
	f := c.forward.Load()
	if f == nil {
		return dnscache.Name{}, false
	}
	return f.name(ctx)
}

// ForwardName works out where a connection goes that a TCP proxy serves: by its filter state or its SNI.
func ForwardName(conn *stream.ConnInfo, port uint16) (dnscache.Name, bool) {
	f := forwardHosts{port: port}
	return f.name(&Context{Info: &stream.Info{}, Conn: conn})
}

// name is as ForwardName (Cluster::LoadBalancer::chooseHost).
func (f *forwardHosts) name(ctx *Context) (dnscache.Name, bool) {
	port, raw := f.port, ""
	if ctx.Info != nil && (len(ctx.Info.FilterState) > 0 || ctx.Conn != nil && len(ctx.Conn.FilterState) > 0) {
		raw = state(ctx.Info, ctx.Conn, DynamicHostKey)
		if n, err := strconv.ParseUint(state(ctx.Info, ctx.Conn, DynamicPortKey), 10, 16); err == nil && n > 0 {
			port = uint16(n)
		}
	}
	switch {
	case raw != "":
	case ctx.Headers != nil:
		raw = ctx.Headers.Value(header.Authority)
	case ctx.Conn != nil:
		raw = ctx.Conn.SNI
	}
	return NameOf(raw, port)
}

// NameOf takes an authority apart, as a dynamic forward proxy looks names up; port is for one without a
// port of its own (DnsHostInfo::normalizeHostForDfp). False says that there is no name in it.
func NameOf(authority string, port uint16) (dnscache.Name, bool) {
	name, _ := hostOf(authority)
	if n, err := strconv.ParseUint(authority[len(authority)-portLen(authority):], 10, 16); err == nil && n > 0 {
		port = uint16(n)
	}
	return dnscache.Name{Host: name, Port: port}, name != ""
}

// portLen is how many digits of a port an authority ends with.
func portLen(authority string) int {
	n := 0
	for n < len(authority) && authority[len(authority)-1-n] >= '0' && authority[len(authority)-1-n] <= '9' {
		n++
	}
	if n == 0 || n == len(authority) || authority[len(authority)-1-n] != ':' {
		return 0
	}
	if _, err := netip.ParseAddr(authority); err == nil {
		return 0 // an IPv6 address without brackets
	}
	return n
}

// known returns the host of a name that has one.
func (f *forwardHosts) known(n dnscache.Name) *host.Host {
	f.mu.RLock()
	h := f.hosts[n]
	f.mu.RUnlock()
	if h != nil {
		f.cache.Touch(n)
	}
	return h
}

// choose returns the host of a request whose name was resolved.
func (f *forwardHosts) choose(ctx *Context) *host.Host {
	n, ok := f.name(ctx)
	if !ok {
		return nil
	}
	return f.known(n)
}

// resolution is an attempt that waits for its name.
type resolution struct {
	ctx    Context
	target stream.Target
	raw    bool // Connect, not NewStream
	state  atomic.Uint32
	cancel func()
	failed *stream.Fault
}

const (
	resolving uint32 = iota
	resolved
	abandoned
)

// resolve makes an attempt wait for the name that it goes to, if it must. False says that it goes on at
// once.
func (f *forwardHosts) resolve(ctx *Context, target stream.Target, a *Attempt, raw bool) (bool, *stream.Fault) {
	n, ok := f.name(ctx)
	if !ok || f.known(n) != nil {
		return false, nil
	}
	w := &resolution{ctx: *ctx, target: target, raw: raw}
	r, now, cancel := f.cache.Load(n, func(r dnscache.Result) { f.done(w, r) })
	if now {
		return false, f.taken(r)
	}
	w.cancel = cancel
	*a = Attempt{cluster: f.c, resolution: w}
	return true, nil
}

// taken makes the host of an answer, or the fault that there is none.
func (f *forwardHosts) taken(r dnscache.Result) *stream.Fault {
	if len(r.Addrs) > 0 {
		f.add(r)
		return nil
	}
	f.c.use().traffic.CxNoneHealthy.Inc()
	fault := noHealthyUpstream()
	fault.Err, fault.Details = r.Err, ResolutionDetails(r.Err)
	return fault
}

// ResolutionDetails are Envoy's response_code_details for a name that has no address.
func ResolutionDetails(err error) string {
	switch {
	case dnscache.Overflow(err):
		return err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "dns_resolution_failure{resolve_timeout}"
	}
	return "dns_resolution_failure{" + strings.ReplaceAll(err.Error(), " ", "_") + "}"
}

func (f *forwardHosts) done(w *resolution, r dnscache.Result) {
	w.failed = f.taken(r)
	if !w.state.CompareAndSwap(resolving, resolved) {
		return
	}
	e := stream.Event{Kind: stream.EventReady, Seq: w.ctx.Seq}
	if w.failed != nil {
		e = stream.Event{Kind: stream.EventFailed, Seq: w.ctx.Seq, Fault: w.failed}
	}
	stream.Do(func(t *stream.Turn) { w.target.Post(t, e) })
}

// Resolved tells that what EventReady announced is not a connection yet, but that the host is known.
func (a *Attempt) Resolved() bool { return a.resolution != nil }

// Continue goes on with an attempt that is Resolved. Without an encoder or a fault it waits for another
// EventReady.
func (a *Attempt) Continue(t *stream.Turn) (stream.Encoder, *stream.Fault) {
	w := a.resolution
	a.resolution = nil
	if w.raw {
		return nil, a.cluster.Connect(&w.ctx, w.target, a)
	}
	return a.cluster.NewStream(t, &w.ctx, w.target, a)
}

// abandon gives up waiting for the name.
func (w *resolution) abandon() {
	if w.state.CompareAndSwap(resolving, abandoned) {
		w.cancel()
	}
}
