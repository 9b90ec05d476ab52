package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const benchConns = 32

// warm runs the load once without counting it.
func (e *env) warm(ctx context.Context, subjects []*subject) error {
	for _, s := range subjects {
		if _, err := s.wrk(ctx, benchConns, max(time.Second, e.length()/2)); err != nil {
			return err
		}
	}
	return nil
}

// wrkRounds starts the specs and measures them in turn with wrk.
func (e *env) wrkRounds(ctx context.Context, n int, specs ...spec) (rounds, error) {
	if err := e.needWrk(); err != nil {
		return nil, err
	}
	subjects, err := e.startAll(ctx, specs...)
	if err != nil {
		return nil, err
	}
	defer stopAll(subjects)
	if err := e.warm(ctx, subjects); err != nil {
		return nil, err
	}
	return alternate(subjects, n, func(s *subject) (sample, error) {
		return s.wrk(ctx, benchConns, e.length())
	})
}

// againstEnvoy is the specs of a bench that compares: ours, Envoy, and Envoy again as the noise.
func (e *env) againstEnvoy() []spec {
	var s shape
	if e.envoy == "" {
		return []spec{e.ours(s)}
	}
	return []spec{e.ours(s), e.theirs("envoy", s), e.theirs("envoy again", s)}
}

func names(specs []spec) []string {
	out := make([]string, len(specs))
	for i, s := range specs {
		out[i] = s.name
	}
	return out
}

// compareCPU prints the table and the ratio of CPU to Envoy's.
func (e *env) compareCPU(bench, metric string, specs []spec, data rounds, target float64) {
	e.table(bench, names(specs), data)
	if e.envoy == "" {
		return
	}
	noise := data.ratio("envoy again", "envoy", metric)
	e.note("noise: Envoy against itself %s", noise)
	r := data.ratio("sidecar", "envoy", metric)
	e.atMost(bench, metric+", as a part of Envoy's", r.median(), r.String(), "", target)
}

func runHTTP1(ctx context.Context, e *env) error {
	specs := e.againstEnvoy()
	data, err := e.wrkRounds(ctx, e.rounds, specs...)
	if err != nil {
		return err
	}
	e.compareCPU("http1", metricCPU, specs, data, 1.0/3)
	return nil
}

func runConcurrency(ctx context.Context, e *env) error {
	one, two := e.ours(shape{}), e.ours(shape{})
	one.name, two.name = "concurrency 1", "concurrency 2"
	two.concurrency = 2
	data, err := e.wrkRounds(ctx, e.rounds, one, two)
	if err != nil {
		return err
	}
	e.table("concurrency", []string{one.name, two.name}, data)
	r := data.ratio(two.name, one.name, metricCPU)
	e.atMost("concurrency", "CPU a request with two workers, as a part of one's", r.median(),
		r.String(), "", 1.15)
	return nil
}

// runAllocations counts heap objects from the proxy's own statistics.
func runAllocations(ctx context.Context, e *env) error {
	if err := e.needWrk(); err != nil {
		return err
	}
	const want = 200000
	s, err := e.start(ctx, e.ours(shape{}))
	if err != nil {
		return err
	}
	defer s.stop()
	if _, ok := s.goStat(ctx, "mallocs"); !ok {
		return fmt.Errorf("%w: the proxy has no statistic server.go_mallocs", errSkip)
	}
	if err := e.warm(ctx, []*subject{s}); err != nil {
		return err
	}
	before, ok := s.goStat(ctx, "mallocs")
	if !ok {
		return errors.New("server.go_mallocs is gone")
	}
	var requests int64
	for requests < want {
		l, err := runWrk(ctx, e.wrkPath, "http://"+s.httpAddress()+benchPath, benchConns, e.length())
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
	e.atMost("allocations", "heap objects a request", (after-before)/float64(requests), "", "", 0.05)
	return nil
}
