package grpchttp

import (
	"strconv"
	"testing"

	"sidecar/api/stats"
)

func TestSplitPath(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][2]string{
		"/s.A/m": {"s.A", "m"}, "/s/m?q=/x": {"s", "m"}, "s/m": {}, "/s": {}, "/s/": {}, "//m": {}, "/s/m/x": {}, "": {},
	} {
		service, method, ok := SplitPath(path)
		if ok != (want[0] != "") || ok && (service != want[0] || method != want[1]) {
			t.Errorf("%q: %q %q %t", path, service, method, ok)
		}
	}
}

// TestMethodsAreBounded: clients name methods.
func TestMethodsAreBounded(t *testing.T) {
	t.Parallel()
	m := NewMethods(stats.New().Root())
	for i := range 3 * maxMethods {
		m.Of("c", "grpc", "s", strconv.Itoa(i))
	}
	if n := len(m.known); n > maxMethods+1 {
		t.Errorf("%d methods", n)
	}
	if m.Of("c", "grpc", "s", "new") != m.Of("c", "grpc", "", "") {
		t.Error("a method beyond the limit has stats of its own")
	}
	if n := testing.AllocsPerRun(100, func() { m.Of("c", "grpc", "s", "1") }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestFrames(t *testing.T) {
	t.Parallel()
	const body = "\x00\x00\x00\x00\x03\x01\x02\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x09\x00"
	for size := 1; size <= len(body); size++ {
		var f Frames
		ends := 0
		for p := []byte(body); len(p) > 0; {
			piece := p[:min(size, len(p))]
			p = p[len(piece):]
			for len(piece) > 0 {
				n, end := f.Next(piece)
				if end {
					ends++
				}
				piece = piece[n:]
			}
		}
		if f.Count != 4 || ends != 3 { // of the last one only the flag has come
			t.Errorf("pieces of %d: %d messages, %d ended", size, f.Count, ends)
		}
	}
}
