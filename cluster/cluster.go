package cluster

import (
	"sync"
	"sync/atomic"
	"time"

	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/cluster/health"
	"sidecar/cluster/host"
	"sidecar/cluster/lb"
	"sidecar/cluster/load"
	"sidecar/cluster/outlier"
	"sidecar/cluster/pool"
	"sidecar/internal/config/source"
	"sidecar/internal/wire"
)

// Cluster is one live cluster. It may be used from any goroutine, also after it was replaced or
// removed: a stream that holds it can be served to its end.
type Cluster struct {
	// Set by newCluster, never changed.
	m       *Manager
	scope   *stats.Scope
	traffic *stats.Lazy[load.Traffic]
	member  *stats.Lazy[load.Membership]
	update  *stats.Lazy[load.Update]
	sub     *stats.Lazy[source.Stats]
	sizes   *stats.Lazy[load.Sizes] // nil for clusters that don't track them
	viaAPI  bool
	// checker is nil for clusters without active health checks.
	checker *health.Checker
	// outlierStats is nil for clusters without outlier detection.
	outlierStats *stats.Lazy[outlier.Stats]

	conf   atomic.Pointer[Config]
	set    atomic.Pointer[host.Set]
	active atomic.Pointer[active]
	// forward is set once, for a dynamic forward proxy.
	forward atomic.Pointer[forwardHosts]

	mu      sync.Mutex // guards below; never held while streams are told anything
	finder  finder     // what keeps the hosts up to date; nil for STATIC
	last    assignment // what hosts were last built from
	version uint64
	since   time.Time   // last_updated of config_dump
	info    string      // version_info of config_dump
	stale   *time.Timer // of endpoint_stale_after
	retired bool
	found   bool // the first hosts are known
	secured bool // the transports have what they need
	ready   bool
	onReady []func()

	awaiting  bool
	stopAwait func()
}

// finder keeps a cluster's hosts up to date until it is stopped.
type finder interface{ stop() }

// active is what a cluster has once it is used.
type active struct {
	conf     *Config
	traffic  *load.Traffic
	breakers *load.Breakers
	balancer *lb.Balancer
	pools    pool.Config
	keyed    bool      // streams have pools by what their connections are like
	dst      *dstHosts // of ORIGINAL_DST
	ahead    *peekahead
	outlier  *outlier.Detector
}

func newCluster(m *Manager, conf *Config, viaAPI bool, info string) *Cluster {
	c := &Cluster{m: m, viaAPI: viaAPI, info: info, since: time.Now()}
	c.conf.Store(conf)
	c.scope = m.scope.Sub(conf.ObservabilityName())
	c.traffic = stats.BindLazy[load.Traffic](c.scope)
	c.member = stats.BindLazy[load.Membership](c.scope)
	c.update = stats.BindLazy[load.Update](c.scope)
	c.sub = stats.BindLazy[source.Stats](c.scope)
	if conf.trackSizes {
		c.sizes = stats.BindLazy[load.Sizes](c.scope)
	}
	c.outlierStats = bindOutlier(conf, c.scope)
	c.checker = c.newChecker(conf)
	c.set.Store(emptySet)
	c.secured = conf.transports == nil
	if conf.transports != nil {
		conf.transports.bind(c.scope)
	}
	return c
}

// emptySet is what a cluster has before its hosts are known.
//
//nolint:gochecknoglobals // immutable
var emptySet = host.NewSet(nil, host.Policy{}, 0)

// Config returns the compiled configuration.
func (c *Cluster) Config() *Config { return c.conf.Load() }

// Name returns the cluster's name.
func (c *Cluster) Name() string { return c.conf.Load().Name }

// Hosts returns the current hosts.
func (c *Cluster) Hosts() *host.Set { return c.set.Load() }

// Traffic returns the cluster's statistics, allocated at the first call.
func (c *Cluster) Traffic() *load.Traffic { return c.traffic.Get() }

// Scope returns the scope of the cluster's statistics.
func (c *Cluster) Scope() *stats.Scope { return c.scope }

// use returns what only a used cluster has, made at the first call.
func (c *Cluster) use() *active {
	if a := c.active.Load(); a != nil {
		return a
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a := c.active.Load(); a != nil {
		return a
	}
	a := c.newActive()
	c.active.Store(a)
	return a
}

func (c *Cluster) newActive() *active {
	conf := c.conf.Load()
	s := conf.Settings
	a := &active{conf: conf, traffic: c.traffic.Get()}
	a.breakers = load.NewBreakers(c.limits(s), a.traffic, c.remaining(s))
	a.balancer = c.newBalancer(a)
	a.pools = c.newPools(conf)
	a.pools.Traffic, a.pools.Breakers = a.traffic, a.breakers
	a.keyed = conf.keyed()
	if s.predictive > 1 && predicts(&s.lb) {
		a.ahead = &peekahead{ratio: s.predictive}
	}
	a.outlier = c.newDetector(conf.outlier)
	if conf.Kind == OriginalDst {
		a.dst = newDstHosts(c, s.CleanupInterval)
	}
	return a
}

// newPools is what the connections of the cluster have in common, but for what counts them.
func (c *Cluster) newPools(conf *Config) pool.Config {
	s := conf.Settings
	p := pool.Config{
		Ctx:           c.m.opt.Ctx,
		Dial:          &s.dial,
		NextID:        c.m.opt.NextConnID,
		IdleTimeout:   s.idleTimeout,
		MaxDuration:   s.maxDuration,
		MaxRequests:   s.maxRequestsPerConnection,
		HighWatermark: highWatermark(s.BufferLimit),
		Stripes:       c.m.opt.Concurrency,
		NewCodec: func(conn *wire.Conn, h pool.Handler) pool.Codec {
			return c.m.opt.NewCodec(conn, &s.HTTP, h)
		},
		MaxStreams: s.HTTP.Protocol.MaxConcurrentStreams,
		Preconnect: s.preconnect, Counted: s.predictive > 1,
	}
	p.Auto = s.HTTP.Auto
	p.ClusterName, p.ClusterMetadata = conf.ObservabilityName(), conf.Metadata
	if x := conf.transports; x != nil {
		p.Transport, p.Filters = x.of, x.filters
	}
	if c.m.opt.NewHTTP2 != nil {
		p.NewHTTP2 = c.m.opt.NewHTTP2(&s.HTTP, c.scope)
	}
	return p
}

// highWatermark turns per_connection_buffer_limit_bytes into that of a connection's output. More than
// the connection's own is no use: what is above waits at the source.
func highWatermark(limit uint32) int {
	if limit == 0 || limit > wire.HighWatermark {
		return wire.HighWatermark
	}
	return int(limit)
}

func (c *Cluster) remaining(s *Settings) (out [2]*load.Remaining) {
	if !s.trackRemaining {
		return out
	}
	for p, name := range [2]string{"circuit_breakers.default", "circuit_breakers.high"} {
		if s.limits[p].TrackRemaining {
			out[p] = stats.Bind[load.Remaining](c.scope.Sub(name))
		}
	}
	return out
}

// setHosts builds the next host set from an assignment. Hosts whose address is still there are kept;
// those that are gone are drained. The caller holds no lock and is the only one to set hosts.
func (c *Cluster) setHosts(a assignment) {
	c.mu.Lock()
	b := newBuilder(c.set.Load(), c.conf.Load().Kind)
	b.matched = c.countMatch
	b.unchecked = c.uncheckedFlags()
	specs := make([]host.Spec, 0, len(a.localities))
	for i := range a.localities {
		specs = append(specs, b.spec(&a.localities[i]))
	}
	gone := b.left()
	specs, gone = c.retain(specs, gone)
	c.version++
	set := host.NewSet(specs, a.policy, c.version)
	c.set.Store(set)
	c.last = a
	closeAll := c.conf.Load().closeOnHostSetChange
	retired := c.retired
	c.countMembers(set, b.added > 0 || len(gone) > 0)
	c.mu.Unlock()
	for _, h := range gone {
		h.Drain(true)
	}
	c.forget(gone)
	if c.checker != nil {
		c.checker.Remove(gone)
		c.checker.Add(b.made)
	}
	if retired {
		c.drain()
	} else if closeAll && (b.added > 0 || len(gone) > 0) && b.kept > 0 {
		for _, h := range set.Hosts {
			h.Drain(false)
		}
	}
}

// countMembers keeps the membership gauges.
func (c *Cluster) countMembers(set *host.Set, changed bool) {
	m := c.member.Get()
	var healthy, degraded, excluded, weight int64
	for i := range set.Priorities {
		healthy += int64(len(set.Priorities[i].Healthy))
		degraded += int64(len(set.Priorities[i].Degraded))
		excluded += int64(set.Priorities[i].Excluded)
	}
	for _, h := range set.Hosts {
		weight = max(weight, int64(h.Attr().Weight))
	}
	m.Total.Set(int64(len(set.Hosts)))
	m.Healthy.Set(healthy)
	m.Degraded.Set(degraded)
	m.Excluded.Set(excluded)
	if c.conf.Load().Kind != Static {
		m.MaxHostWeight.Set(weight)
	}
	if changed {
		m.Change.Inc()
	}
}

// markReady ends the wait for the first hosts.
func (c *Cluster) markReady() {
	c.mu.Lock()
	c.found = true
	c.settle()
}

// secure ends the wait for the transports.
func (c *Cluster) secure() {
	c.mu.Lock()
	c.secured = true
	c.settle()
}

// settle tells who waits once nothing is waited for; the caller holds mu, and loses it.
func (c *Cluster) settle() {
	if !c.found || !c.retired && (!c.secured || c.checker != nil && !c.ready && c.checker.Waiting()) {
		c.mu.Unlock()
		return
	}
	fs := c.onReady
	c.onReady = nil
	c.ready = true
	c.mu.Unlock()
	for _, f := range fs {
		f()
	}
}

// whenReady calls f once the first hosts are known, at once if they are.
func (c *Cluster) whenReady(f func()) {
	c.mu.Lock()
	if !c.ready {
		c.onReady = append(c.onReady, f)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	f()
}

// retire ends the cluster's life in the manager: hosts are not updated any more, connections are
// closed as their streams end, and its statistics leave the listing.
func (c *Cluster) retire() {
	c.mu.Lock()
	if c.retired {
		c.mu.Unlock()
		return
	}
	c.retired = true
	f := c.finder
	if c.checker != nil {
		defer c.checker.Stop()
	}
	c.finder = nil
	c.mu.Unlock()
	if f != nil {
		f.stop()
	}
	c.endTransports()
	if a := c.active.Load(); a != nil {
		if a.dst != nil {
			a.dst.stopped()
		}
		if a.outlier != nil {
			a.outlier.Stop()
		}
	}
	c.drain()
	c.scope.Close()
}

func (c *Cluster) drain() {
	c.eachHost(func(h *host.Host) { h.Drain(true) })
}

// eachHost visits the hosts of the set and those of ORIGINAL_DST.
func (c *Cluster) eachHost(f func(*host.Host)) {
	for _, h := range c.set.Load().Hosts {
		f(h)
	}
	if a := c.active.Load(); a != nil && a.dst != nil {
		for _, h := range a.dst.all() {
			f(h)
		}
	}
	if fwd := c.forward.Load(); fwd != nil {
		for _, h := range fwd.all() {
			f(h)
		}
	}
}

// close ends every stream and connection at once.
func (c *Cluster) close() {
	c.retire()
	c.eachHost((*host.Host).Close)
}

// addrKey is what a host is recognized by in an update.
type addrKey struct {
	addr     string
	hostname string
}

// builder turns a configuration into hosts, taking those that are there already.
type builder struct {
	old         map[addrKey][]*host.Host
	seen        map[string]bool // of EDS, which drops repeated addresses
	logical     bool
	added, kept int
	// unchecked are the flags of hosts before their first active health check, made those hosts.
	unchecked host.Flag
	made      []*host.Host
	// matched is called for each host whose transport is chosen: a new one, or one with new metadata.
	matched func(*host.Attributes)
}

func newBuilder(set *host.Set, kind Kind) *builder {
	b := &builder{old: make(map[addrKey][]*host.Host, len(set.Hosts)), logical: kind == LogicalDNS}
	for _, h := range set.Hosts {
		k := addrKey{h.Addr().String(), h.Hostname()}
		if b.logical {
			k.addr = ""
		}
		b.old[k] = append(b.old[k], h)
	}
	if kind == EDS {
		b.seen = map[string]bool{}
	}
	return b
}

func (b *builder) spec(l *localityConfig) host.Spec {
	s := host.Spec{Locality: l.locality, Weight: l.weight, Priority: l.priority}
	s.Hosts = make([]*host.Host, 0, len(l.hosts))
	for i := range l.hosts {
		e := &l.hosts[i]
		if b.seen != nil {
			if b.seen[e.addr.addr.String()] {
				continue
			}
			b.seen[e.addr.addr.String()] = true
		}
		s.Hosts = append(s.Hosts, b.host(e))
	}
	return s
}

func (b *builder) host(e *endpointConfig) *host.Host {
	k := addrKey{e.addr.addr.String(), e.hostname}
	if b.logical {
		k.addr = "" // the one host of the cluster, wherever it has moved to
	}
	more := make([]stream.Addr, 0, len(e.more))
	for i := range e.more {
		more = append(more, e.more[i].addr)
	}
	if have := b.old[k]; len(have) > 0 && sameCheck(have[0].Attr().Check, e.attr.Check) {
		h := have[0]
		b.old[k] = have[1:]
		b.kept++
		h.Clear(host.PendingRemoval)
		if h.Attr() != e.attr {
			h.SetAttr(e.attr)
			b.matched(e.attr)
		}
		if b.logical || len(more) > 0 || len(h.Addresses().More) > 0 {
			h.SetAddresses(&host.Addresses{Addr: e.addr.addr, More: more})
		}
		return h
	}
	b.added++
	b.matched(e.attr)
	if len(more) == 0 {
		more = nil
	}
	h := host.New(e.addr.addr, e.hostname, more, e.attr)
	if b.unchecked != 0 {
		b.made = append(b.made, h)
		if e.attr.Check == nil || !e.attr.Check.Disabled {
			h.Set(b.unchecked)
		}
	}
	return h
}

// left returns the hosts that the configuration doesn't have any more.
func (b *builder) left() (gone []*host.Host) {
	for _, hs := range b.old {
		gone = append(gone, hs...)
	}
	return gone
}
