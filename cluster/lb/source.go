package lb

import (
	"math"
	"slices"
	"time"

	"sidecar/cluster/host"
)

// source is a list of hosts of like rank.
type source struct {
	hosts []*host.Host
	// weighted is nil when all weights are equal, or the policy takes no notice of them.
	weighted *schedule[*host.Host]
}

func (b *Balancer) source(hosts []*host.Host) source {
	s := source{hosts: hosts}
	slow := b.conf.SlowStart != nil && b.conf.SlowStart.begin(hosts, time.Now())
	if b.conf.Policy == Random || len(hosts) < 2 {
		return s
	}
	first := hosts[0].Attr().Weight
	if slow || slices.ContainsFunc(hosts, func(h *host.Host) bool { return h.Attr().Weight != first }) {
		s.weighted = b.schedule(hosts)
	}
	return s
}

// schedule makes the weighted schedule of hosts. Least request lowers a weight by the active
// requests each time a host is scheduled again.
func (b *Balancer) schedule(hosts []*host.Host) *schedule[*host.Host] {
	s := newSchedule(b.weight)
	for _, h := range hosts {
		s.add(h, b.weight(h))
	}
	s.rotate(b.rng() % uint64(len(hosts)))
	return s
}

func (b *Balancer) weight(h *host.Host) float64 {
	w := float64(max(1, h.Attr().Weight))
	if bias := b.conf.ActiveBias; b.conf.Policy == LeastRequest && bias != 0 {
		if bias == 1 {
			w /= float64(h.Active() + 1)
		} else {
			w /= math.Pow(float64(h.Active()+1), bias)
		}
	}
	if b.conf.SlowStart != nil {
		w *= b.conf.SlowStart.factor(h, time.Now())
	}
	return w
}

func (s *source) pick(b *Balancer) *host.Host {
	n := uint64(len(s.hosts))
	switch {
	case n == 0:
		return nil
	case n == 1:
		return s.hosts[0]
	case s.weighted != nil:
		return s.weighted.next()
	case b.conf.Policy == RoundRobin:
		return s.hosts[b.turn.Add(1)%n]
	case b.conf.Policy == Random:
		return s.hosts[b.rng()%n]
	case b.conf.FullScan:
		return s.least(b)
	}
	return s.leastOf(b, n)
}

// leastOf compares a few hosts chosen at random (power of two choices); of equals the first stays.
func (s *source) leastOf(b *Balancer, n uint64) *host.Host {
	var best *host.Host
	var least int64
	for range b.conf.Choices {
		h := s.hosts[b.rng()%n]
		if active := h.Active(); best == nil || active < least {
			best, least = h, active
		}
	}
	return best
}

// least compares all hosts; equals are chosen from at random.
func (s *source) least(b *Balancer) *host.Host {
	best, least, ties := s.hosts[0], s.hosts[0].Active(), uint64(1)
	for _, h := range s.hosts[1:] {
		switch active := h.Active(); {
		case active < least:
			best, least, ties = h, active, 1
		case active == least:
			if ties++; b.rng()%ties == 0 {
				best = h
			}
		}
	}
	return best
}
