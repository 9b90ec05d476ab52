package host

// Set is all hosts of a cluster at one time. It never changes.
type Set struct {
	// Priorities in order, at least one.
	Priorities []Group
	// Hosts of all priorities.
	Hosts []*Host
	// Version differs between the sets of a cluster.
	Version uint64
	// Drops are the configured drop_overloads, in order; nil for none.
	Drops []Drop
}

// Drop is the share of requests to drop for one category of overload.
type Drop struct {
	Category   string
	PerMillion uint32
}

// Group is the hosts of one priority.
type Group struct {
	// All hosts, and those that traffic goes to. Healthy may be the very slice All.
	All, Healthy, Degraded []*Host
	// Localities with their weights, in order; nil when none has a weight.
	Localities []LocalityGroup
	// Overprovision is in percent (140); Excluded hosts, those that drain, count for nothing when
	// availability and panic are worked out.
	Overprovision uint32
	Excluded      int
	// WeightedHealth makes availability a matter of weights instead of numbers.
	WeightedHealth bool
}

// LocalityGroup is the hosts of one locality in a priority.
type LocalityGroup struct {
	Locality               *Locality
	Weight                 uint32
	All, Healthy, Degraded []*Host
}

// Spec is the configuration of one priority's locality, from which a Set is built.
type Spec struct {
	Locality *Locality
	Weight   uint32
	Priority uint32
	Hosts    []*Host
}

// Policy is what applies to the whole of a Set.
type Policy struct {
	Overprovision  uint32
	WeightedHealth bool
	Drops          []Drop
}

// NewSet builds a set. Hosts are taken as they are now: their attributes decide priority and health.
func NewSet(specs []Spec, policy Policy, version uint64) *Set {
	last := uint32(0)
	total := 0
	for i := range specs {
		last = max(last, specs[i].Priority)
		total += len(specs[i].Hosts)
	}
	s := &Set{
		Priorities: make([]Group, last+1),
		Hosts:      make([]*Host, 0, total),
		Version:    version,
		Drops:      policy.Drops,
	}
	for p := range s.Priorities {
		from := len(s.Hosts)
		for i := range specs {
			if specs[i].Priority == uint32(p) {
				s.Hosts = append(s.Hosts, specs[i].Hosts...)
			}
		}
		s.Priorities[p] = newGroup(specs, uint32(p), s.Hosts[from:len(s.Hosts):len(s.Hosts)], policy)
	}
	return s
}

func newGroup(specs []Spec, priority uint32, all []*Host, policy Policy) Group {
	g := Group{All: all, Overprovision: policy.Overprovision, WeightedHealth: policy.WeightedHealth}
	if g.Overprovision == 0 {
		g.Overprovision = 140
	}
	g.Healthy, g.Degraded = split(all)
	for _, h := range all {
		if h.Attr().Health == Draining {
			g.Excluded++
		}
	}
	weighted := false
	for i := range specs {
		weighted = weighted || specs[i].Priority == priority && specs[i].Weight > 0
	}
	if !weighted {
		return g
	}
	for i := range specs {
		if specs[i].Priority != priority {
			continue
		}
		l := LocalityGroup{Locality: specs[i].Locality, Weight: specs[i].Weight, All: specs[i].Hosts}
		l.Healthy, l.Degraded = split(l.All)
		g.Localities = append(g.Localities, l)
	}
	return g
}

// split sorts hosts by health; when all are healthy no slice is made.
func split(all []*Host) (healthy, degraded []*Host) {
	up := 0
	for _, h := range all {
		switch h.Attr().Health {
		case Unknown, Healthy:
			up++
		case Degraded:
			degraded = append(degraded, h)
		case Unhealthy, Draining, Timeout:
		}
	}
	if up == len(all) {
		return all, nil
	}
	healthy = make([]*Host, 0, up)
	for _, h := range all {
		if a := h.Attr().Health; a == Unknown || a == Healthy {
			healthy = append(healthy, h)
		}
	}
	return healthy, degraded
}
