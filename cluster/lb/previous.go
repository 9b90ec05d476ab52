package lb

import (
	"slices"

	"sidecar/cluster/host"
)

// Previous is a retry policy's envoy.retry_priorities.previous_priorities: priorities that were tried
// get no traffic, until all were.
type Previous struct {
	// Attempted are the hosts of the attempts so far, in their order.
	Attempted []*host.Host
	// Frequency is after how many attempts the priorities are looked at again.
	Frequency int
}

// loads returns the loads to choose by (Envoy: PreviousPrioritiesRetryPriority::determinePriorityLoad).
func (p *Previous) loads(set *host.Set, normal []load) []load {
	if p.Frequency <= 0 || len(p.Attempted) < p.Frequency {
		return normal
	}
	out := normal
	excluded := make([]bool, len(set.Priorities))
	since := 0 // attempts before it were forgotten
	for n := 1; n <= len(p.Attempted); n++ {
		if (n-since)%p.Frequency != 0 {
			continue
		}
		for _, h := range p.Attempted[since:n] {
			if i := priorityOf(set, h); i >= 0 {
				excluded[i] = true
			}
		}
		healthy, degraded, total := available(set, excluded)
		if total == 0 {
			clear(excluded)
			since = n
			healthy, degraded, total = available(set, excluded)
		}
		if total == 0 {
			return normal // the handling of hosts none of which is available
		}
		out = distribute(healthy, degraded, total)
	}
	return out
}

func available(set *host.Set, excluded []bool) (healthy, degraded []uint32, total uint32) {
	healthy, degraded = make([]uint32, len(excluded)), make([]uint32, len(excluded))
	for i := range excluded {
		if excluded[i] {
			continue
		}
		healthy[i], degraded[i] = availability(&set.Priorities[i])
		total += healthy[i] + degraded[i]
	}
	return healthy, degraded, min(total, 100)
}

func priorityOf(set *host.Set, h *host.Host) int {
	for i := range set.Priorities {
		if slices.Contains(set.Priorities[i].All, h) {
			return i
		}
	}
	return -1
}
