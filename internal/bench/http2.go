package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/internal/bench/load"
	"sidecar/internal/bench/upstream"
	"sidecar/internal/task"
)

// eightByEight is h2load's arguments for 8 connections of 8 streams.
func eightByEight(more ...string) []string { return append([]string{"-c8", "-m8"}, more...) }

// shaped is againstEnvoy with another shape.
func (e *env) shaped(s shape) []spec {
	specs := e.againstEnvoy()
	for i := range specs {
		specs[i].shape = s
	}
	return specs
}

func runHTTP2(ctx context.Context, e *env) error {
	specs := e.shaped(shape{service: serviceHTTP2})
	data, err := e.h2loadRounds(ctx, specs, "http", eightByEight()...)
	if err != nil {
		return err
	}
	e.compareCPU("http2", metricCPU, specs, data, 0.3)
	return nil
}

// grpcMessage writes the body of a request: one message of 100 bytes with its prefix.
func (e *env) grpcMessage() (string, error) {
	path := filepath.Join(e.dir, "message")
	return path, os.WriteFile(path, append([]byte{0, 0, 0, 0, 100}, make([]byte, 100)...), 0o600)
}

func runGRPC(ctx context.Context, e *env) error {
	message, err := e.grpcMessage()
	if err != nil {
		return err
	}
	specs := e.shaped(shape{service: serviceHTTP2})
	data, err := e.h2loadRounds(ctx, specs, "http",
		eightByEight("-d", message, "-H", "content-type: application/grpc", "-H", "te: trailers")...)
	if err != nil {
		return err
	}
	e.compareCPU("grpc", metricCPU, specs, data, 0.4)
	return nil
}

// runHTTP2Allocations counts heap objects from the proxy's own statistics.
func runHTTP2Allocations(ctx context.Context, e *env) error {
	if e.h2load == "" {
		return fmt.Errorf("%w: no h2load", errSkip)
	}
	s, err := e.start(ctx, e.ours(shape{service: serviceHTTP2}))
	if err != nil {
		return err
	}
	defer s.stop()
	url := "http://" + s.httpAddress() + benchPath
	if _, err := runH2load(ctx, e.h2load, url, time.Second, eightByEight()...); err != nil {
		return err
	}
	before, ok := s.goStat(ctx, "mallocs")
	if !ok {
		return fmt.Errorf("%w: the proxy has no statistic server.go_mallocs", errSkip)
	}
	var requests int64
	for requests < 200000 {
		l, err := runH2load(ctx, e.h2load, url, e.length(), eightByEight()...)
		if err != nil {
			return err
		}
		requests += l.requests
		if e.short {
			break
		}
	}
	after, ok := s.goStat(ctx, "mallocs")
	if !ok {
		return errors.New("server.go_mallocs is gone")
	}
	e.note("%d requests, %.0f objects", requests, after-before)
	e.atMost("http2-allocations", "heap objects a request", (after-before)/float64(requests), "", "", 0.1)
	return nil
}

const (
	metricBulk = "CPU ms/GB"
	metricWall = "wall s"
	metricGrow = "RSS growth MB"
)

// runGRPCBulk moves much, on many streams and on one.
func runGRPCBulk(ctx context.Context, e *env) error {
	parts := []struct {
		name    string
		streams int
		each    int64
		grow    float64
	}{{"grpc-bulk 50 streams", 50, 16 << 20, 40}, {"grpc-bulk one stream", 1, 1 << 30, 8}}
	for _, p := range parts {
		if e.short {
			p.each /= 16
		}
		specs := e.shaped(shape{service: serviceGRPC})
		subjects, err := e.startAll(ctx, specs...)
		if err != nil {
			return err
		}
		data, err := alternate(subjects, min(e.rounds, 3), func(s *subject) (sample, error) {
			return s.bulkGRPC(ctx, p.streams, p.each)
		})
		stopAll(subjects)
		if err != nil {
			return err
		}
		e.compareCPU(p.name, metricBulk, specs, data, 1)
		e.atMost(p.name, metricGrow, data.series("sidecar", metricGrow).median(),
			data.series("sidecar", metricGrow).String(), "MB", p.grow)
		if e.envoy == "" {
			continue
		}
		wall := data.ratio("sidecar", "envoy", metricWall)
		e.atMost(p.name, "wall time, as a part of Envoy's", wall.median(), wall.String(), "", 1)
	}
	return nil
}

func (s *subject) bulkGRPC(ctx context.Context, streams int, size int64) (sample, error) {
	before, err := s.proc.Usage()
	if err != nil {
		return nil, err
	}
	highest := watchRSS(ctx, s)
	start := time.Now()
	err = load.BulkGRPC(ctx, s.httpAddress(), streams, size)
	took := time.Since(start)
	peak := highest()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	after, err := s.proc.CPU()
	if err != nil {
		return nil, err
	}
	return sample{
		metricBulk: milliseconds(after-before.CPU) / (2 * float64(streams) * float64(size) / 1e9),
		metricWall: took.Seconds(),
		metricGrow: megabytes(peak - before.RSS),
	}, nil
}

// watchRSS samples the resident memory until the returned function is called, which gives the highest.
func watchRSS(ctx context.Context, s *subject) func() int64 {
	ctx, cancel := context.WithCancel(ctx)
	var highest atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for task.Sleep(ctx, 20*time.Millisecond) == nil {
			if u, err := s.proc.Usage(); err == nil {
				highest.Store(max(highest.Load(), u.RSS))
			}
		}
	})
	return func() int64 {
		cancel()
		wg.Wait()
		return highest.Load()
	}
}

// runStalled compares the others' p99 with and without two clients that never read, in pairs.
func runStalled(ctx context.Context, e *env) error {
	length := max(e.length(), time.Second)
	for i, sp := range e.shaped(shape{service: serviceSizes})[:1+btoi(e.envoy != "")] {
		s, err := e.start(ctx, sp)
		if err != nil {
			return err
		}
		ratios, err := s.stalledPairs(ctx, e.rounds, length)
		s.stop()
		if err != nil {
			return fmt.Errorf("%s: %w", sp.name, err)
		}
		e.note("%s: p99 with stalled clients, as a part of that without: %s", sp.name, ratios)
		if i == 0 {
			e.atMost("stalled", "the others' p99, as a part of that without", ratios.median(),
				ratios.String(), "", 1.2)
		}
	}
	return nil
}

func (s *subject) stalledPairs(ctx context.Context, pairs int, length time.Duration) (series, error) {
	paced := func() (time.Duration, error) {
		ctx, cancel := context.WithTimeout(ctx, length)
		defer cancel()
		took, err := load.Paced(ctx, s.httpAddress(), benchPath, 100, 50*time.Millisecond)
		if err != nil {
			return 0, err
		}
		if len(took) == 0 {
			return 0, errors.New("no answer")
		}
		return took[len(took)*99/100], nil
	}
	if _, err := paced(); err != nil { // warm-up
		return nil, err
	}
	var out series
	for range pairs {
		without, err := paced()
		if err != nil {
			return nil, err
		}
		conns, err := load.Stall(s.httpAddress(), upstream.PathSize+"67108864")
		if err == nil {
			// Time for the two to fill whatever they fill.
			err = task.Sleep(ctx, 300*time.Millisecond)
		}
		var with time.Duration
		if err == nil {
			with, err = paced()
		}
		load.CloseAll(conns)
		if err != nil {
			return nil, err
		}
		out = append(out, float64(with)/float64(without))
	}
	return out, nil
}
