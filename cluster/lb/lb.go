package lb

import (
	"slices"
	"sync"
	"sync/atomic"

	"sidecar/cluster/host"
)

// Policy is how one host of many is chosen.
type Policy uint8

// The policies.
const (
	RoundRobin Policy = iota
	LeastRequest
	Random
	RingHash
	Maglev
)

// Config is the compiled load balancing configuration of a cluster. It never changes and is shared
// between clusters that were configured alike.
type Config struct {
	Policy Policy
	// PanicThreshold is a percentage; 0 switches panic off.
	PanicThreshold uint32
	// LocalityWeighted distributes over localities by their weights.
	LocalityWeighted bool
	// FailOnPanic serves nobody instead of everybody in panic.
	FailOnPanic bool
	// Choices is how many hosts least request compares.
	Choices uint32
	// FullScan makes least request compare all hosts.
	FullScan bool
	// ActiveBias is the power of the active requests in a weighted least request.
	ActiveBias float64
	// Hash is for the policies that hash, SlowStart for the others; nil for none.
	Hash      *Hashing
	SlowStart *SlowStart
	// Subsets divides the hosts; nil for most.
	Subsets *Subsets
}

// Context narrows a choice: what a retry knows.
type Context struct {
	// Hash is what consistent hashing goes by, if HasHash; else a random one.
	Hash    uint64
	HasHash bool
	// Criteria choose a subset; nil for none.
	Criteria *Criteria
	// Tried are hosts to avoid, and MaxAttempts how often to choose again when one comes up (the host
	// predicates of a retry policy, host_selection_retry_max_attempts).
	Tried       []*host.Host
	MaxAttempts int
	// OmitCanary avoids canary hosts (envoy.retry_host_predicates.omit_canary_hosts).
	OmitCanary bool
	// OmitMetadata, if not nil, avoids hosts whose envoy.lb metadata has all of these values
	// (envoy.retry_host_predicates.omit_host_metadata).
	OmitMetadata *Labels
	// Previous takes traffic away from priorities that were tried; the zero value does nothing.
	Previous Previous
	// Avoid, if not nil, tells of any other reason to choose again.
	Avoid func(*host.Host) bool
}

func (c *Context) rejects(h *host.Host) bool {
	return slices.Contains(c.Tried, h) || c.OmitCanary && h.Attr().Canary ||
		c.OmitMetadata != nil && c.OmitMetadata.Match(h) || c.Avoid != nil && c.Avoid(h)
}

// Balancer chooses hosts for one cluster.
type Balancer struct {
	conf *Config
	env  Env
	rng  func() uint64
	mu   sync.Mutex // held while a plan is made, so that it is made once
	// parts are of a balancer with subsets, which has no plan.
	parts atomic.Pointer[subsets]
	plan  atomic.Pointer[plan]
	// turn goes on through updates, so that these don't send everybody to the first host.
	turn atomic.Uint64
}

// Env is what a balancer works on.
type Env struct {
	// Random must be safe for concurrent use.
	Random func() uint64
	// Active is the number of active requests of the cluster; only bounded load asks.
	Active func() int64
	// Sizes, if not nil, is told how large the ring or the table of a priority is, and how many places of
	// it the hosts with the least and the most have.
	Sizes func(size, least, most uint64)
	// Subsets is told of those.
	Subsets SubsetStats
}

// New makes a balancer.
func New(conf *Config, env Env) *Balancer {
	b := &Balancer{conf: conf, env: env, rng: env.Random}
	b.turn.Store(env.Random())
	return b
}

// planOf returns the plan of a set, made at the first choice from it.
func (b *Balancer) planOf(set *host.Set) *plan {
	if p := b.plan.Load(); p != nil && p.set == set {
		return p
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.plan.Load()
	if p == nil || p.set != set {
		p = newPlan(b, set)
		b.plan.Store(p)
	}
	return p
}

// Pick chooses a host of the set, nil if there is none to be had. panicked says that health was
// disregarded (lb_healthy_panic).
func (b *Balancer) Pick(set *host.Set, c *Context) (h *host.Host, panicked bool) {
	if b.conf.Subsets != nil {
		return b.pickSubset(set, c)
	}
	p := b.planOf(set)
	loads := c.Previous.loads(set, p.loads)
	if b.Hashes() {
		return p.pickHash(b, c, loads)
	}
	for range c.MaxAttempts + 1 {
		var in bool
		h, in = p.pick(b, loads)
		panicked = panicked || in
		if h == nil || !c.rejects(h) {
			break
		}
	}
	return h, panicked
}

// plan is what is worked out once for a set.
type plan struct {
	set    *host.Set
	loads  []load
	groups []groupPlan
}

type groupPlan struct {
	all, healthy, degraded source
	// Schedules over localities and the sources of each, if traffic goes by locality.
	healthyBy, degradedBy *schedule[*source]
	panic                 bool
	hashed                *hashed // of the policies that hash
}

func newPlan(b *Balancer, set *host.Set) *plan {
	p := &plan{set: set, groups: make([]groupPlan, len(set.Priorities))}
	var inPanic []bool
	p.loads, inPanic = priorityLoads(set.Priorities, b.conf.PanicThreshold)
	for i := range set.Priorities {
		g, out := &set.Priorities[i], &p.groups[i]
		out.panic = inPanic[i]
		if b.Hashes() {
			out.hashed = b.hashed(g, inPanic[i])
			continue
		}
		out.all, out.healthy, out.degraded = b.source(g.All), b.source(g.Healthy), b.source(g.Degraded)
		if !b.conf.LocalityWeighted || len(g.Localities) == 0 {
			continue
		}
		out.healthyBy = b.byLocality(g, func(l *host.LocalityGroup) []*host.Host { return l.Healthy })
		out.degradedBy = b.byLocality(g, func(l *host.LocalityGroup) []*host.Host { return l.Degraded })
	}
	return p
}

// byLocality schedules localities by their effective weights: the configured one, less what is
// unhealthy beyond the overprovisioning factor. It is nil when no locality can take traffic.
func (b *Balancer) byLocality(g *host.Group, pick func(*host.LocalityGroup) []*host.Host) *schedule[*source] {
	s := newSchedule[*source](nil)
	for i := range g.Localities {
		l := &g.Localities[i]
		hosts := pick(l)
		if len(hosts) == 0 || l.Weight == 0 {
			continue
		}
		if len(l.All) == l.Excluded {
			continue
		}
		share := float64(len(hosts)) * float64(g.Overprovision) / 100 / float64(len(l.All)-l.Excluded)
		src := b.source(hosts)
		s.add(&src, float64(l.Weight)*min(1, share))
	}
	if s.len() == 0 {
		return nil
	}
	s.rotate(b.rng())
	return s
}

// pick chooses priority, health and locality, then a host.
func (p *plan) pick(b *Balancer, loads []load) (*host.Host, bool) {
	i, degraded, ok := choosePriority(loads, b.rng())
	if !ok {
		return nil, false
	}
	g := &p.groups[i]
	src, by := &g.healthy, g.healthyBy
	if degraded {
		src, by = &g.degraded, g.degradedBy
	}
	switch {
	case g.panic && b.conf.FailOnPanic:
		return nil, true
	case g.panic:
		src = &g.all
	case by != nil:
		src = by.next()
	}
	return src.pick(b), g.panic
}
