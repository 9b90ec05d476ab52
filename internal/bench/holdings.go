package main

import (
	"context"
	"fmt"
	"time"

	"sidecar/internal/task"
)

// holdings is what a process may fail to give back.
type holdings struct {
	fds, maps, memfds, threads int
	rss                        int64
	// goroutines are those beside the ones that idle upstream connections have, one each.
	goroutines, vms float64
	hasGoroutines   bool
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
	h.goroutines -= s.statSum(ctx, poolStats)
	h.vms = s.statSum(ctx, vmStats)
	return h, nil
}

// poolStats counts upstream connections.
const poolStats = "^cluster%5C..*%5C.upstream_cx_active$"

// flushInterval is how old the gauges of the process may be: the default of stats_flush_interval.
const flushInterval = 5 * time.Second

// flushedHoldings are those after the process has written its gauges once more.
func (s *subject) flushedHoldings(ctx context.Context) (holdings, error) {
	if err := task.Sleep(ctx, flushInterval+500*time.Millisecond); err != nil {
		return holdings{}, err
	}
	return s.holdings(ctx)
}

// settledHoldings waits for a process to give back what it had, for a few seconds at most.
func (s *subject) settledHoldings(ctx context.Context, before holdings) (holdings, error) {
	deadline := time.Now().Add(3 * flushInterval)
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
		if err := task.Sleep(ctx, 100*time.Millisecond); err != nil {
			return h, err
		}
	}
}
