package cluster

import (
	"sidecar/api/stats"
	"sidecar/cluster/lb"
)

// ringStats and tableStats are of clusters that hash.
type ringStats struct {
	Size  stats.Gauge `stat:"size"`
	Least stats.Gauge `stat:"min_hashes_per_host"`
	Most  stats.Gauge `stat:"max_hashes_per_host"`
}

type tableStats struct {
	Least stats.Gauge `stat:"min_entries_per_host"`
	Most  stats.Gauge `stat:"max_entries_per_host"`
}

// newBalancer makes the balancer of a cluster that is used.
func (c *Cluster) newBalancer(a *active) *lb.Balancer {
	env := lb.Env{Random: c.m.opt.Random, Active: a.traffic.RqActive.Value}
	switch a.conf.lb.Policy {
	case lb.RingHash:
		s := stats.Bind[ringStats](c.scope.Sub("ring_hash_lb"))
		env.Sizes = func(size, least, most uint64) {
			s.Size.Set(int64(size))
			s.Least.Set(int64(least))
			s.Most.Set(int64(most))
		}
	case lb.Maglev:
		s := stats.Bind[tableStats](c.scope.Sub("maglev_lb"))
		env.Sizes = func(_, least, most uint64) {
			s.Least.Set(int64(least))
			s.Most.Set(int64(most))
		}
	default:
	}
	if a.conf.lb.Subsets != nil {
		env.Subsets = bindSubsets(c.scope)
	}
	return lb.New(&a.conf.lb, env)
}

// Hashes tells whether hosts are chosen by the hash of requests, so that Context.Hash is asked for.
func (c *Cluster) Hashes() bool { return c.conf.Load().lb.Hash != nil }
