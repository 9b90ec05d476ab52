package cluster

import (
	"sidecar/api/stats"
	"sidecar/cluster/host"
	"sidecar/cluster/outlier"
)

// refresh sorts the hosts by their health again, after flags of some have changed. Those in failed
// have just become unhealthy: their idle connections are closed, the others after their streams, and
// those of TCP proxies at once if the cluster wants that (Envoy: postThreadLocalHealthFailure).
func (c *Cluster) refresh(failed []*host.Host) {
	c.mu.Lock()
	c.version++
	set := c.set.Load().Refresh(c.version)
	c.set.Store(set)
	c.countMembers(set, false)
	closeAll := c.conf.Load().closeOnFailure
	c.mu.Unlock()
	for _, h := range failed {
		if closeAll {
			h.CloseRaw()
		}
		h.Drain(false)
	}
}

// newDetector makes the outlier detection of a cluster that is used; nil if it has none.
func (c *Cluster) newDetector(conf *outlier.Config) *outlier.Detector {
	if conf == nil {
		return nil
	}
	return outlier.New(conf, outlier.Env{
		Stats:   c.outlierStats.Get(),
		Random:  c.m.opt.Random,
		Runtime: c.m.opt.Runtime,
		Members: c.members,
		Changed: c.refresh,
	})
}

func bindOutlier(conf *Config, scope *stats.Scope) *stats.Lazy[outlier.Stats] {
	if conf.outlier == nil {
		return nil
	}
	return stats.BindLazy[outlier.Stats](scope.Sub("outlier_detection"))
}

func (c *Cluster) members() int {
	if a := c.active.Load(); a != nil && a.dst != nil {
		return a.dst.size()
	}
	return len(c.set.Load().Hosts)
}

// detector returns the outlier detection, if the cluster has one and was used.
func (c *Cluster) detector() *outlier.Detector {
	if a := c.active.Load(); a != nil {
		return a.outlier
	}
	return nil
}

// forget lets outlier detection know of hosts that are gone.
func (c *Cluster) forget(gone []*host.Host) {
	if d := c.detector(); d != nil && len(gone) > 0 {
		d.Remove(gone)
	}
}

// Report tells outlier detection how the attempt went. code is the status of the response, or that
// which the failure stands for; 0 if there is none.
func (a *Attempt) Report(r outlier.Result, code int) {
	if a.Host == nil || a.cluster == nil {
		return
	}
	if d := a.cluster.detector(); d != nil {
		d.Put(a.Host, r, code)
	}
}

// Degraded tells of a response with x-envoy-degraded.
func (a *Attempt) Degraded() {
	if a.Host == nil || a.cluster == nil {
		return
	}
	if d := a.cluster.detector(); d != nil {
		d.Degraded(a.Host)
	}
}
