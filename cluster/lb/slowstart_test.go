package lb_test

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"sidecar/cluster/host"
	"sidecar/cluster/lb"
)

// TestSlowStart: a host that comes later has a part of its weight that rises with the time.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	for _, policy := range []lb.Policy{lb.RoundRobin, lb.LeastRequest} {
		synctest.Test(t, func(t *testing.T) {
			b := lb.New(&lb.Config{
				Policy: policy, Choices: 2, ActiveBias: 1,
				SlowStart: &lb.SlowStart{Window: 10 * time.Second, Aggression: 1, MinWeight: 0.1},
			}, lb.Env{Random: rand.Uint64})
			hosts := hashHosts([]uint32{1, 1}, false)
			set := host.NewSet([]host.Spec{{Hosts: hosts[:1]}}, host.Policy{}, 1)
			b.Pick(set, &lb.Context{})
			time.Sleep(time.Minute)
			set = host.NewSet([]host.Spec{{Hosts: hosts}}, host.Policy{}, 2)
			share := func() (n int) {
				for range 1000 {
					if h, _ := b.Pick(set, &lb.Context{}); h == hosts[1] {
						n++
					}
				}
				return n
			}
			for _, tt := range []struct {
				wait     time.Duration
				low, top int
			}{{0, 80, 100}, {5 * time.Second, 320, 345}, {5 * time.Second, 495, 505}} {
				time.Sleep(tt.wait)
				if n := share(); n < tt.low || n > tt.top {
					t.Errorf("policy %d: %d of 1000", policy, n)
				}
			}
		})
	}
}
