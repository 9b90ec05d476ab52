//go:build !race

package engine_test

import (
	"testing"

	"sidecar/wasmhost/internal/engine"
)

func TestAllocs(t *testing.T) {
	in := instance(t, link(t, newEngine(t), testModule), engine.Limits{})
	for _, tc := range []struct {
		name string
		call func() (uint64, error)
	}{
		{"guest call", func() (uint64, error) { return in.Call(fnAdd, 1, 2) }},
		{"guest call with a host call", func() (uint64, error) { return in.Call(fnHost, 1) }},
	} {
		n := testing.AllocsPerRun(1000, func() {
			if _, err := tc.call(); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", tc.name, n)
		}
	}
}
