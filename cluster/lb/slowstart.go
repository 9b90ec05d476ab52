package lb

import (
	"math"
	"time"

	"sidecar/cluster/host"
)

// SlowStart raises the weight of hosts that have just come up to its full value over a time. It never
// changes.
type SlowStart struct {
	Window time.Duration
	// Aggression is how fast it rises: 1 in proportion to the time.
	Aggression float64
	// MinWeight is what a host begins with, of 1.
	MinWeight float64
}

// factor is the part of its weight that a host has by now (EdfLoadBalancerBase::applySlowStartFactor).
func (s *SlowStart) factor(h *host.Host, now time.Time) float64 {
	since := h.Since()
	if since.IsZero() || h.Condition() != host.Up {
		return 1
	}
	up := now.Sub(since).Truncate(time.Millisecond)
	if up >= s.Window {
		return 1
	}
	part := float64(max(time.Millisecond, up)) / float64(s.Window)
	if s.Aggression != 1 {
		part = math.Pow(part, 1/s.Aggression)
	}
	return max(part, s.MinWeight)
}

// begin notes when hosts have come up, of which nobody else knows better, and tells whether one of them
// has not its full weight yet.
func (s *SlowStart) begin(hosts []*host.Host, now time.Time) (slow bool) {
	for _, h := range hosts {
		if h.Condition() != host.Up {
			continue
		}
		if h.Since().IsZero() {
			h.SetSince(now)
		}
		slow = slow || now.Sub(h.Since()) <= s.Window
	}
	return slow
}
