package lb_test

import (
	"testing"

	"sidecar/cluster/host"
	"sidecar/cluster/lb"
)

// TestPreviousPriorities: with the first attempts at hosts of a priority, the next goes to another, and
// anywhere again when all were tried.
func TestPreviousPriorities(t *testing.T) {
	t.Parallel()
	first, second, sick := up(0, 1, 1), up(10, 1), down(20, 1)
	s := set(
		host.Spec{Hosts: first, Priority: 0}, host.Spec{Hosts: second, Priority: 1}, host.Spec{Hosts: sick, Priority: 2},
	)
	for name, c := range map[string]struct {
		tried     []*host.Host
		frequency int
		want      []*host.Host
	}{
		"none tried":            {nil, 1, first},
		"off":                   {first, 0, first},
		"one tried":             {first[:1], 1, second},
		"not looked at yet":     {first[:1], 2, first},
		"looked at":             {first, 2, second},
		"between two looks":     {join(first, second), 2, second},
		"all that can be tried": {join(first[:1], second), 1, first},
		"and again":             {join(first[:1], second, first[:1]), 1, second},
		"a host that has gone":  {up(50, 1), 1, first},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := lb.New(&lb.Config{PanicThreshold: 50}, lb.Env{Random: source(1)})
			for range 50 {
				ctx := lb.Context{Previous: lb.Previous{Attempted: c.tried, Frequency: c.frequency}}
				h, _ := b.Pick(s, &ctx)
				ok := false
				for _, w := range c.want {
					ok = ok || w == h
				}
				if !ok {
					t.Fatalf("picked %v", h.Addr())
				}
			}
		})
	}
}
