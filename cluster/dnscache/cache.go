package dnscache

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"sidecar/api/stats"
	"sidecar/cluster/discover"
	"sidecar/internal/task"
)

// Why a name has no address.
var (
	// ErrHostOverflow says that the cache holds as many names as it may.
	ErrHostOverflow = errors.New("dns_cache_overflow")
	// ErrPendingOverflow says that too many lookups are waited for.
	ErrPendingOverflow = errors.New("dns_cache_pending_requests_overflow")
	// ErrNoAddress says that the name is known and stands for nothing.
	ErrNoAddress = errors.New("no such host")
	errClosed    = errors.New("the DNS cache has closed")
)

// Overflow tells the failures that are the cache's own limits.
func Overflow(err error) bool {
	return errors.Is(err, ErrHostOverflow) || errors.Is(err, ErrPendingOverflow)
}

// Stats are "dns_cache.NAME.".
type Stats struct {
	Attempt         stats.Counter `stat:"dns_query_attempt"`
	Failure         stats.Counter `stat:"dns_query_failure"`
	Success         stats.Counter `stat:"dns_query_success"`
	Timeout         stats.Counter `stat:"dns_query_timeout"`
	HostAdded       stats.Counter `stat:"host_added"`
	HostChanged     stats.Counter `stat:"host_address_changed"`
	HostOverflow    stats.Counter `stat:"host_overflow"`
	HostRemoved     stats.Counter `stat:"host_removed"`
	PendingOverflow stats.Counter `stat:"dns_rq_pending_overflow"`
	Hosts           stats.Gauge   `stat:"num_hosts"`
	PendingOpen     stats.Gauge   `stat:"circuit_breakers.rq_pending_open"`
	PendingLeft     stats.Gauge   `stat:"circuit_breakers.rq_pending_remaining"`
}

// Result is what a name stands for: addresses with its port, or why there is none.
type Result struct {
	Name  Name
	Addrs []netip.AddrPort
	Err   error
}

// Observer is told of the names that resolve. Calls for one name come in order, outside locks.
type Observer interface {
	// OnAddresses tells of a name's first addresses and of those after a change.
	OnAddresses(r Result)
	// OnRemoved says that a name was forgotten.
	OnRemoved(n Name)
}

// Cache is one cache. Its methods may be called from any goroutine.
type Cache struct {
	// Set by newCache, never changed.
	set      *Caches
	conf     *Config
	resolver discover.Resolver
	scope    *stats.Scope
	stats    *Stats
	ctx      context.Context //nolint:containedctx // the life of lookups
	cancel   context.CancelFunc

	users int // guarded by Caches.mu

	mu        sync.Mutex // guards below, and the entries
	hosts     map[Name]*entry
	observers []Observer
	pending   int
	closed    bool
}

// entry is one name.
type entry struct {
	name     Name
	addrs    []netip.AddrPort
	err      error
	known    bool // the first lookup is over
	used     time.Time
	waiting  []*waiter
	timer    *time.Timer
	failures int
}

type waiter struct {
	done func(Result)
	e    *entry
}

func newCache(set *Caches, conf *Config) *Cache {
	c := &Cache{set: set, conf: conf, resolver: set.env.NewResolver(conf.Resolver), hosts: map[Name]*entry{}}
	c.scope = set.env.Scope.Sub("dns_cache." + conf.Name)
	c.stats = stats.Bind[Stats](c.scope)
	c.stats.PendingLeft.Set(int64(conf.MaxPending))
	c.ctx, c.cancel = context.WithCancel(set.env.Ctx)
	return c
}

// Observe tells o of all names, those that are known at once; the function that it returns ends that.
func (c *Cache) Observe(o Observer) (stop func()) {
	c.mu.Lock()
	c.observers = append(c.observers, o)
	var have []Result
	for _, e := range c.hosts {
		if len(e.addrs) > 0 {
			have = append(have, e.result())
		}
	}
	c.mu.Unlock()
	for _, r := range have {
		o.OnAddresses(r)
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.observers = slices.DeleteFunc(c.observers, func(x Observer) bool { return x == o })
	}
}

// Load returns what a name stands for if that is known. Otherwise it returns false and done is called
// once, on another goroutine, unless cancel is called before.
func (c *Cache) Load(n Name, done func(Result)) (r Result, known bool, cancel func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.hosts[n]
	if e != nil && e.known {
		e.used = time.Now()
		return e.result(), true, nil
	}
	if err := c.admit(e); err != nil {
		return Result{Name: n, Err: err}, true, nil
	}
	if e == nil {
		n.Host = strings.Clone(n.Host) // often of a request's head
		e = &entry{name: n, used: time.Now()}
		c.hosts[n] = e
		c.stats.HostAdded.Inc()
		c.stats.Hosts.Set(int64(len(c.hosts)))
		task.Go("dns", func() { c.lookup(e) }, nil)
	}
	w := &waiter{done, e}
	e.waiting = append(e.waiting, w)
	c.count(1)
	return Result{}, false, func() { c.forget(w) }
}

// admit tells why another one may not wait, perhaps for a new name; the caller holds mu.
func (c *Cache) admit(e *entry) error {
	switch {
	case c.closed:
		return errClosed
	case c.pending >= int(c.conf.MaxPending):
		c.stats.PendingOverflow.Inc()
		return ErrPendingOverflow
	case e == nil && len(c.hosts) >= int(c.conf.MaxHosts):
		c.stats.HostOverflow.Inc()
		return ErrHostOverflow
	}
	return nil
}

// count keeps the number of those who wait; the caller holds mu.
func (c *Cache) count(n int) {
	c.pending += n
	open := int64(0)
	if c.pending >= int(c.conf.MaxPending) {
		open = 1
	}
	c.stats.PendingOpen.Set(open)
	c.stats.PendingLeft.Set(max(0, int64(c.conf.MaxPending)-int64(c.pending)))
}

func (c *Cache) forget(w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(w.e.waiting, w); i >= 0 {
		w.e.waiting = slices.Delete(w.e.waiting, i, i+1)
		c.count(-1)
	}
}

// Touch says that a name is in use.
func (c *Cache) Touch(n Name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.hosts[n]; e != nil {
		e.used = time.Now()
	}
}

func (e *entry) result() Result { return Result{Name: e.name, Addrs: e.addrs, Err: e.err} }

// lookup resolves a name, on a goroutine of its own, and sees to it that it is done again.
func (c *Cache) lookup(e *entry) {
	ctx, cancel := c.ctx, context.CancelFunc(func() {})
	if c.conf.QueryTimeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, c.conf.QueryTimeout)
	}
	defer cancel()
	c.stats.Attempt.Inc()
	a, err := c.resolver.Lookup(ctx, e.name.Host, c.conf.Family)
	if c.ctx.Err() != nil {
		return
	}
	switch {
	case err == nil && len(a.Addrs) == 0:
		err = ErrNoAddress
	case err != nil && (ctx.Err() != nil || timedOut(err)): // which of the two is seen first is chance
		c.stats.Timeout.Inc()
		err = context.DeadlineExceeded
	}
	if err == nil {
		c.stats.Success.Inc()
	} else {
		c.stats.Failure.Inc()
	}
	c.settle(e, a, err)
}

// timedOut tells that a lookup has run into the deadline that it was given.
func timedOut(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

// settle takes the answer of a lookup over and tells of it.
func (c *Cache) settle(e *entry, a discover.Answer, err error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	changed := false
	if err == nil {
		addrs := withPort(a.Addrs, e.name.Port)
		changed = !discover.SameAddresses(e.addrs, addrs)
		if changed { // the first addresses are a change, too
			c.stats.HostChanged.Inc()
			e.addrs = addrs
		}
		e.err = nil
	} else if e.addrs == nil {
		e.err = err // a name that has resolved before keeps its addresses
	}
	e.known = true
	waiting, r := e.waiting, e.result()
	e.waiting = nil
	c.count(-len(waiting))
	observers := slices.Clone(c.observers)
	drop := err != nil && e.addrs == nil && c.conf.ForgetFailures
	if drop {
		c.remove(e)
	}
	next := c.next(e, a.TTL, err)
	c.mu.Unlock()
	if changed {
		for _, o := range observers {
			o.OnAddresses(r)
		}
	}
	for _, w := range waiting {
		w.done(r)
	}
	if drop {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		e.timer = time.AfterFunc(next, func() { task.Go("dns", func() { c.again(e) }, nil) })
	}
}

// next is how long to wait until a name is looked up again (DnsCacheImpl::finishResolve); the caller
// holds mu.
func (c *Cache) next(e *entry, ttl time.Duration, err error) time.Duration {
	if err == nil {
		e.failures = 0
		return max(ttl, c.conf.MinRefresh)
	}
	if c.conf.FailureBase <= 0 {
		return c.conf.Refresh
	}
	ceiling := c.conf.FailureMax
	if e.failures < 32 && c.conf.FailureBase<<e.failures > 0 {
		ceiling = min(ceiling, c.conf.FailureBase<<e.failures)
	}
	e.failures++
	return max(time.Duration(c.set.env.Random()%uint64(ceiling)), time.Millisecond)
}

// again looks a name up again, or forgets it if nobody has used it.
func (c *Cache) again(e *entry) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	if time.Since(e.used) <= c.conf.HostTTL {
		c.mu.Unlock()
		c.lookup(e)
		return
	}
	c.remove(e)
	observers := slices.Clone(c.observers)
	c.mu.Unlock()
	for _, o := range observers {
		o.OnRemoved(e.name)
	}
}

// remove forgets a name; the caller holds mu.
func (c *Cache) remove(e *entry) {
	delete(c.hosts, e.name)
	c.stats.HostRemoved.Inc()
	c.stats.Hosts.Set(int64(len(c.hosts)))
}

func (c *Cache) close() {
	c.cancel()
	c.mu.Lock()
	c.closed = true
	var waiting []*waiter
	for _, e := range c.hosts {
		waiting = append(waiting, e.waiting...)
		e.waiting = nil
		if e.timer != nil {
			e.timer.Stop()
		}
	}
	c.count(-len(waiting))
	c.mu.Unlock()
	for _, w := range waiting {
		w.done(Result{Name: w.e.name, Err: errClosed})
	}
	c.scope.Close()
}

func withPort(in []netip.Addr, port uint16) []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(in))
	for _, a := range in {
		if x := netip.AddrPortFrom(a.Unmap(), port); !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}
