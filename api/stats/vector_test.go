package stats_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"sidecar/api/stats"
)

// TestVector_Bound counts what has no room in a series of its own: tags may come from peers.
func TestVector_Bound(t *testing.T) {
	s := stats.New()
	v := s.NewVector("x", stats.KindCounter, stats.Unspecified)
	tags := func(value string) func() []stats.Tag {
		return func() []stats.Tag { return []stats.Tag{{Name: "host", Value: value}} }
	}
	long := strings.Repeat("h", 5000)
	v.Counter([]byte(long), tags(long)).Inc()
	for i := range 20_000 {
		name := strconv.Itoa(i)
		v.Counter([]byte(name), tags(name)).Inc()
	}
	v.Counter([]byte("7"), tags("7")).Inc()
	n, over, seven := 0, uint64(0), uint64(0)
	s.Each(true, func(p *stats.Sample) {
		n++
		switch string(p.Name) {
		case "x.overflow.true":
			over = p.Counter()
		case "x.host.7":
			seven = p.Counter()
		}
	})
	if n > 10_001 || over < 10_000 || seven != 2 {
		t.Errorf("%d series, %d in the overflow, %d of one that was there", n, over, seven)
	}
}

func TestVector(t *testing.T) {
	s := stats.New()
	v := s.NewVector("istiocustom.requests", stats.KindCounter, stats.Unspecified)
	if s.NewVector("istiocustom.requests", stats.KindCounter, stats.Unspecified) != v {
		t.Error("two vectors of one name")
	}
	tags := func(value string) func() []stats.Tag {
		return func() []stats.Tag { return []stats.Tag{{Name: "code", Value: value}} }
	}
	v.Counter([]byte("200"), tags("200")).Add(2)
	v.Counter([]byte("503"), tags("5.3")).Inc()
	list := func() (out []string) {
		s.Each(true, func(p *stats.Sample) {
			base, ok := p.Base()
			if !ok || base != "istiocustom.requests" || len(p.AppendTags(nil)) != 1 {
				t.Errorf("%s: base %q", p.Name, base)
			}
			out = append(out, string(p.Name))
		})
		slices.Sort(out)
		return out
	}
	if got := list(); !slices.Equal(got, []string{"istiocustom.requests.code.200", "istiocustom.requests.code.5.3"}) {
		t.Errorf("%q", got)
	}
	epoch := v.Rotate()
	v.Counter([]byte("200"), tags("200")).Inc()
	v.Expire(epoch)
	if got := list(); !slices.Equal(got, []string{"istiocustom.requests.code.200"}) {
		t.Errorf("after expiry: %q", got)
	}
	if n := v.Counter([]byte("200"), tags("200")).Value(); n != 3 {
		t.Errorf("counts %d", n)
	}
	key := []byte("200")
	more := tags("200")
	if n := testing.AllocsPerRun(100, func() { v.Counter(key, more).Inc() }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
