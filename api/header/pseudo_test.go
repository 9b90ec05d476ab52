package header

import (
	"fmt"
	"strings"
	"testing"
)

func TestPseudoHeadersComeFirst(t *testing.T) {
	t.Parallel()
	var m Map
	m.KeepRawNames()
	m.AddID(Authority, "a")
	m.AddID(Path, "/")
	m.AddRaw([]byte("Accept"), []byte("1"))
	m.AddRaw([]byte("X-A"), []byte("2"))
	m.SetStatic(Scheme, "http")
	m.Add(":custom", "3")
	var got strings.Builder
	for i := range m.Len() {
		n, v := m.At(i)
		fmt.Fprintf(&got, "%s=%s(%s) ", n, v, m.RawAt(i))
	}
	want := ":authority=a(:authority) :path=/(:path) :scheme=http(:scheme) :custom=3(:custom) accept=1(Accept) x-a=2(X-A) "
	if got.String() != want {
		t.Errorf("got  %s\nwant %s", got.String(), want)
	}
	if m.Value(Accept) != "1" || m.Value(Scheme) != "http" || m.Value(Path) != "/" {
		t.Error("the index does not follow")
	}
	m.RemoveID(Authority)
	if m.Value(Accept) != "1" || m.Value(Scheme) != "http" {
		t.Error("the index does not follow a removal")
	}
}
