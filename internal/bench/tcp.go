package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"sidecar/internal/bench/load"
)

const metricTrip = "CPU us/round trip"

func runTCP(ctx context.Context, e *env) error {
	specs := e.againstEnvoy()
	subjects, err := e.startAll(ctx, specs...)
	if err != nil {
		return err
	}
	defer stopAll(subjects)
	measure := func(s *subject) (sample, error) { return e.pingPong(ctx, s, e.length()) }
	if _, err := alternate(subjects, 1, measure); err != nil { // warm-up
		return err
	}
	data, err := alternate(subjects, e.rounds, measure)
	if err != nil {
		return err
	}
	e.compareCPU("tcp", metricTrip, specs, data, 1)
	return nil
}

func (e *env) pingPong(ctx context.Context, s *subject, d time.Duration) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	before, err := s.proc.CPU()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	trips, err := load.PingPong(ctx, s.tcpAddress(), benchConns, 64)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	took := time.Since(start)
	after, err := s.proc.Usage()
	if err != nil {
		return nil, err
	}
	if trips == 0 {
		return nil, fmt.Errorf("%s: no round trip", s.name)
	}
	return sample{
		metricTrip:      float64((after.CPU - before).Microseconds()) / float64(trips),
		"round trips/s": float64(trips) / took.Seconds(),
		metricRSS:       megabytes(after.RSS),
	}, nil
}

// runTCPBulk has no target of its own yet; it is where a design for small messages loses.
func runTCPBulk(ctx context.Context, e *env) error {
	specs := e.againstEnvoy()
	subjects, err := e.startAll(ctx, specs...)
	if err != nil {
		return err
	}
	defer stopAll(subjects)
	each := int64(256 << 20)
	if e.short {
		each = 16 << 20
	}
	const conns, metric = 4, "CPU ms/GB"
	measure := func(s *subject) (sample, error) {
		before, err := s.proc.CPU()
		if err != nil {
			return nil, err
		}
		start := time.Now()
		if err := load.Bulk(s.tcpAddress(), conns, each); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		took := time.Since(start)
		after, err := s.proc.Usage()
		if err != nil {
			return nil, err
		}
		gb := float64(2*conns*each) / 1e9
		return sample{
			metric:    milliseconds(after.CPU-before) / gb,
			"GB/s":    gb / took.Seconds(),
			metricRSS: megabytes(after.RSS),
		}, nil
	}
	data, err := alternate(subjects, min(e.rounds, 3), measure)
	if err != nil {
		return err
	}
	e.compareCPU("tcp-bulk", metric, specs, data, 1)
	return nil
}

// runConnections opens many connections through the TCP proxy at once.
func runConnections(ctx context.Context, e *env) error {
	n, err := e.manyConnections(10000)
	if err != nil {
		return err
	}
	for i, sp := range e.againstEnvoy()[:1+btoi(e.envoy != "")] {
		s, err := e.start(ctx, sp)
		if err != nil {
			return err
		}
		err = e.holdConnections(s, n, i == 0)
		s.stop()
		if err != nil {
			return err
		}
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (e *env) holdConnections(s *subject, n int, ours bool) error {
	idle, err := s.proc.Usage()
	if err != nil {
		return err
	}
	conns, err := load.Hold(s.tcpAddress(), n, "x", 1)
	defer load.CloseAll(conns)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	full, err := s.proc.Usage()
	if err != nil {
		return err
	}
	e.note("%s: %d connections: %d descriptors, %d threads, %.1f KB of RSS each", s.name, n, full.FDs,
		full.Threads, float64(full.RSS-idle.RSS)/1024/float64(n))
	if ours {
		e.atMost("connections", fmt.Sprintf("descriptors for %d connections, scaled to 10,000", n),
			float64(full.FDs-idle.FDs)*10000/float64(n)+float64(idle.FDs), "", "", 25000)
	}
	return nil
}

// manyConnections returns how many connections this machine's limit of open files lets a proxy have:
// two descriptors each, and some to spare.
func (e *env) manyConnections(want int) (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	n := min(want, (int(min(limit.Max, 1<<20))-1000)/2)
	if n < want {
		e.note("only %d connections: the limit of open files is %d", n, limit.Max)
	}
	if e.short {
		n = min(n, 1000)
	}
	return n, nil
}
