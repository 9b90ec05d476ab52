package cluster

import (
	"math"

	"sidecar/cluster/load"
)

// limits are those of the circuit breakers as the runtime has them, by the keys
// circuit_breakers.CLUSTER.PRIORITY.*; without any they are the configured ones, which are shared.
func (c *Cluster) limits(s *Settings) *[2]load.Limits {
	if c.m.opt.Runtime == nil {
		return &s.limits
	}
	out := s.limits
	for p, name := range [2]string{"default", "high"} {
		l := &out[p]
		prefix := "circuit_breakers." + c.Name() + "." + name + "."
		for _, f := range []struct {
			key string
			to  *uint32
		}{
			{"max_connections", &l.Connections},
			{"max_pending_requests", &l.Pending},
			{"max_requests", &l.Requests},
			{"max_retries", &l.Retries},
			{"max_connection_pools", &l.Pools},
		} {
			if n, ok := c.m.opt.Runtime(prefix + f.key); ok {
				*f.to = uint32(min(n, math.MaxUint32))
			}
		}
		percent, hasPercent := c.m.opt.Runtime(prefix + "retry_budget.budget_percent")
		least, hasLeast := c.m.opt.Runtime(prefix + "retry_budget.min_retry_concurrency")
		if !l.HasBudget && (hasPercent || hasLeast) {
			l.HasBudget, l.BudgetPercent, l.MinRetries = true, 20, 3
		}
		if hasPercent {
			l.BudgetPercent = float64(min(percent, 100))
		}
		if hasLeast {
			l.MinRetries = uint32(min(least, math.MaxUint32))
		}
	}
	if out == s.limits {
		return &s.limits
	}
	return &out
}
