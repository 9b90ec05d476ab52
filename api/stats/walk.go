package stats

// Sample is one stat as it is read. A copy stays valid, but for the name.
type Sample struct {
	// Name is the full dotted name; it is overwritten for the next sample.
	Name []byte
	Kind Kind
	Unit Unit
	// Used tells whether the stat was ever written (Envoy's usedonly).
	Used bool

	ptr    any // *Counter, *Gauge, *Histogram or *Text; nil: zeros
	node   *node
	series *series // of a vector's stat
}

// Counter returns a counter's value.
func (s *Sample) Counter() uint64 {
	if c, ok := s.ptr.(*Counter); ok {
		return c.Value()
	}
	return 0
}

// Gauge returns a gauge's value.
func (s *Sample) Gauge() int64 {
	if g, ok := s.ptr.(*Gauge); ok {
		return g.Value()
	}
	return 0
}

// Text returns a text readout's text.
func (s *Sample) Text() string {
	if t, ok := s.ptr.(*Text); ok {
		return t.Value()
	}
	return ""
}

// Histogram returns what a histogram's last Flush saw (see Histogram.Merged).
func (s *Sample) Histogram() (cumulative, interval Snapshot) {
	if h, ok := s.ptr.(*Histogram); ok {
		return h.Merged()
	}
	return nil, nil
}

// AppendTags appends the tags that the stat's scopes were made with, the inmost first.
func (s *Sample) AppendTags(tags []Tag) []Tag {
	if s.series != nil {
		return append(tags, s.series.tags...)
	}
	return s.node.appendTags(tags)
}

// Each calls fn for every stat, in no order: names may come twice where two scopes spell one name
// differently. With usedOnly it leaves out, cheaply, what was never written. Writers are not held
// up: the store is locked only while the scopes are listed.
func (s *Store) Each(usedOnly bool, fn func(*Sample)) {
	var sample Sample
	var name []byte
	for _, e := range s.list() {
		sample.node = e.node
		name = e.node.appendName(name[:0])
		if len(name) > 0 {
			name = append(name, '.')
		}
		w := walker{usedOnly: usedOnly, fn: fn, name: name, sample: &sample}
		for f := e.families; f != nil; f = f.following() {
			w.family(f)
		}
		for g := e.singles; g != nil; g = g.next {
			w.stat(g.name, g.kind, g.unit, g.ptr)
		}
		name = w.name
	}
	s.eachSeries(usedOnly, fn)
}

// Flush ends the interval of every histogram (stats_flush_interval). It comes every few seconds in a
// process that may have nothing else to do, so it names nothing, allocates nothing and runs no hooks.
func (s *Store) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.root.flush()
	s.flushSeries()
}

func (n *node) flush() {
	for f := n.families; f != nil; f = f.following() {
		lay := f.layout()
		if len(lay.histograms) == 0 {
			continue
		}
		v := f.value(false)
		if !v.IsValid() {
			continue
		}
		for _, fl := range lay.histograms {
			if h, ok := field(v, fl).(*Histogram); ok {
				h.Flush()
			}
		}
	}
	if n.singles != nil {
		for g := n.singles.head; g != nil; g = g.next {
			if h, ok := g.ptr.(*Histogram); ok {
				h.Flush()
			}
		}
	}
	for _, c := range n.children {
		c.flush()
	}
}

// ResetCounters sets every counter to zero (POST /reset_counters).
func (s *Store) ResetCounters() {
	s.Each(true, func(p *Sample) {
		if c, ok := p.ptr.(*Counter); ok {
			c.Reset()
		}
	})
}

// listed is what a node held when it was listed; the lists only grow at their heads.
type listed struct {
	node     *node
	families family
	singles  *single
}

func (s *Store) list() []listed {
	s.mu.Lock()
	hooks := s.hooks
	s.mu.Unlock()
	for _, h := range hooks {
		h()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.root.list(nil)
}

func (n *node) list(out []listed) []listed {
	if n.families != nil || n.singles != nil {
		e := listed{node: n, families: n.families}
		if n.singles != nil {
			e.singles = n.singles.head
		}
		out = append(out, e)
	}
	for _, c := range n.children {
		out = c.list(out)
	}
	return out
}

// walker names the stats of one scope.
type walker struct {
	usedOnly bool
	fn       func(*Sample)
	name     []byte // begins with the scope's prefix
	sample   *Sample
}

func (w *walker) family(f family) {
	v := f.value(false)
	if !v.IsValid() && w.usedOnly {
		return
	}
	for i := range f.layout().fields {
		fl := &f.layout().fields[i]
		var ptr any
		if v.IsValid() {
			ptr = field(v, fl)
		}
		if !fl.codes {
			w.stat(fl.name, fl.kind, fl.unit, ptr)
			continue
		}
		if c, ok := ptr.(*Codes); ok {
			c.each(func(suffix string, ctr *Counter) {
				w.stat(fl.name+suffix, KindCounter, Unspecified, ctr)
			})
		}
	}
}

func (w *walker) stat(name string, kind Kind, unit Unit, ptr any) {
	p := w.sample
	p.Kind, p.Unit, p.ptr, p.Used = kind, unit, ptr, false
	if u, ok := ptr.(interface{ Used() bool }); ok {
		p.Used = u.Used()
	}
	if w.usedOnly && !p.Used {
		return
	}
	prefix := len(w.name)
	w.name = append(w.name, name...)
	p.Name = w.name
	w.fn(p)
	w.name = w.name[:prefix]
}
