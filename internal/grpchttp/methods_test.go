package grpchttp

import (
	"strconv"
	"testing"
	"time"

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
//
//nolint:paralleltest // AllocsPerRun
func TestMethodsAreBounded(t *testing.T) {
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

func TestAppendTimeout(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0m", 1500 * time.Millisecond: "1500m", 27 * time.Hour: "97200000m", 28 * time.Hour: "100800S",
		1 << 62: "76861433M",
	} {
		if got := string(AppendTimeout(nil, d)); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

func TestHTTPFromStatus(t *testing.T) {
	t.Parallel()
	for v, want := range map[string]int{"0": 200, "5": 404, "14": 503, "16": 401, "17": 500, "": 500, "x": 500, "-1": 500} {
		if got := HTTPFromStatus(v); got != want {
			t.Errorf("%q: %d, want %d", v, got, want)
		}
	}
}
