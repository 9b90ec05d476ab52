package cluster

import (
	"sync"

	"sidecar/cluster/host"
	"sidecar/cluster/lb"
	"sidecar/cluster/load"
	"sidecar/cluster/pool"
)

// peekahead are the choices of hosts that were made in advance, so that connections could be
// (predictive_preconnect_ratio). Streams take them before new ones are made.
type peekahead struct {
	ratio float64

	mu  sync.Mutex // guards below
	set *host.Set  // that the choices are from
	own []*host.Host
}

// predicts tells the policies whose next choice is known before the stream is, as in Envoy.
func predicts(c *lb.Config) bool { return c.Policy == lb.RoundRobin || c.Policy == lb.Random }

// take returns the choice that was made first, nil if there is none. An update voids them all.
func (x *peekahead) take(set *host.Set) *host.Host {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.set != set {
		x.set, x.own = set, nil
	}
	if len(x.own) == 0 {
		return nil
	}
	h := x.own[0]
	x.own = x.own[1:]
	return h
}

func (x *peekahead) put(set *host.Set, h *host.Host) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.set != set {
		x.set, x.own = set, nil
	}
	x.own = append(x.own, h)
}

// predictions is how many hosts are looked at for one stream (ClusterManagerImpl::maybePreconnect).
const predictions = 3

// predict connects in advance to the hosts that the next streams will go to, if the cluster is not
// provided for as many as the ratio says. It is called before a stream begins.
func (c *Cluster) predict(a *active, priority load.Priority, mux bool) {
	x := a.ahead
	set := c.set.Load()
	for range predictions {
		load := float64(a.traffic.RqPendingActive.Value()+a.traffic.RqActive.Value()+1) * x.ratio
		room := float64(a.traffic.RqActive.Value())
		for _, h := range set.Hosts {
			if p, ok := h.PeekPool(slot(priority, mux)).(*pool.Pool); ok {
				room += float64(p.Room())
			}
		}
		if load <= room {
			return
		}
		h, _ := a.balancer.Pick(set, &lb.Context{})
		if h == nil {
			return
		}
		x.put(set, h)
		if !a.pool(h, priority, mux).Preconnect(x.ratio) {
			return
		}
	}
}
