package stats

import (
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
)

// The bins are those of Envoy's histograms: 90 a decade, [d.d, d.d+0.1) x 10^e, and one for zero.
// So quantiles, sums and Prometheus buckets come out as Envoy's to the last digit.
const (
	binsPerDecade = 90
	decades       = 20 // a uint64 has at most 20 decimal digits
)

// Histogram counts values in log-linear bins. It is one pointer until the first Record, then 8
// bytes a bin, by decade: 900 bytes to 3 KB in practice, 15 KB at most. The zero value is ready; it
// may be used from any goroutine.
type Histogram struct{ p atomic.Pointer[histogram] }

type decade [binsPerDecade]atomic.Uint64

type histogram struct {
	zero    atomic.Uint64
	decades [decades]atomic.Pointer[decade]

	mu sync.Mutex // guards below: the reading side only
	// merged is what the last Flush saw, interval what came between it and the Flush before.
	merged, interval Snapshot
}

// Record counts one value: one atomic add, and an allocation at the first use of a decade.
func (h *Histogram) Record(v uint64) {
	p := h.p.Load()
	if p == nil {
		h.p.CompareAndSwap(nil, new(histogram))
		p = h.p.Load()
	}
	if v == 0 {
		p.zero.Add(1)
		return
	}
	e, bin := binOf(v)
	d := p.decades[e].Load()
	if d == nil {
		p.decades[e].CompareAndSwap(nil, new(decade))
		d = p.decades[e].Load()
	}
	d[bin].Add(1)
}

// Used tells whether anything was ever recorded.
func (h *Histogram) Used() bool { return h.p.Load() != nil }

// Cumulative returns everything recorded since the start. It may be called from any goroutine.
func (h *Histogram) Cumulative() Snapshot {
	p := h.p.Load()
	if p == nil {
		return nil
	}
	return p.read()
}

// Merged returns what the last Flush saw: everything since the start, and the interval between that
// Flush and the one before. The admin API shows these, as Envoy does.
func (h *Histogram) Merged() (cumulative, interval Snapshot) {
	p := h.p.Load()
	if p == nil {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.merged, p.interval
}

// Flush ends an interval. Store.Flush calls it for every histogram.
func (h *Histogram) Flush() {
	p := h.p.Load()
	if p == nil {
		return
	}
	now := p.read()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.interval = now.minus(p.merged)
	p.merged = now
}

func (p *histogram) read() Snapshot {
	var s Snapshot
	if n := p.zero.Load(); n > 0 {
		s = append(s, Bin{Count: n})
	}
	for e := range p.decades {
		d := p.decades[e].Load()
		if d == nil {
			continue
		}
		for i := range d {
			if n := d[i].Load(); n > 0 {
				s = append(s, Bin{Mantissa: uint8(i + 10), Exp: uint8(e), Count: n})
			}
		}
	}
	return s
}

// binOf returns the decade of v > 0 and the bin in it.
func binOf(v uint64) (e, bin int) {
	// Digits by the bit length: 1233/4096 is log10(2) closely enough for 64 bits.
	e = bits.Len64(v) * 1233 >> 12
	if v < pow10(e) {
		e--
	}
	if e == 0 {
		return 0, int(v)*10 - 10
	}
	return e, int(v/pow10(e-1)) - 10
}

func pow10(e int) uint64 { return powers[e] }

// powers is a table, never written.
//
//nolint:gochecknoglobals // immutable table
var powers = [decades]uint64{
	1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9,
	1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
}

// Bin is one bin that is not empty: values in [Lower, Lower+Width).
type Bin struct {
	Mantissa uint8 // 10 to 99; 0 for the bin of zero
	Exp      uint8
	Count    uint64
}

// Lower returns the least value of the bin.
func (b Bin) Lower() float64 {
	if b.Mantissa == 0 {
		return 0
	}
	return float64(b.Mantissa) / 10 * float64(pow10(int(b.Exp)))
}

// Width returns the width of the bin, 0 for the bin of zero.
func (b Bin) Width() float64 {
	if b.Mantissa == 0 {
		return 0
	}
	return float64(pow10(int(b.Exp))) / 10
}

func (b Bin) key() int { return int(b.Exp)<<8 | int(b.Mantissa) }

// Snapshot is a histogram's bins in rising order, empty ones left out. It is never changed.
type Snapshot []Bin

// minus returns s less an earlier reading of the same histogram.
func (s Snapshot) minus(old Snapshot) Snapshot {
	var out Snapshot
	j := 0
	for _, b := range s {
		for j < len(old) && old[j].key() < b.key() {
			j++
		}
		if j < len(old) && old[j].key() == b.key() {
			b.Count -= old[j].Count
		}
		if b.Count > 0 {
			out = append(out, b)
		}
	}
	return out
}

// Plus returns the sum of two snapshots.
func (s Snapshot) Plus(t Snapshot) Snapshot {
	if len(t) == 0 {
		return s
	}
	out := slices.Concat(s, t)
	slices.SortFunc(out, func(a, b Bin) int { return a.key() - b.key() })
	n := 0
	for _, b := range out {
		if n > 0 && out[n-1].key() == b.key() {
			out[n-1].Count += b.Count
			continue
		}
		out[n] = b
		n++
	}
	return out[:n]
}

// Count returns the number of values.
func (s Snapshot) Count() uint64 {
	var n uint64
	for _, b := range s {
		n += b.Count
	}
	return n
}

// Sum returns the sum of the values as Envoy reports it: each bin's count times the value in it
// that is wrong by the least share, wherever in the bin the values are.
func (s Snapshot) Sum(u Unit) float64 {
	var sum float64
	for _, b := range s {
		lower, upper := b.Lower(), b.Lower()+b.Width()
		if upper > 0 {
			sum += (lower + (upper-lower)*(lower/(lower+upper))) * float64(b.Count)
		}
	}
	return sum / u.scale()
}

// CountAtMost returns how many values are in bins that begin at or below limit: the value of a
// Prometheus bucket, as Envoy has it.
func (s Snapshot) CountAtMost(limit float64, u Unit) uint64 {
	limit *= u.scale()
	var n uint64
	for _, b := range s {
		if b.Lower() > limit {
			break
		}
		n += b.Count
	}
	return n
}

// Quantiles are those that Envoy computes; a table, never written.
var Quantiles = [...]float64{0, 0.25, 0.5, 0.75, 0.90, 0.95, 0.99, 0.995, 0.999, 1}

// DefaultBuckets are the upper limits of Envoy's Prometheus buckets; a table, never written.
//
//nolint:gochecknoglobals // immutable table
var DefaultBuckets = []float64{
	0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000,
	1800000, 3600000,
}

// Quantile returns the value at q (0 to 1), and false if s is empty. It is the value of the sample
// at that rank, the samples of a bin taken to be spread evenly inside it.
func (s Snapshot) Quantile(q float64, u Unit) (float64, bool) {
	total := s.Count()
	if total == 0 {
		return 0, false
	}
	rank := max(1, uint64(math.Ceil(q*float64(total))))
	var below uint64
	for i, b := range s {
		if below+b.Count < rank && i < len(s)-1 {
			below += b.Count
			continue
		}
		v := b.Lower() + b.Width()*float64(rank-below)/float64(b.Count+1)
		return v / u.scale(), true
	}
	return 0, false
}
