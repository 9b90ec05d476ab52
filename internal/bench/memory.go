package main

import (
	"context"
	"fmt"
	"time"

	"sidecar/internal/bench/load"
	"sidecar/internal/task"
)

// settle is how long a proxy is left alone before its memory is read.
func (e *env) settle() time.Duration {
	if e.short {
		return time.Second
	}
	return 5 * time.Second
}

// settledRSS starts a proxy, leaves it alone, and reads its memory.
func (e *env) settledRSS(ctx context.Context, sp spec) (int64, error) {
	s, err := e.start(ctx, sp)
	if err != nil {
		return 0, err
	}
	defer s.stop()
	if err := task.Sleep(ctx, e.settle()); err != nil {
		return 0, err
	}
	u, err := s.proc.Usage()
	return u.RSS, err
}

func runIdle(ctx context.Context, e *env) error {
	ours, err := e.settledRSS(ctx, e.ours(shape{}))
	if err != nil {
		return err
	}
	e.note("sidecar: %.1f MB", megabytes(ours))
	if e.envoy == "" {
		return nil
	}
	theirs, err := e.settledRSS(ctx, e.theirs("envoy", shape{}))
	if err != nil {
		return err
	}
	e.note("envoy:   %.1f MB", megabytes(theirs))
	e.atMost("idle", "RSS, as a part of Envoy's", float64(ours)/float64(theirs), "", "", 0.5)
	return nil
}

// runIdleConnections reads the memory of HTTP connections that have done one request.
func runIdleConnections(ctx context.Context, e *env) error {
	n, err := e.manyConnections(5000)
	if err != nil {
		return err
	}
	request := load.Request(benchPath)
	var perConn []float64
	for _, sp := range e.againstEnvoy()[:1+btoi(e.envoy != "")] {
		s, err := e.start(ctx, sp)
		if err != nil {
			return err
		}
		before, err := s.proc.Usage()
		if err != nil {
			s.stop()
			return err
		}
		conns, err := load.Hold(s.httpAddress(), n, request, 1024)
		if err == nil {
			err = task.Sleep(ctx, e.settle())
		}
		after, usageErr := s.proc.Usage()
		load.CloseAll(conns)
		s.stop()
		if err != nil || usageErr != nil {
			return fmt.Errorf("%s: %w %w", sp.name, err, usageErr)
		}
		kb := float64(after.RSS-before.RSS) / 1024 / float64(n)
		e.note("%s: %d connections, %.1f KB each", sp.name, n, kb)
		perConn = append(perConn, kb)
	}
	if len(perConn) == 2 {
		e.atMost("idle-connections", "RSS a connection, as a part of Envoy's", perConn[0]/perConn[1],
			"", "", 1)
	}
	return nil
}

func runClusters(ctx context.Context, e *env) error {
	n := 5000
	if e.short {
		n = 500
	}
	specs := []func(shape) spec{e.ours}
	if e.envoy != "" {
		specs = append(specs, func(s shape) spec { return e.theirs("envoy", s) })
	}
	for i, sp := range specs {
		base, err := e.settledRSS(ctx, sp(shape{}))
		if err != nil {
			return err
		}
		full, err := e.settledRSS(ctx, sp(shape{clusters: n}))
		if err != nil {
			return err
		}
		kb := float64(full-base) / 1024 / float64(n)
		e.note("%s: %.1f MB with %d clusters, %.1f without: %.2f KB each", sp(shape{}).name,
			megabytes(full), n, megabytes(base), kb)
		if i == 0 {
			e.atMost("clusters", "RSS a cluster with two hosts and a virtual host", kb, "", "KB", 12)
		}
	}
	return nil
}

// runLeaks reads what a proxy holds before and after many connections have come and gone.
func runLeaks(ctx context.Context, e *env) error {
	sp := e.ours(shape{})
	if e.needPlugin() == nil {
		sp.shape.plugin, sp.shape.version = e.plugin, "v1"
	}
	s, err := e.start(ctx, sp)
	if err != nil {
		return err
	}
	defer s.stop()
	total := 10000
	if e.short {
		total = 1000
	}
	// Pools and lazily started goroutines are there after the first connections.
	if err := churn(s, 200); err != nil {
		return err
	}
	before, err := s.flushedHoldings(ctx)
	if err != nil {
		return err
	}
	if err := churn(s, total); err != nil {
		return err
	}
	after, err := s.settledHoldings(ctx, before)
	if err != nil {
		return err
	}
	e.note("before %s", before)
	e.note("after  %s", after)
	e.atMost("leaks", "descriptors left over", float64(after.fds-before.fds), "", "", 0)
	if before.hasGoroutines {
		e.atMost("leaks", "goroutines left over", after.goroutines-before.goroutines, "", "", 0)
	} else {
		e.note("no goroutine count: the proxy has no statistic server.go_goroutines")
	}
	e.atMost("leaks", "VMs left over", after.vms-before.vms, "", "", 0)
	e.atMost("leaks", "memfds left over", float64(after.memfds-before.memfds), "", "", 0)
	return nil
}

// churn opens n connections in batches, does a request or a round trip on each, and closes them.
func churn(s *subject, n int) error {
	request := load.Request(benchPath)
	const batch = 200
	for done := 0; done < n; done += batch {
		web, err := load.Hold(s.httpAddress(), batch/2, request, 1024)
		if err != nil {
			load.CloseAll(web)
			return err
		}
		tcp, err := load.Hold(s.tcpAddress(), batch/2, "x", 1)
		load.CloseAll(web)
		load.CloseAll(tcp)
		if err != nil {
			return err
		}
	}
	return nil
}
