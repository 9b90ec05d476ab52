package cluster

import (
	"math"
	"time"

	"sidecar/api/stats"
	"sidecar/cluster/health"
	"sidecar/cluster/host"
	"sidecar/cluster/load"
)

// newChecker makes the active health checks of a cluster; nil if it has none.
func (c *Cluster) newChecker(conf *Config) *health.Checker {
	if conf.health == nil {
		return nil
	}
	pools := c.newPools(conf)
	limits := load.DefaultLimits()
	limits.Connections, limits.Pending, limits.Requests = math.MaxUint32, math.MaxUint32, math.MaxUint32
	// Checks are not traffic: neither counts nor breakers know of them.
	pools.Traffic = new(load.Traffic)
	pools.Breakers = load.NewBreakers(&[2]load.Limits{limits, limits}, pools.Traffic, [2]*load.Remaining{})
	pools.Stripes, pools.Preconnect = 1, 0
	if !conf.health.Reuse {
		pools.MaxRequests = 1
	}
	return health.New(conf.health, health.Env{
		Stats:     stats.Bind[health.Stats](c.scope.Sub("health_check")),
		Pools:     &pools,
		Authority: conf.Name,
		Random:    c.m.opt.Random,
		Used: func() bool {
			t := c.traffic.Peek()
			return t != nil && t.CxTotal.Used()
		},
		Turnstile: c.m.turnstile,
		Changed:   c.checked,
		Checked:   c.passed,
		Settled: func() {
			c.mu.Lock()
			c.settle()
		},
	})
}

// uncheckedFlags are those of hosts that wait for their first active health check.
func (c *Cluster) uncheckedFlags() host.Flag {
	switch conf := c.conf.Load(); {
	case c.checker == nil:
		return 0
	case conf.ignoreUntilChecked:
		return host.FailedActiveHC | host.PendingActiveHC
	}
	return host.FailedActiveHC
}

// checked takes over what a check has changed of a host. One that was removed and fails goes.
func (c *Cluster) checked(h *host.Host, failed bool) {
	if failed && h.Has(host.PendingRemoval) {
		c.mu.Lock()
		a := c.last
		c.mu.Unlock()
		c.setHosts(a)
		return
	}
	if s := c.conf.Load().lb.SlowStart; s != nil && h.Condition() == host.Up {
		h.SetSince(time.Now())
	}
	if failed {
		c.refresh([]*host.Host{h})
		return
	}
	c.refresh(nil)
}

// passed ends an ejection of a host that has passed a check.
func (c *Cluster) passed(h *host.Host, healthy bool) {
	if d := c.detector(); d != nil && healthy {
		d.Succeeded(h)
	}
}

// retain keeps hosts that the control plane has removed while active health checks find them good
// (BaseDynamicClusterImpl::updateDynamicHostList); the caller holds mu.
func (c *Cluster) retain(specs []host.Spec, gone []*host.Host) ([]host.Spec, []*host.Host) {
	conf := c.conf.Load()
	if c.checker == nil || conf.ignoreHealthOnRemoval || conf.Kind != EDS && conf.Kind != StrictDNS {
		return specs, gone
	}
	var left []*host.Host
	for _, h := range gone {
		a := h.Attr()
		if h.Has(host.FailedActiveHC) || a.Check != nil && a.Check.Disabled {
			left = append(left, h)
			continue
		}
		h.Set(host.PendingRemoval)
		specs = addTo(specs, h, a)
	}
	return specs, left
}

func addTo(specs []host.Spec, h *host.Host, a *host.Attributes) []host.Spec {
	for i := range specs {
		s := &specs[i]
		same := s.Locality == a.Locality || s.Locality != nil && a.Locality != nil && *s.Locality == *a.Locality
		if same && s.Priority == a.Priority {
			s.Hosts = append(s.Hosts, h)
			return specs
		}
	}
	return append(specs, host.Spec{Locality: a.Locality, Priority: a.Priority, Hosts: []*host.Host{h}})
}

func sameCheck(a, b *host.Check) bool { return a == b || a != nil && b != nil && *a == *b }

// FailNow takes the host of the attempt out, which has asked for it in a response
// (x-envoy-immediate-health-check-fail). Only a cluster with active health checks ever takes it back.
func (a *Attempt) FailNow() {
	if a.Host != nil && a.cluster != nil && a.cluster.checker != nil {
		a.cluster.checker.FailNow(a.Host)
	}
}
