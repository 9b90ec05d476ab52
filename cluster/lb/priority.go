package lb

import "sidecar/cluster/host"

// load is the percentage of traffic that a priority's healthy and degraded hosts get.
type load struct{ healthy, degraded uint32 }

// priorityLoads distributes traffic over priorities by availability, and tells which of them are in
// panic: Envoy's LoadBalancerBase::recalculatePerPriorityState, docs "Priority levels", "Degraded
// endpoints" and "Panic threshold".
func priorityLoads(groups []host.Group, threshold uint32) ([]load, []bool) {
	healthy, degraded := make([]uint32, len(groups)), make([]uint32, len(groups))
	var sum uint32
	for i := range groups {
		healthy[i], degraded[i] = availability(&groups[i])
		sum += healthy[i] + degraded[i]
	}
	total := min(sum, 100)
	inPanic := make([]bool, len(groups))
	if total == 0 {
		for i := range inPanic {
			inPanic[i] = threshold > 0
		}
		if threshold > 0 {
			return panicLoads(groups), inPanic
		}
		loads := make([]load, len(groups))
		loads[0].healthy = 100
		return loads, inPanic
	}
	for i := range groups {
		inPanic[i] = total != 100 && isInPanic(&groups[i], threshold)
	}
	return distribute(healthy, degraded, total), inPanic
}

// availability is the percentage of a priority's traffic that its hosts can take, times the
// overprovisioning factor.
func availability(g *host.Group) (healthy, degraded uint32) {
	if g.WeightedHealth {
		return share(weights(g.Healthy), weights(g.All), g.Overprovision),
			share(weights(g.Degraded), weights(g.All), g.Overprovision)
	}
	all := uint64(len(g.All) - g.Excluded)
	return share(uint64(len(g.Healthy)), all, g.Overprovision),
		share(uint64(len(g.Degraded)), all, g.Overprovision)
}

func share(n, of uint64, percent uint32) uint32 {
	if of == 0 {
		return 0
	}
	return uint32(min(100, uint64(percent)*n/of))
}

func weights(hosts []*host.Host) (sum uint64) {
	for _, h := range hosts {
		sum += uint64(h.Attr().Weight)
	}
	return sum
}

func isInPanic(g *host.Group, threshold uint32) bool {
	all := uint64(len(g.All) - g.Excluded)
	healthy := share(uint64(len(g.Healthy)), all, 100)
	degraded := share(uint64(len(g.Degraded)), all, 100)
	return healthy+degraded < min(100, threshold)
}

// panicLoads distributes by the number of hosts, since none is healthy.
func panicLoads(groups []host.Group) []load {
	loads := make([]load, len(groups))
	var hosts uint32
	for i := range groups {
		hosts += uint32(len(groups[i].All))
	}
	if hosts == 0 {
		loads[0].healthy = 100
		return loads
	}
	left, first := uint32(100), -1
	for i := range groups {
		n := uint32(len(groups[i].All))
		if first < 0 && n > 0 {
			first = i
		}
		loads[i].healthy = 100 * n / hosts
		left -= loads[i].healthy
	}
	loads[first].healthy += left
	return loads
}

func distribute(healthy, degraded []uint32, total uint32) []load {
	loads := make([]load, len(healthy))
	left := uint32(100)
	firstHealthy, firstDegraded := -1, -1
	for i, n := range healthy {
		if firstHealthy < 0 && n > 0 {
			firstHealthy = i
		}
		loads[i].healthy = min(left, n*100/total)
		left -= loads[i].healthy
	}
	for i, n := range degraded {
		if firstDegraded < 0 && n > 0 {
			firstDegraded = i
		}
		loads[i].degraded = min(left, n*100/total)
		left -= loads[i].degraded
	}
	// What rounding left over goes to the first that can take it.
	if firstHealthy >= 0 {
		loads[firstHealthy].healthy += left
	} else if firstDegraded >= 0 {
		loads[firstDegraded].degraded += left
	}
	return loads
}

// choosePriority picks a priority by the loads.
func choosePriority(loads []load, random uint64) (priority int, degraded, ok bool) {
	if len(loads) == 1 && loads[0].healthy == 100 {
		return 0, false, true
	}
	at := uint32(random%100) + 1
	var sum uint32
	for i := range loads {
		if sum += loads[i].healthy; at <= sum {
			return i, false, true
		}
	}
	for i := range loads {
		if sum += loads[i].degraded; at <= sum {
			return i, true, true
		}
	}
	return 0, false, false
}
