package stats_test

import (
	"slices"
	"testing"

	"sidecar/api/stats"
)

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
