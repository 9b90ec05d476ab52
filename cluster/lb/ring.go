package lb

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	"sidecar/cluster/host"
	"sidecar/internal/xxhash"
)

// ring is a ketama ring (RingHashLoadBalancer::Ring). Hosts are held by number: half the memory of
// pointers.
type ring struct {
	hosts       []weighted
	places      []place
	least, most uint64
}

type place struct {
	hash uint64
	host uint32
}

func newRing(hosts []weighted, least float64, o *Hashing) *ring {
	// The host of the least weight gets a whole number of places, unless the ring would be too large.
	scale := min(math.Ceil(least*float64(o.MinRing))/least, float64(o.MaxRing))
	size := uint64(math.Ceil(scale))
	r := &ring{hosts: hosts, places: make([]place, 0, size), least: size}
	now, target := 0.0, 0.0
	var key []byte
	for i, w := range hosts {
		key = append(append(key[:0], hashKey(w.host, o.UseHostname)...), '_')
		start := len(key)
		target += scale * w.share
		n := uint64(0)
		for ; now < target; now++ {
			key = strconv.AppendUint(key[:start], n, 10)
			hash := xxhash.Sum64(0, key)
			if o.Murmur {
				hash = murmur2(key)
			}
			r.places = append(r.places, place{hash, uint32(i)})
			n++
		}
		r.least, r.most = min(r.least, n), max(r.most, n)
	}
	slices.SortFunc(r.places, func(a, b place) int { return cmp.Compare(a.hash, b.hash) })
	return r
}

func (r *ring) sizes() (size, least, most uint64) { return uint64(len(r.places)), r.least, r.most }

// at finds the first place that is not before the hash; past the last one, the first.
func (r *ring) at(hash uint64, attempt int) *host.Host {
	i, _ := slices.BinarySearchFunc(r.places, hash, func(p place, h uint64) int {
		return cmp.Compare(p.hash, h)
	})
	return r.hosts[r.places[(i+attempt)%len(r.places)].host].host
}
