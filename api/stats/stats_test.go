package stats

import (
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type clusterStats struct {
	RqTotal  Counter   `stat:"upstream_rq_total"`
	RqActive Gauge     `stat:"upstream_rq_active"`
	RqTime   Histogram `stat:"upstream_rq_time,ms"`
	Version  Text      `stat:"version_text"`
	Rq       Codes     `stat:"upstream_rq"`
	Default  breakers  `stat:"circuit_breakers.default"`
	High     breakers  `stat:"circuit_breakers.high"`
	Inline   struct {
		Healthy Gauge `stat:"membership_healthy"`
	}
}

type breakers struct {
	CxOpen Gauge `stat:"cx_open"`
	RqOpen Gauge `stat:"rq_open"`
}

// names lists what the store would show, sorted.
func names(s *Store, usedOnly bool) []string {
	var out []string
	s.Each(usedOnly, func(p *Sample) { out = append(out, string(p.Name)) })
	slices.Sort(out)
	return out
}

func TestBindLists(t *testing.T) {
	t.Parallel()
	s := New()
	lazy := BindLazy[clusterStats](s.Scope("cluster").Sub("a"))
	all := []string{
		"cluster.a.circuit_breakers.default.cx_open",
		"cluster.a.circuit_breakers.default.rq_open",
		"cluster.a.circuit_breakers.high.cx_open",
		"cluster.a.circuit_breakers.high.rq_open",
		"cluster.a.membership_healthy",
		"cluster.a.upstream_rq_active",
		"cluster.a.upstream_rq_time",
		"cluster.a.upstream_rq_total",
		"cluster.a.version_text",
	}
	if diff := cmp.Diff(all, names(s, false)); diff != "" {
		t.Error("unused, listed with zeros:", diff)
	}
	if got := names(s, true); got != nil {
		t.Error("used before use:", got)
	}
	if lazy.Peek() != nil {
		t.Error("listing allocated the family")
	}
	c := lazy.Get()
	c.RqTotal.Inc()
	c.RqActive.Inc()
	c.RqActive.Dec()
	c.Rq.Inc(200)
	c.Rq.Inc(204)
	c.Rq.Inc(799)
	want := []string{
		"cluster.a.upstream_rq_200", "cluster.a.upstream_rq_204", "cluster.a.upstream_rq_2xx",
		"cluster.a.upstream_rq_active", "cluster.a.upstream_rq_completed",
		"cluster.a.upstream_rq_total", "cluster.a.upstream_rq_unknown",
	}
	if diff := cmp.Diff(want, names(s, true)); diff != "" {
		t.Error("used:", diff)
	}
	if got := c.Rq.Value(204); got != 1 {
		t.Errorf("204 counted %d times", got)
	}
}

func TestScopesOfOneNameShare(t *testing.T) {
	t.Parallel()
	s := New()
	old, fresh := s.Scope("http.in."), s.Scope("http.in")
	a, b := Bind[breakers](old), Bind[breakers](fresh)
	if a != b {
		t.Fatal("two structs for one name")
	}
	if old.Counter("x") != fresh.Counter("x") {
		t.Fatal("two counters for one name")
	}
	if old.Gauge("cx_open") != &a.CxOpen {
		t.Error("a single stat is apart from the family's field of that name")
	}
	old.Close()
	old.Close()
	if got := len(names(s, false)); got != 3 {
		t.Errorf("%d stats listed while a handle is open, want 3", got)
	}
	fresh.Close()
	if got := names(s, false); got != nil {
		t.Error("listed after the last Close:", got)
	}
	b.CxOpen.Inc() // still valid
	again := s.Scope("http.in")
	if Bind[breakers](again) == b {
		t.Error("a new scope got the old stats")
	}
	old.Close()
	if got := len(names(s, false)); got != 2 {
		t.Error("closing a stale handle removed a new scope")
	}
}

func TestCloseRemovesSubScopes(t *testing.T) {
	t.Parallel()
	s := New()
	l := s.Scope("listener.127.0.0.1:80")
	sub := l.Sub("http.x", Tag{"k", "v"})
	sub.Counter("a").Inc()
	if got := sub.Name(); got != "listener.127.0.0.1_80.http.x" {
		t.Error("name:", got)
	}
	s.Each(true, func(p *Sample) {
		if diff := cmp.Diff([]Tag{{"k", "v"}}, p.AppendTags(nil)); diff != "" {
			t.Error(diff)
		}
	})
	l.Close()
	sub.Close()
	if got := names(s, false); got != nil {
		t.Error("left:", got)
	}
}

func TestSanitize(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain": "plain", "a:b": "a_b", "http://x": "http_x", "u:/y": "u_y", ".a.b.": "a.b", "n\x00": "n_",
	} {
		if got := sanitize(in); got != want {
			t.Errorf("sanitize(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestGaugeAndCounter(t *testing.T) {
	t.Parallel()
	var g Gauge
	if g.Used() {
		t.Error("used before use")
	}
	g.Set(0)
	if !g.Used() || g.Value() != 0 {
		t.Error("Set(0) did not mark it used")
	}
	g.Add(-5)
	g.Inc()
	if g.Value() != -4 {
		t.Error("value", g.Value())
	}
	g.SetUint(math.MaxUint64)
	if g.Value() != math.MaxInt64>>1 {
		t.Error("clamped to", g.Value())
	}
	var c Counter
	c.Reset()
	if c.Used() {
		t.Error("a reset marked an unused counter used")
	}
	c.Add(3)
	c.Reset()
	c.Inc()
	if c.Value() != 1 || !c.Used() {
		t.Error("after reset", c.Value(), c.Used())
	}
	c.Reset()
	if c.Value() != 0 || !c.Used() {
		t.Error("after second reset", c.Value(), c.Used())
	}
}

func TestBinOf(t *testing.T) {
	t.Parallel()
	for _, v := range []uint64{
		1, 2, 9, 10, 11, 19, 20, 99, 100, 101, 109, 110, 999, 1000, 4095, 4096, 999_999, 1_000_000,
		1<<32 - 1, 1 << 32, 9_999_999_999_999_999_999, 10_000_000_000_000_000_000, math.MaxUint64,
	} {
		e, bin := binOf(v)
		b := Bin{Mantissa: uint8(bin + 10), Exp: uint8(e)}
		// A bound such as 110 comes out as 110.00000000000001, as Envoy's does; and above 2^53 a
		// float64 cannot hold v itself.
		if f := float64(v); f < b.Lower()*(1-1e-15) || (f >= b.Lower()+b.Width() && v < 1<<53) {
			t.Errorf("%d in [%g, %g)", v, b.Lower(), b.Lower()+b.Width())
		}
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	s := New()
	h := s.Scope("x").Histogram("h", Milliseconds)
	if h.Used() {
		t.Error("used before use")
	}
	for v := range uint64(101) {
		h.Record(v)
	}
	s.Flush()
	h.Record(5000)
	s.Flush()
	cum, interval := h.Merged()
	if got := cum.Count(); got != 102 {
		t.Error("cumulative count", got)
	}
	if diff := cmp.Diff(Snapshot{{Mantissa: 50, Exp: 3, Count: 1}}, interval); diff != "" {
		t.Error("interval:", diff)
	}
	if q, ok := interval.Quantile(0.5, Milliseconds); !ok || q != 5050 {
		t.Error("P50 of 5000 alone", q, ok)
	}
	if _, ok := Snapshot(nil).Quantile(0.5, Milliseconds); ok {
		t.Error("a quantile of nothing")
	}
	if got := cum.CountAtMost(10, Milliseconds); got != 11 {
		t.Error("at most 10:", got)
	}
	if got := cum.CountAtMost(3600000, Milliseconds); got != 102 {
		t.Error("at most 3600000:", got)
	}
	if got := cum.Plus(interval).Count(); got != 103 {
		t.Error("sum of two:", got)
	}
	s.Flush()
	if _, interval := h.Merged(); interval != nil {
		t.Error("interval without values:", interval)
	}
	if got := (Snapshot{{Mantissa: 10, Exp: 6, Count: 1}}).Sum(Percent); got < 1.047 || got > 1.048 {
		t.Error("percent scale", got)
	}
}

func TestResetCountersAndHooks(t *testing.T) {
	t.Parallel()
	s := New()
	up := s.Scope("server").Gauge("uptime")
	s.BeforeRead(func() { up.Set(7) })
	c := s.Root().Counter("filesystem.write_total")
	c.Add(4)
	s.ResetCounters()
	if c.Value() != 0 || !c.Used() {
		t.Error("reset:", c.Value(), c.Used())
	}
	want := []string{"filesystem.write_total", "server.uptime"}
	if diff := cmp.Diff(want, names(s, true)); diff != "" {
		t.Error(diff)
	}
}

func TestBadFamilyPanics(t *testing.T) {
	t.Parallel()
	check := func(name, want string, bind func()) {
		defer func() {
			msg, _ := recover().(string)
			if !strings.Contains(msg, want) {
				t.Errorf("%s: panic %q, want %q", name, msg, want)
			}
		}()
		bind()
	}
	sc := New().Scope("x")
	check("pointer", "not a struct", func() {
		Bind[struct {
			A *Counter `stat:"a"`
		}](sc)
	})
	check("unexported", "not exported", func() {
		Bind[struct {
			a Counter `stat:"a"`
		}](sc)
	})
	check("no tag", "no stat tag", func() { Bind[struct{ A Counter }](sc) })
	check("unit", "unknown unit", func() {
		Bind[struct {
			A Histogram `stat:"a,parsec"`
		}](sc)
	})
	check("twice", "two fields", func() {
		Bind[struct {
			A Counter `stat:"a"`
			B Gauge   `stat:"a"`
		}](sc)
	})
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	s := New()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				sc := s.Scope("cluster").Sub("a")
				c := BindLazy[clusterStats](sc).Get()
				c.RqTotal.Inc()
				c.RqTime.Record(3)
				c.Rq.Inc(503)
				names(s, false)
				s.Flush()
				sc.Close()
			}
		})
	}
	wg.Wait()
}

func TestAllocs_Bump(t *testing.T) {
	c := BindLazy[clusterStats](New().Scope("cluster").Sub("a"))
	bump := func() {
		s := c.Get()
		s.RqTotal.Inc()
		s.RqActive.Inc()
		s.RqTime.Record(12)
		s.Rq.Inc(200)
	}
	bump()
	if n := testing.AllocsPerRun(100, bump); n != 0 {
		t.Errorf("%v allocations a bump", n)
	}
}

// TestSize_UnusedFamily holds the cost of a cluster that no request ever went to.
func TestSize_UnusedFamily(t *testing.T) {
	const clusters = 4096
	labels := make([]string, clusters)
	for i := range labels {
		labels[i] = "outbound|80||svc" + string(rune('a'+i%26)) + strings.Repeat("x", i%97) + string(rune(0x4e00+i))
	}
	parent := New().Scope("cluster")
	keep := make([]*Lazy[clusterStats], clusters)
	scopes := make([]*Scope, clusters)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i, l := range labels {
		scopes[i] = parent.Sub(l)
		keep[i] = BindLazy[clusterStats](scopes[i])
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := float64(after.HeapAlloc-before.HeapAlloc) / clusters
	t.Logf("%.0f bytes a cluster", per)
	if per > 200 {
		t.Errorf("an unused family costs %.0f bytes, want at most 200", per)
	}
	runtime.KeepAlive(keep)
	runtime.KeepAlive(scopes)
}

func BenchmarkRecord(b *testing.B) {
	var h Histogram
	for i := range b.N {
		h.Record(uint64(i) & 0xffff)
	}
}

// TestHistogramAsEnvoy has what Envoy 1.40 prints for a histogram of these values.
func TestHistogramAsEnvoy(t *testing.T) {
	t.Parallel()
	var h Histogram
	for _, v := range []uint64{0, 5, 10, 11, 24, 25, 100, 105, 109, 110, 253, 255, 505, 1005, 2503, 12345, 30001} {
		h.Record(v)
	}
	s := h.Cumulative()
	var quantiles []float64
	for _, q := range Quantiles {
		v, _ := s.Quantile(q, Bytes)
		quantiles = append(quantiles, v)
	}
	want := []float64{0, 24.5, 107.5, 505, 12500, 30500, 30500, 30500, 30500, 30500}
	if diff := cmp.Diff(want, quantiles); diff != "" {
		t.Error("quantiles:", diff)
	}
	var buckets []uint64
	for _, limit := range DefaultBuckets {
		buckets = append(buckets, s.CountAtMost(limit, Bytes))
	}
	wantBuckets := []uint64{1, 1, 2, 3, 6, 6, 9, 12, 13, 14, 15, 15, 15, 17, 17, 17, 17, 17, 17}
	if diff := cmp.Diff(wantBuckets, buckets); diff != "" {
		t.Error("buckets:", diff)
	}
	if got := strconv.FormatFloat(s.Sum(Bytes), 'g', 32, 64); got != "48089.248622043254727032035589218" {
		t.Error("sum:", got)
	}
	var one Histogram
	for range 3 {
		one.Record(203)
	}
	for q, want := range map[float64]float64{0: 202.5, 0.25: 202.5, 0.5: 205, 0.75: 207.5, 1: 207.5} {
		if got, _ := one.Cumulative().Quantile(q, Bytes); got != want {
			t.Errorf("three in a bin: %v at %v, want %v", got, q, want)
		}
	}
}
