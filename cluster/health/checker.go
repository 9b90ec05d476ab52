package health

import (
	"sync"
	"time"

	"sidecar/api/stream"
	"sidecar/cluster/host"
	"sidecar/cluster/pool"
	"sidecar/internal/task"
)

// Env is what a checker works on.
type Env struct {
	Stats *Stats
	// Pools is how connections to hosts are made; what they count is nobody's.
	Pools *pool.Config
	// Authority is the host header of HTTP checks where the configuration has none.
	Authority string
	// Random must be safe for concurrent use.
	Random func() uint64
	// Used tells whether the cluster was ever connected to.
	Used func() bool
	// Turnstile bounds how many checks run at a time.
	Turnstile *Turnstile
	// Changed is called after the flags of a host have changed, Checked after every result, Settled when
	// every host has had its first. They are called on goroutines of the checker, without locks.
	Changed func(h *host.Host, failed bool)
	Checked func(h *host.Host, healthy bool)
	Settled func()
}

// Checker checks the hosts of one cluster. Its methods may be called from any goroutine, outside of
// streams.
type Checker struct {
	// Set by New, never changed.
	conf *Config
	env  Env

	mu       sync.Mutex // guards below
	sessions map[*host.Host]*session
	waiting  int // hosts without a first result
	stopped  bool
}

// New makes a checker without hosts.
func New(conf *Config, env Env) *Checker {
	return &Checker{conf: conf, env: env, sessions: map[*host.Host]*session{}}
}

// Waiting tells whether a host has not had its first result yet.
func (c *Checker) Waiting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting > 0
}

// Add begins to check hosts. They have host.FailedActiveHC by now.
func (c *Checker) Add(hosts []*host.Host) {
	var begun []*session
	c.mu.Lock()
	for _, h := range hosts {
		if c.stopped || c.sessions[h] != nil || h.Attr().Check != nil && h.Attr().Check.Disabled {
			continue
		}
		s := &session{c: c, host: h, target: c.target(h), first: true}
		c.sessions[h] = s
		c.waiting++
		begun = append(begun, s)
	}
	c.mu.Unlock()
	for _, s := range begun {
		s.begin()
	}
}

// target is the host as checks connect to it, which may be at another address.
func (c *Checker) target(h *host.Host) *host.Host {
	addrs, attr := *h.Addresses(), *h.Attr()
	if x := attr.Check; x != nil && !x.Addr.IsZero() {
		addrs = host.Addresses{Addr: x.Addr}
	} else if port := c.port(x); port != 0 {
		addrs.Addr = withPort(addrs.Addr, port)
		more := make([]stream.Addr, 0, len(addrs.More))
		for _, a := range addrs.More {
			more = append(more, withPort(a, port))
		}
		addrs.More = more
	}
	if c.conf.Criteria != nil {
		attr.Metadata = host.Metadata{"envoy.transport_socket_match": c.conf.Criteria}
	}
	return host.New(addrs.Addr, h.Hostname(), addrs.More, &attr)
}

// port is the port of the checks of a host: its own setting, else that of all; 0 for the usual one.
func (c *Checker) port(x *host.Check) uint16 {
	if x != nil && x.Port != 0 {
		return x.Port
	}
	return c.conf.altPort
}

func withPort(a stream.Addr, port uint16) stream.Addr {
	if !a.IP.IsValid() {
		return a
	}
	return stream.IPAddr(addrPort(a, port))
}

// authority is the host header for a host (HealthCheckerFactory::getHostname).
func (c *Checker) authority(h *host.Host) string {
	switch x := h.Attr().Check; {
	case x != nil && x.Hostname != "":
		return x.Hostname
	case c.conf.host != "":
		return c.conf.host
	}
	return c.env.Authority
}

// Remove ends the checks of hosts that have left the cluster.
func (c *Checker) Remove(hosts []*host.Host) {
	for _, h := range hosts {
		c.mu.Lock()
		s := c.sessions[h]
		delete(c.sessions, h)
		c.mu.Unlock()
		if s != nil {
			s.end()
		}
	}
}

// Stop ends all checks.
func (c *Checker) Stop() {
	c.mu.Lock()
	c.stopped = true
	all := c.sessions
	c.sessions = map[*host.Host]*session{}
	c.mu.Unlock()
	for _, s := range all {
		s.end()
	}
}

// FailNow takes a host out that has asked for it (x-envoy-immediate-health-check-fail). It may be called
// inside a stream.
func (c *Checker) FailNow(h *host.Host) {
	c.mu.Lock()
	s := c.sessions[h]
	c.mu.Unlock()
	if s == nil || h.Has(host.ExcludedImmediateHC) {
		return
	}
	task.Go("health check", func() {
		h.Set(host.ExcludedImmediateHC)
		s.passive()
	}, nil)
}

// pass notes that a host has had its first result, or will have none.
func (c *Checker) pass() {
	c.mu.Lock()
	c.waiting--
	last := c.waiting == 0
	c.mu.Unlock()
	if last {
		c.env.Settled()
	}
}

// gap is the time to the next check (HealthCheckerImplBase::interval).
func (c *Checker) gap(healthy, pending bool) time.Duration {
	x := c.conf
	if !c.env.Used() {
		if healthy && !pending {
			return c.jittered(x.noTrafficHealthy)
		}
		return c.jittered(x.noTraffic)
	}
	switch {
	case healthy && pending:
		return c.jittered(x.healthyEdgeInterval)
	case healthy:
		return c.jittered(x.interval)
	case pending:
		return c.jittered(x.unhealthyEdgeInterval)
	}
	return c.jittered(x.unhealthyInterval)
}

func (c *Checker) jittered(d time.Duration) time.Duration {
	out := d
	if most := d * time.Duration(c.conf.jitterPercent) / 100; most > 0 {
		out += time.Duration(c.env.Random() % uint64(most))
	}
	if c.conf.jitter > 0 {
		out += time.Duration(c.env.Random() % uint64(c.conf.jitter))
	}
	return max(out, time.Millisecond)
}
