package pool

import (
	"sidecar/api/stream"
	"sidecar/cluster/host"
)

var _ host.KeyedPool = (*Pool)(nil)

// enter lets a stream, or the dial for one, into the pool, unless it has closed, was retired, or is one
// too many. The caller holds mu.
func (l *Lease) enter() *stream.Fault {
	p := l.pool
	switch {
	case p.closed:
		return closing()
	case p.retired.Load():
		l.retired = true
	case p.limited && !p.counted:
		if !p.conf.Breakers.TakePool(p.priority) {
			p.conf.Traffic.CxPoolOverflow.Inc()
			return poolOverflow()
		}
		p.counted = true
	}
	return nil
}

// MakeRoom lets go of a pool of the same host that is idle, if the cluster has as many pools as it may
// and this one is not among them (Envoy: PriorityConnPoolMap frees one of the host's).
func (p *Pool) MakeRoom() {
	if !p.limited || p.conf.Breakers.MayPool(p.priority) {
		return
	}
	p.mu.Lock()
	counted := p.counted
	p.mu.Unlock()
	if counted {
		return
	}
	done := false
	p.host.EachPool(func(x host.Pool) {
		if q, ok := x.(*Pool); ok && !done && q != p && q.priority == p.priority {
			done = q.free()
		}
	})
}

// free gives up the pool's place among the cluster's, if no stream uses it, and its connections.
func (p *Pool) free() bool {
	if !p.Idle() {
		return false
	}
	p.mu.Lock()
	had := p.counted
	p.counted = false
	p.mu.Unlock()
	if had {
		p.conf.Breakers.GivePool(p.priority)
		p.Drain(false)
	}
	return had
}

// Idle implements host.KeyedPool.
func (p *Pool) Idle() bool {
	idle := 0
	for i := range p.stripes {
		idle += p.stripes[i].size()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) > 0 || p.connecting > 0 || p.dialing > 0 || len(p.tcp) > 0 {
		return false
	}
	if !p.mux {
		return idle == len(p.all)
	}
	for _, c := range p.shared {
		if c.m.taken > 0 {
			return false
		}
	}
	return len(p.shared) == len(p.all)
}

func (s *stripe) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.idle)
}

// Retired implements host.KeyedPool.
func (p *Pool) Retired() bool { return p.retired.Load() }

// settle lets go of a pool that has nothing left. It is called outside locks whenever something of the
// pool has ended, and does nothing for the pools that a host always has.
func (p *Pool) settle() {
	if p.key == "" && !p.limited {
		return
	}
	p.mu.Lock()
	empty := len(p.all) == 0 && p.connecting == 0 && len(p.pending) == 0 && len(p.tcp) == 0 && p.dialing == 0
	give := empty && p.counted
	if give {
		p.counted = false
	}
	gone := empty && p.key != "" && !p.retired.Swap(true)
	p.mu.Unlock()
	if give {
		p.conf.Breakers.GivePool(p.priority)
	}
	if gone {
		p.host.DropPool(p.key, p)
	}
}

// mayConnect tells whether another connection is within the cluster's and the host's limits.
func (p *Pool) mayConnect() bool {
	return p.conf.Breakers.MayConnectHost(p.priority, p.counters.CxActive.Value()) &&
		p.conf.Breakers.MayConnect(p.priority)
}

// preconnects is how many connections are made in advance at a time, as in Envoy
// (ConnPoolImplBase::tryCreateNewConnections).
const preconnects = 3

// preconnect makes connections in advance.
func (p *Pool) preconnect() {
	if p.conf.Preconnect <= 1 || p.final.Load() || p.host.Attr().Health > host.Healthy {
		return
	}
	for range preconnects {
		p.mu.Lock()
		start := p.wantMore(p.conf.Preconnect, 0)
		p.mu.Unlock()
		if !start {
			return
		}
		p.startDial()
	}
}

// wantMore tells whether another connection is to be made in advance, and counts it if so. The caller
// holds mu.
func (p *Pool) wantMore(ratio float64, anticipated int) bool {
	if p.closed {
		return false
	}
	room := p.room()
	active := int(p.active.Load())
	// ConnPoolImplBase::shouldConnect.
	if float64(len(p.pending)+active+anticipated)*ratio <= float64(room+active) || !p.mayConnect() {
		return false
	}
	p.connecting++
	return true
}

// Room is how many further streams the pool's connections serve, those that are being made among them.
func (p *Pool) Room() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.room()
}

// Preconnect makes a connection in advance, if the pool is not provided for one stream more times the
// ratio; false says that it is.
func (p *Pool) Preconnect(ratio float64) bool {
	if p.final.Load() || p.host.Attr().Health > host.Healthy {
		return false
	}
	p.mu.Lock()
	start := p.wantMore(ratio, 1)
	p.mu.Unlock()
	if start {
		p.startDial()
	}
	return start
}

// room is as Room; the caller holds mu. It locks stripes, which nobody holds while asking for mu.
func (p *Pool) room() int {
	room := p.connecting * p.perConnection()
	if p.mux {
		for _, c := range p.shared {
			if !c.finished() && c.m.limit > c.m.taken {
				room += int(c.m.limit - c.m.taken)
			}
		}
	} else {
		for i := range p.stripes {
			room += p.stripes[i].size()
		}
	}
	return room
}
