// Package stats is the contract for counters, gauges, histograms and text readouts.
//
// Code that bumps a stat holds a pointer to it; names, tags and rendering are the store's affair
// and cost nothing on the data path. A family of stats that lives and dies with a resource (a
// cluster, a listener) is a struct of values, bound as a whole by Bind or BindLazy; a lazy one is
// allocated at its first use and is listed, all zero, before that.
//
// A scope is a dotted prefix. Scopes of one name share their stats and are counted: the stats of a
// listener go on counting while its old generation drains beside the new one, and leave the listing
// when the last of the two is closed. Pointers stay valid for ever; what is counted through one
// after its scope has gone is not listed.
//
// Limitations: stats are not striped by goroutine, so a counter bumped from all processors costs a
// cache miss; names are not interned, so a scope should be given a string that its owner keeps
// anyway.
package stats

import (
	"math"
	"sync/atomic"
)

// Kind tells how a stat is rendered and what a value means.
type Kind uint8

// The kinds of stats.
const (
	KindCounter Kind = iota
	KindGauge
	KindHistogram
	KindText
)

// counterUsed marks a counter that was reset after use. Counting up to this bit takes centuries.
const counterUsed = 1 << 63

// Counter only grows. The zero value is ready; it may be used from any goroutine.
type Counter struct{ v atomic.Uint64 }

// Inc adds one.
func (c *Counter) Inc() { c.v.Add(1) }

// Add adds n.
func (c *Counter) Add(n uint64) { c.v.Add(n) }

// Value returns the count since the start, or since the last Reset.
func (c *Counter) Value() uint64 { return c.v.Load() &^ counterUsed }

// Used tells whether the counter was ever bumped, before or after a Reset.
func (c *Counter) Used() bool { return c.v.Load() != 0 }

// Reset sets the count to zero (POST /reset_counters). It stays used, as in Envoy.
func (c *Counter) Reset() {
	if c.v.Load() != 0 {
		c.v.Store(counterUsed)
	}
}

// Gauge is a value that goes up and down, at most 2^62 either way. The zero value is ready; it may
// be used from any goroutine.
type Gauge struct {
	// v is twice the value, plus one once it was written: 8 bytes instead of 16 with a flag beside
	// it.
	v atomic.Int64
}

// Inc adds one.
func (g *Gauge) Inc() { g.Add(1) }

// Dec takes one away.
func (g *Gauge) Dec() { g.Add(-1) }

// Add adds n, which may be negative.
func (g *Gauge) Add(n int64) {
	if g.v.Add(n<<1)&1 == 0 {
		g.v.Or(1)
	}
}

// Set replaces the value.
func (g *Gauge) Set(n int64) { g.v.Store(n<<1 | 1) }

// Value returns the current value.
func (g *Gauge) Value() int64 { return g.v.Load() >> 1 }

// Used tells whether the gauge was ever written; Envoy's "usedonly" filter lists those, 0 or not.
func (g *Gauge) Used() bool { return g.v.Load()&1 != 0 }

// Text is a text readout, such as the version of the last accepted update. The zero value is ready;
// it may be used from any goroutine.
type Text struct{ p atomic.Pointer[string] }

// Set replaces the text. It allocates: texts are set by configuration, not by traffic.
func (t *Text) Set(s string) { t.p.Store(&s) }

// Value returns the text, empty if it was never set.
func (t *Text) Value() string {
	if p := t.p.Load(); p != nil {
		return *p
	}
	return ""
}

// Used tells whether the text was ever set.
func (t *Text) Used() bool { return t.p.Load() != nil }

// Unit is what a histogram measures.
type Unit uint8

// The units of histograms. Percent values are recorded times PercentScale.
const (
	Unspecified Unit = iota
	Bytes
	Microseconds
	Milliseconds
	Percent
)

// PercentScale is what 1.0 is recorded as in a histogram of unit Percent.
const PercentScale = 1_000_000

// percentScale is PercentScale as a divisor of what is read out.
func (u Unit) scale() float64 {
	if u == Percent {
		return PercentScale
	}
	return 1
}

// clampGauge turns an unsigned reading (bytes, seconds) into a gauge's value.
func clampGauge(n uint64) int64 {
	if n > math.MaxInt64>>1 {
		return math.MaxInt64 >> 1
	}
	return int64(n)
}

// SetUint replaces the value with an unsigned one, cut to the gauge's range.
func (g *Gauge) SetUint(n uint64) { g.Set(clampGauge(n)) }
