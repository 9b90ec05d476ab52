package lb

import (
	"cmp"
	"slices"

	"sidecar/cluster/host"
	"sidecar/internal/xxhash"
)

// maglev is the table of Google's Maglev (MaglevTable). Places hold numbers of hosts, in as few bytes
// as there are hosts.
type maglev struct {
	hosts       []weighted
	small       []uint16 // nil for more hosts than it can tell apart
	large       []uint32
	least, most uint64
}

type maglevEntry struct {
	key          string
	host         uint32
	offset, skip uint64
	next, count  uint64
	weight, goal float64
}

const maglevFree = ^uint32(0)

func newMaglev(hosts []weighted, most float64, o *Hashing) *maglev {
	size := o.Table
	entries := make([]maglevEntry, len(hosts))
	for i, w := range hosts {
		key := hashKey(w.host, o.UseHostname)
		entries[i] = maglevEntry{
			key: key, host: uint32(i), offset: xxhash.Sum64(0, key) % size,
			skip: xxhash.Sum64(1, key)%(size-1) + 1, weight: w.share,
		}
	}
	// The order decides who gets a place that several want, and must not depend on that of updates.
	slices.SortStableFunc(entries, func(a, b maglevEntry) int { return cmp.Compare(a.key, b.key) })
	table := make([]uint32, size)
	for i := range table {
		table[i] = maglevFree
	}
	fill(table, entries, most)
	m := &maglev{hosts: hosts, least: size}
	for i := range entries {
		m.least, m.most = min(m.least, entries[i].count), max(m.most, entries[i].count)
	}
	if len(hosts) > 1<<16 {
		m.large = table
		return m
	}
	m.small = make([]uint16, size)
	for i, h := range table {
		m.small[i] = uint16(h)
	}
	return m
}

// fill gives each host in turn the next place of its permutation that is free, in proportion to its
// weight.
func fill(table []uint32, entries []maglevEntry, most float64) {
	size, filled := uint64(len(table)), 0
	for round := 1.0; filled < len(table); round++ {
		for i := range entries {
			e := &entries[i]
			if filled == len(table) {
				return
			}
			if round*e.weight < e.goal {
				continue
			}
			e.goal += most
			at := (e.offset + e.skip*e.next) % size
			for table[at] != maglevFree {
				e.next++
				at = (e.offset + e.skip*e.next) % size
			}
			table[at] = e.host
			e.next++
			e.count++
			filled++
		}
	}
}

func (m *maglev) sizes() (size, least, most uint64) {
	return uint64(max(len(m.small), len(m.large))), m.least, m.most
}

func (m *maglev) at(hash uint64, attempt int) *host.Host {
	if attempt > 0 {
		hash ^= ^uint64(0) - uint64(attempt) + 1
	}
	if m.small != nil {
		return m.hosts[m.small[hash%uint64(len(m.small))]].host
	}
	return m.hosts[m.large[hash%uint64(len(m.large))]].host
}
