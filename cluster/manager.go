package cluster

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/cluster/discover"
	"sidecar/cluster/dnscache"
	"sidecar/cluster/health"
	"sidecar/cluster/pool"
	"sidecar/internal/config/source"
	"sidecar/internal/wire"
)

// Options are what a Manager is made with.
type Options struct {
	// Ctx ends dials and resolutions that are under way, as Close does.
	Ctx context.Context //nolint:containedctx // the life of the process
	// Scope is the root of the statistics.
	Scope *stats.Scope
	Log   *slog.Logger
	// Concurrency is how many processors handle streams: idle connections are kept in as many stripes.
	Concurrency int
	// NewCodec makes a client connection of the HTTP codec.
	NewCodec func(conn *wire.Conn, o *HTTPOptions, h pool.Handler) pool.Codec
	// NewHTTP2 returns what makes the HTTP/2 connections of one cluster, whose scope it is given.
	NewHTTP2 func(o *HTTPOptions, scope *stats.Scope) func(conn *wire.Conn, h pool.Handler) pool.Codec
	// NextConnID numbers connections; nil numbers the upstream ones alone.
	NextConnID func() uint64
	// Random must be safe for concurrent use; nil is the runtime's generator.
	Random func() uint64
	// Runtime looks a number of the runtime up; nil knows none.
	Runtime func(key string) (uint64, bool)
	// RuntimeDouble is for Env, see there.
	RuntimeDouble func(key string) (float64, bool)
	// Bind and Transports are for Env, see there.
	Bind       *Bind
	Transports map[string]*filter.TransportEntry
	Network    map[string]*filter.NetworkEntry
	// Subscriber fetches endpoints; nil refuses EDS clusters.
	Subscriber source.Subscriber
	// NewResolver makes DNS resolvers; nil is the one of package discover.
	NewResolver func(discover.ResolverOptions) discover.Resolver
}

// Manager holds the clusters of the process. Its methods may be called from any goroutine.
type Manager struct {
	// Set by NewManager, never changed.
	opt    Options
	cancel context.CancelFunc
	root   *stats.Scope
	scope  *stats.Scope // "cluster"
	stats  *managerStats
	intern Intern
	ids    atomic.Uint64

	// turnstile bounds the active health checks of all clusters.
	turnstile *health.Turnstile

	resolvers interner[string, sharedResolver]
	caches    *dnscache.Caches

	live sync.Map // name -> *Cluster; what Get reads

	mu       sync.Mutex // guards below; held while clusters change, never while streams run
	entries  map[string]*entry
	version  string // of the last CDS update
	closed   bool
	initial  int // clusters whose first hosts the start of the process waits for
	primary  int // of these, those that need no other cluster to get them
	waiters  []func()
	deferred []func() // starts of EDS clusters, until the primary ones are ready
}

// entry is the place of one name.
type entry struct {
	live, warming *Cluster
}

// managerStats are Envoy's cluster_manager.* statistics.
type managerStats struct {
	Added    stats.Counter `stat:"cluster_added"`
	Modified stats.Counter `stat:"cluster_modified"`
	Removed  stats.Counter `stat:"cluster_removed"`
	Updated  stats.Counter `stat:"cluster_updated"`
	Merged   stats.Counter `stat:"cluster_updated_via_merge"`
	Outside  stats.Counter `stat:"update_out_of_merge_window"`
	Cancel   stats.Counter `stat:"update_merge_cancelled"`
	Active   stats.Gauge   `stat:"active_clusters"`
	Warming  stats.Gauge   `stat:"warming_clusters"`
}

// checksAtOnce is how many active health checks run at a time. What a check costs while it runs, a
// connection attempt above all, is bounded by it.
const checksAtOnce = 128

// NewManager makes a manager without clusters.
func NewManager(opt Options) *Manager {
	ctx, cancel := context.WithCancel(opt.Ctx)
	opt.Ctx = ctx
	m := &Manager{opt: opt, cancel: cancel, root: opt.Scope, entries: map[string]*entry{}}
	m.scope = opt.Scope.Sub("cluster")
	m.turnstile = health.NewTurnstile(checksAtOnce)
	m.stats = stats.Bind[managerStats](opt.Scope.Sub("cluster_manager"))
	if m.opt.Random == nil {
		m.opt.Random = rand.Uint64
	}
	if m.opt.NextConnID == nil {
		m.opt.NextConnID = func() uint64 { return m.ids.Add(1) }
	}
	m.opt.Concurrency = max(1, opt.Concurrency)
	if m.opt.NewResolver == nil {
		m.opt.NewResolver = discover.NewResolver
	}
	m.caches = dnscache.NewCaches(dnscache.Env{
		Ctx: ctx, Scope: opt.Scope, Random: m.opt.Random,
		NewResolver: func(o discover.ResolverOptions) discover.Resolver { return m.resolver(o) },
	})
	return m
}

// Get returns a cluster, nil if there is none of that name. It takes no lock.
func (m *Manager) Get(name string) *Cluster {
	if v, ok := m.live.Load(name); ok {
		if c, ok := v.(*Cluster); ok {
			return c
		}
	}
	return nil
}

// Each calls f for every live cluster, in no order.
func (m *Manager) Each(f func(*Cluster)) {
	m.live.Range(func(_, v any) bool {
		if c, ok := v.(*Cluster); ok {
			f(c)
		}
		return true
	})
}

// DNSCaches returns the DNS caches of dynamic forward proxies, which filters share with clusters.
func (m *Manager) DNSCaches() *dnscache.Caches { return m.caches }

// Env returns what Compile should be given, so that equal settings are shared.
func (m *Manager) Env() Env {
	return Env{
		Intern: &m.intern, NoEDS: m.opt.Subscriber == nil, Bind: m.opt.Bind,
		Transports: m.opt.Transports, RuntimeDouble: m.opt.RuntimeDouble, Network: m.opt.Network, Caches: m.caches, Scope: m.root, Log: m.opt.Log,
	}
}

// Apply brings a cluster to a new version. viaAPI tells clusters of CDS from those of the bootstrap;
// version is the server's name of it. A cluster that is not there yet, or that differs in more than
// its endpoints, goes live when its hosts are known; until then the old one serves. A static one of
// the bootstrap goes live at once, since Envoy's does. False says that nothing changed.
func (m *Manager) Apply(conf *Config, viaAPI bool, version string) bool {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return false
	}
	e := m.entries[conf.Name]
	newest := e.newest()
	if viaAPI && newest != nil && !newest.viaAPI {
		// Envoy: a cluster of the bootstrap is not replaced by one of CDS.
		m.mu.Unlock()
		return false
	}
	if newest != nil && newest.conf.Load().digest == conf.digest {
		m.mu.Unlock()
		return false
	}
	if e == nil {
		e = &entry{}
		m.entries[conf.Name] = e
		m.stats.Added.Inc()
	} else {
		m.stats.Modified.Inc()
	}
	if newest != nil && newest.conf.Load().body == conf.body && conf.Kind == Static {
		m.mu.Unlock()
		newest.updateInPlace(conf, version)
		return true
	}
	c := newCluster(m, conf, viaAPI, version)
	superseded := m.setWarming(e, c)
	waitFor := m.expect(c)
	if !viaAPI {
		m.swap(e, c) // nothing was live before: the bootstrap is applied once
	}
	m.mu.Unlock()
	if superseded != nil {
		superseded.retire()
		superseded.markReady()
	}
	c.whenReady(func() { m.onReady(c, waitFor) })
	c.startTransports()
	m.start(c)
	return true
}

func (e *entry) newest() *Cluster {
	switch {
	case e == nil:
		return nil
	case e.warming != nil:
		return e.warming
	}
	return e.live
}

// start begins to find the cluster's hosts, when what that may need is ready: EDS clusters wait for
// all others, since the management server is one of those (Envoy: primary and secondary clusters).
func (m *Manager) start(c *Cluster) {
	if c.Config().Kind != EDS {
		c.start()
		return
	}
	m.mu.Lock()
	wait := m.primary > 0
	if wait {
		m.deferred = append(m.deferred, c.start)
	}
	m.mu.Unlock()
	if !wait {
		c.start()
	}
}

// expect counts a cluster that the start of the process waits for; the caller holds mu.
func (m *Manager) expect(c *Cluster) bool {
	if c.Config().skipWarmOnInit {
		return false
	}
	m.initial++
	if c.Config().Kind != EDS {
		m.primary++
	}
	return true
}

// onReady takes a cluster live whose first hosts are known.
func (m *Manager) onReady(c *Cluster, waited bool) {
	m.mu.Lock()
	var old *Cluster
	if e := m.entries[c.Name()]; e != nil && e.warming == c {
		old = m.swap(e, c)
	}
	var run []func()
	if waited {
		run = m.met(c)
	}
	m.mu.Unlock()
	if old != nil {
		old.retire()
	}
	for _, f := range run {
		f()
	}
}

// met notes that a cluster is not waited for any more and returns what that sets going; the caller
// holds mu.
func (m *Manager) met(c *Cluster) (run []func()) {
	m.initial--
	if c.Config().Kind != EDS {
		if m.primary--; m.primary == 0 {
			run, m.deferred = m.deferred, nil
		}
	}
	if m.initial == 0 {
		run = append(run, m.waiters...)
		m.waiters = nil
	}
	return run
}

// setWarming makes c the warming one of its name; the caller holds mu.
func (m *Manager) setWarming(e *entry, c *Cluster) (old *Cluster) {
	old, e.warming = e.warming, c
	m.stats.Warming.Add(present(c) - present(old))
	return old
}

// setLive makes c the live one of its name; the caller holds mu.
func (m *Manager) setLive(e *entry, c *Cluster) (old *Cluster) {
	old, e.live = e.live, c
	m.stats.Active.Add(present(c) - present(old))
	return old
}

func present(c *Cluster) int64 {
	if c == nil {
		return 0
	}
	return 1
}

// swap takes a warming cluster live; the caller holds mu and retires what is returned.
func (m *Manager) swap(e *entry, c *Cluster) (old *Cluster) {
	m.setWarming(e, nil)
	m.live.Store(c.Name(), c)
	return m.setLive(e, c)
}

// WhenReady calls f once none of the clusters known by now waits for its first hosts any more: at
// once if none does. The server calls it after the bootstrap's clusters, and again after the first
// answer of CDS.
func (m *Manager) WhenReady(f func()) {
	m.mu.Lock()
	if m.initial > 0 {
		m.waiters = append(m.waiters, f)
		m.mu.Unlock()
		return
	}
	m.mu.Unlock()
	f()
}

// Remove takes a cluster away. Streams that hold it go on to their end. Clusters of the bootstrap
// stay (Envoy: only what came by CDS can be removed); false says that nothing was removed.
func (m *Manager) Remove(name string) bool {
	m.mu.Lock()
	e := m.entries[name]
	if e == nil || e.live != nil && !e.live.viaAPI {
		m.mu.Unlock()
		return false
	}
	delete(m.entries, name)
	m.live.Delete(name)
	m.stats.Removed.Inc()
	gone := [2]*Cluster{m.setLive(e, nil), m.setWarming(e, nil)}
	m.mu.Unlock()
	for _, c := range gone {
		if c != nil {
			c.retire()
			c.markReady()
		}
	}
	return true
}

// SetVersion notes the version_info of the last CDS update, for config_dump.
func (m *Manager) SetVersion(v string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.version = v
}

// Close closes all connections and stops everything, dials and resolutions under way too.
func (m *Manager) Close() {
	m.cancel()
	m.mu.Lock()
	m.closed = true
	entries := m.entries
	m.entries = map[string]*entry{}
	m.deferred, m.waiters = nil, nil
	m.mu.Unlock()
	for name, e := range entries {
		m.live.Delete(name)
		for _, c := range []*Cluster{e.live, e.warming} {
			if c != nil {
				c.close()
			}
		}
	}
}
