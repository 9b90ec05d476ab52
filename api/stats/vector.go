package stats

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Vector is a family of counters, gauges or histograms that differ in their tags. Each is listed as
// "<name>.<tag>.<value>..." and knows its name without tags: rules that cut tags out of names do not
// apply to it. All methods may be called from any goroutine.
//
// The values of tags may come from peers, so there are at most maxSeries of them, and none with a key
// longer than maxKey: what would be one more is counted in one that has the tag "overflow" alone.
type Vector struct {
	// Set by NewVector, never changed.
	name string
	kind Kind
	unit Unit

	mu     sync.RWMutex // guards below
	series map[string]*series
	epoch  uint32
}

const (
	maxSeries = 10_000
	maxKey    = 4 << 10
)

// overflowKey is the key of the series of what has none of its own.
const overflowKey = "\xffoverflow"

// series is one stat of a vector.
type series struct {
	v    *Vector
	name string
	tags []Tag
	ptr  any
	used atomic.Uint32 // the epoch of the last use
}

// NewVector adds a vector to the store, or returns the one that has this name.
func (s *Store) NewVector(name string, kind Kind, unit Unit) *Vector {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.vectors {
		if v.name == name && v.kind == kind {
			return v
		}
	}
	v := &Vector{name: name, kind: kind, unit: unit, series: map[string]*series{}}
	s.vectors = append(s.vectors, v)
	return v
}

// Counter returns the counter that key stands for; tags, which name it, is called for a new one and
// its result kept. The key is copied.
func (v *Vector) Counter(key []byte, tags func() []Tag) *Counter {
	return member[Counter](v, key, tags)
}

// Gauge is Counter for a gauge.
func (v *Vector) Gauge(key []byte, tags func() []Tag) *Gauge { return member[Gauge](v, key, tags) }

// Histogram is Counter for a histogram.
func (v *Vector) Histogram(key []byte, tags func() []Tag) *Histogram {
	return member[Histogram](v, key, tags)
}

func member[T any](v *Vector, key []byte, tags func() []Tag) *T {
	v.mu.RLock()
	m, epoch := v.series[string(key)], v.epoch
	v.mu.RUnlock()
	if m == nil {
		m = v.addBounded(key, tags, new(T))
	}
	if m.used.Load() != epoch {
		m.used.Store(epoch)
	}
	p, ok := m.ptr.(*T)
	if !ok {
		return new(T) // a vector of another kind: a mistake in the program
	}
	return p
}

// addBounded adds a series, or finds that of what there is no room for.
func (v *Vector) addBounded(key []byte, tags func() []Tag, ptr any) *series {
	v.mu.RLock()
	full, overflow := len(v.series) >= maxSeries, v.series[overflowKey]
	v.mu.RUnlock()
	switch {
	case !full && len(key) <= maxKey:
		return v.add(string(key), tags(), ptr)
	case overflow != nil:
		return overflow
	}
	return v.add(overflowKey, []Tag{{Name: "overflow", Value: "true"}}, ptr)
}

func (v *Vector) add(key string, tags []Tag, ptr any) *series {
	m := &series{v: v, tags: tags, ptr: ptr}
	b := []byte(v.name)
	for _, t := range tags {
		b = append(append(append(append(b, '.'), t.Name...), '.'), t.Value...)
	}
	m.name = string(b)
	v.mu.Lock()
	defer v.mu.Unlock()
	if other := v.series[key]; other != nil {
		return other
	}
	v.series[key] = m
	return m
}

// Rotate begins a new epoch and returns it. Expire takes away what was not used since an epoch began;
// what holds such a stat counts on, unlisted.
func (v *Vector) Rotate() uint32 {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.epoch++
	return v.epoch
}

// Expire takes away the stats that were last used before an epoch.
func (v *Vector) Expire(epoch uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for k, m := range v.series {
		if m.used.Load() < epoch {
			delete(v.series, k)
		}
	}
}

func (v *Vector) list() []*series {
	v.mu.RLock()
	defer v.mu.RUnlock()
	out := make([]*series, 0, len(v.series))
	for _, m := range v.series {
		out = append(out, m)
	}
	return out
}

// eachSeries calls fn for every stat of every vector.
func (s *Store) eachSeries(usedOnly bool, fn func(*Sample)) {
	s.mu.Lock()
	vectors := slices.Clone(s.vectors)
	s.mu.Unlock()
	var sample Sample
	var name []byte
	for _, v := range vectors {
		for _, m := range v.list() {
			name = append(name[:0], m.name...)
			sample = Sample{Name: name, Kind: v.kind, Unit: v.unit, ptr: m.ptr, series: m}
			if u, ok := m.ptr.(interface{ Used() bool }); ok {
				sample.Used = u.Used()
			}
			if !usedOnly || sample.Used {
				fn(&sample)
			}
		}
	}
}

// flushSeries ends the interval of every histogram of every vector. The caller holds mu.
func (s *Store) flushSeries() {
	for _, v := range s.vectors {
		if v.kind != KindHistogram {
			continue
		}
		for _, m := range v.list() {
			if h, ok := m.ptr.(*Histogram); ok {
				h.Flush()
			}
		}
	}
}

// Base returns the name without tags of a stat of a Vector.
func (s *Sample) Base() (name string, ok bool) {
	if s.series == nil {
		return "", false
	}
	return s.series.v.name, true
}
