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
	// Localities with their weights, in order; nil when none has a weight, unless the Policy asks for
	// them.
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
	Excluded               int
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
	// ByLocality keeps hosts by locality though no locality has a weight.
	ByLocality bool
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
	g.sort()
	weighted := policy.ByLocality
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
		l.Healthy, l.Degraded, l.Excluded = split(l.All)
		g.Localities = append(g.Localities, l)
	}
	return g
}

func (g *Group) sort() { g.Healthy, g.Degraded, g.Excluded = split(g.All) }

// Refresh returns the set of the same hosts with their health as it is now.
func (s *Set) Refresh(version uint64) *Set {
	return s.derive(version, func(hosts []*Host) []*Host { return hosts })
}

// Filter returns the set of those hosts that keep approves of, with the version and the priorities of
// this one.
func (s *Set) Filter(keep func(*Host) bool) *Set {
	return s.derive(s.Version, func(hosts []*Host) []*Host {
		var out []*Host
		for _, h := range hosts {
			if keep(h) {
				out = append(out, h)
			}
		}
		return out
	})
}

func (s *Set) derive(version uint64, pick func([]*Host) []*Host) *Set {
	out := &Set{
		Priorities: make([]Group, len(s.Priorities)), Hosts: pick(s.Hosts), Version: version, Drops: s.Drops,
	}
	for p := range s.Priorities {
		from, g := &s.Priorities[p], &out.Priorities[p]
		*g = Group{All: pick(from.All), Overprovision: from.Overprovision, WeightedHealth: from.WeightedHealth}
		g.sort()
		if from.Localities == nil {
			continue
		}
		g.Localities = make([]LocalityGroup, len(from.Localities))
		for i := range from.Localities {
			l := LocalityGroup{Locality: from.Localities[i].Locality, Weight: from.Localities[i].Weight}
			l.All = pick(from.Localities[i].All)
			l.Healthy, l.Degraded, l.Excluded = split(l.All)
			g.Localities[i] = l
		}
	}
	return out
}

// split sorts hosts by condition; when all are up no slice is made.
func split(all []*Host) (healthy, degraded []*Host, excluded int) {
	up := 0
	for _, h := range all {
		switch h.Condition() {
		case Up:
			up++
		case Poor:
			degraded = append(degraded, h)
		case Down:
		}
		if h.Excluded() {
			excluded++
		}
	}
	if up == len(all) {
		return all, nil, excluded
	}
	healthy = make([]*Host, 0, up)
	for _, h := range all {
		if h.Condition() == Up {
			healthy = append(healthy, h)
		}
	}
	return healthy, degraded, excluded
}
