package main

import (
	"context"
	"fmt"
	"time"
)

// holdings is what a process may fail to give back.
type holdings struct {
	fds, maps, memfds, threads int
	rss                        int64
	goroutines, vms            float64
	hasGoroutines              bool
}

func (h holdings) String() string {
	return fmt.Sprintf("%d descriptors, %d memfds, %d mappings, %d threads, %.0f goroutines, %.0f VMs, %.1f MB",
		h.fds, h.memfds, h.maps, h.threads, h.goroutines, h.vms, megabytes(h.rss))
}

// vmStats counts live VMs, under Envoy's name for them.
const vmStats = "^wasm%5C.envoy%5C.wasm%5C.runtime%5C..*active$"

func (s *subject) holdings(ctx context.Context) (holdings, error) {
	u, err := s.proc.Usage()
	if err != nil {
		return holdings{}, err
	}
	h := holdings{fds: u.FDs, maps: u.Maps, memfds: u.MemFDs, threads: u.Threads, rss: u.RSS}
	h.goroutines, h.hasGoroutines = s.goStat(ctx, "goroutines")
	h.vms, _ = s.statSum(ctx, vmStats)
	return h, nil
}

// settledHoldings waits for a process to give back what it had, for a few seconds at most.
func (s *subject) settledHoldings(ctx context.Context, before holdings) (holdings, error) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		h, err := s.holdings(ctx)
		if err != nil {
			return h, err
		}
		back := h.fds <= before.fds && h.goroutines <= before.goroutines && h.vms <= before.vms &&
			h.memfds <= before.memfds
		if back || time.Now().After(deadline) {
			return h, nil
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return h, err
		}
	}
}
