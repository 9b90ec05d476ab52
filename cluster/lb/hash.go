package lb

import (
	"math"

	"sidecar/cluster/host"
)

// Hashing is how consistent hashing is done. It never changes.
type Hashing struct {
	// MinRing and MaxRing bound the size of a ring, Murmur makes it by MurmurHash2 in place of xxHash.
	MinRing, MaxRing uint64
	Murmur           bool
	// Table is the size of Maglev's table, a prime number.
	Table uint64
	// UseHostname hashes the names of hosts, not their addresses.
	UseHostname bool
	// BalanceFactor, if not 0, is the load that a host may have in percent of the average.
	BalanceFactor uint32
}

// The defaults and limits of Envoy.
const (
	DefaultMinRing = 1024
	DefaultMaxRing = 8 << 20
	DefaultTable   = 65537
	MaxTable       = 5000011
)

// hashes tells whether the policy goes by the hash of a request.
func (p Policy) hashes() bool { return p == RingHash || p == Maglev }

// Hashes tells whether the choice goes by Context.Hash.
func (b *Balancer) Hashes() bool { return b.conf.Policy.hashes() }

// weighted is a host with its share of all weights.
type weighted struct {
	host  *host.Host
	share float64
}

// hashed is a priority of a cluster with consistent hashing.
type hashed struct {
	hosts []weighted
	table hashTable
	share map[*host.Host]float64 // for bounded load
}

// hashTable finds the host of a hash; attempt counts the choices that were refused.
type hashTable interface {
	at(hash uint64, attempt int) *host.Host
	// sizes returns the number of places, and how many of them the hosts with the least and the most have.
	sizes() (size, least, most uint64)
}

// hashed makes what a priority needs for consistent hashing (ThreadAwareLoadBalancerBase::refresh).
func (b *Balancer) hashed(g *host.Group, inPanic bool) *hashed {
	h := &hashed{hosts: normalize(g, inPanic, b.conf.LocalityWeighted)}
	if len(h.hosts) == 0 {
		return h
	}
	least, most := 1.0, 0.0
	for _, w := range h.hosts {
		least, most = min(least, w.share), max(most, w.share)
	}
	o := b.conf.Hash
	if b.conf.Policy == Maglev {
		h.table = newMaglev(h.hosts, most, o)
	} else {
		h.table = newRing(h.hosts, least, o)
	}
	if b.env.Sizes != nil {
		b.env.Sizes(h.table.sizes())
	}
	if o.BalanceFactor > 0 {
		h.share = make(map[*host.Host]float64, len(h.hosts))
		for _, w := range h.hosts {
			h.share[w.host] = w.share
		}
	}
	return h
}

// normalize works out the shares of hosts, by locality if these have weights.
func normalize(g *host.Group, inPanic, byLocality bool) []weighted {
	if !byLocality || len(g.Localities) == 0 {
		hosts := g.Healthy
		if inPanic {
			hosts = g.All
		}
		return appendShares(nil, hosts, 1)
	}
	var sum uint64
	for i := range g.Localities {
		sum += uint64(g.Localities[i].Weight)
	}
	var out []weighted
	for i := range g.Localities {
		l := &g.Localities[i]
		if l.Weight == 0 {
			continue
		}
		hosts := l.Healthy
		if inPanic {
			hosts = l.All
		}
		out = appendShares(out, hosts, float64(l.Weight)/float64(sum))
	}
	return out
}

func appendShares(out []weighted, hosts []*host.Host, of float64) []weighted {
	sum := float64(weights(hosts))
	for _, h := range hosts {
		out = append(out, weighted{h, float64(h.Attr().Weight) * of / sum})
	}
	return out
}

// hashKey is what the places of a host are made from: the hash_key of its metadata if it has one.
func hashKey(h *host.Host, useHostname bool) string {
	if key, ok := h.Attr().Metadata[MetadataNamespace]["hash_key"].(string); ok && key != "" {
		return key
	}
	if useHostname {
		return h.Hostname()
	}
	return h.Addr().String()
}

// pickHash chooses by the hash of the request, or a random one.
func (p *plan) pickHash(b *Balancer, c *Context, loads []load) (h *host.Host, panicked bool) {
	hash := c.Hash
	if !c.HasHash {
		hash = b.env.Random()
	}
	i, _, ok := choosePriority(loads, hash)
	if !ok {
		return nil, false
	}
	g := &p.groups[i]
	for attempt := range c.MaxAttempts + 1 {
		h = b.pickHashed(g.hashed, hash, attempt)
		if h == nil || !c.rejects(h) {
			break
		}
	}
	return h, g.panic
}

func (b *Balancer) pickHashed(s *hashed, hash uint64, attempt int) *host.Host {
	if s.table == nil {
		return nil
	}
	h := s.table.at(hash, attempt)
	factor := b.conf.Hash.BalanceFactor
	if factor == 0 {
		return h
	}
	overall := max(0, b.env.Active())
	slots := math.Floor((float64(overall+1)*float64(factor) + 99) / 100)
	load := func(h *host.Host, share float64) float64 {
		return float64(max(0, h.Active())) / max(1, math.Ceil(slots*share))
	}
	least := load(h, s.share[h])
	if least <= 1 {
		return h
	}
	return s.lessLoaded(h, least, uint32(hash), load)
}

// lessLoaded goes through the other hosts in an order that is the same for each hash
// (BoundedLoadHashingLoadBalancer::chooseHost).
func (s *hashed) lessLoaded(first *host.Host, least float64, seed uint32,
	load func(*host.Host, float64) float64,
) *host.Host {
	order := make([]uint32, len(s.hosts))
	for i := range order {
		order[i] = uint32(i)
	}
	random, best := newMersenne(seed), first
	for i := range order {
		j := i + int(random.below(uint32(len(order)-i)))
		order[i], order[j] = order[j], order[i]
		w := s.hosts[order[i]]
		if w.host == first {
			continue
		}
		l := load(w.host, w.share)
		if l <= 1 {
			return w.host
		}
		if l < least {
			best, least = w.host, l
		}
	}
	return best
}
