package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/internal/bench/load"
	"sidecar/internal/task"
)

// identities makes the certificates of one bench.
func (e *env) identities() (*identities, error) { return newIdentities(e.dir) }

func runTLSHTTP1(ctx context.Context, e *env) error {
	ids, err := e.identities()
	if err != nil {
		return err
	}
	specs := e.shaped(shape{security: secured, certs: ids})
	data, err := e.h2loadRounds(ctx, specs, "https", "--h1", "-c32", "-H", "host: "+benchHost)
	if err != nil {
		return err
	}
	e.compareCPU("tls-http1", metricCPU, specs, data, 1.0/3)
	return nil
}

const metricHandshake = "CPU us/handshake"

func runHandshakes(ctx context.Context, e *env) error {
	ids, err := e.identities()
	if err != nil {
		return err
	}
	c, err := ids.clientConfig("http/1.1", false)
	if err != nil {
		return err
	}
	specs := e.shaped(shape{security: secured, certs: ids})
	subjects, err := e.startAll(ctx, specs...)
	if err != nil {
		return err
	}
	defer stopAll(subjects)
	measure := func(resume bool) func(s *subject) (sample, error) {
		return func(s *subject) (sample, error) { return s.handshakes(ctx, c, resume) }
	}
	if _, err := alternate(subjects, 1, measure(false)); err != nil { // warm-up
		return err
	}
	full, err := alternate(subjects, e.rounds, measure(false))
	if err != nil {
		return err
	}
	e.compareCPU("handshakes full", metricHandshake, specs, full, 1.3)
	resumed, err := alternate(subjects, e.rounds, measure(true))
	if err != nil {
		return err
	}
	e.table("handshakes resumed", names(specs), resumed)
	var parts series
	for i, v := range resumed.series("sidecar", metricHandshake) {
		parts = append(parts, v/full.series("sidecar", metricHandshake)[i])
	}
	e.atMost("handshakes resumed", metricHandshake+", as a part of a full one's", parts.median(),
		parts.String(), "", 0.5)
	return nil
}

func (s *subject) handshakes(ctx context.Context, c *tls.Config, resume bool) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, s.env.length())
	defer cancel()
	before, err := s.proc.CPU()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	n, err := load.Handshakes(ctx, s.httpAddress(), 8, c, resume)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	took := time.Since(start)
	after, err := s.proc.CPU()
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fmt.Errorf("%s: no handshake", s.name)
	}
	return sample{
		metricHandshake: float64((after - before).Microseconds()) / float64(n),
		"handshakes/s":  float64(n) / took.Seconds(),
	}, nil
}

// runMutual sends HTTP/2 through a proxy to another of the same kind, over mutual TLS.
func runMutual(ctx context.Context, e *env) error {
	if e.h2load == "" {
		return fmt.Errorf("%w: no h2load", errSkip)
	}
	ids, err := e.identities()
	if err != nil {
		return err
	}
	specs := e.shaped(shape{service: serviceHTTP2, security: mutual, certs: ids})
	backs, err := e.startAll(ctx, specs...)
	if err != nil {
		return err
	}
	defer stopAll(backs)
	fronts := make([]*subject, 0, len(specs))
	defer func() { stopAll(fronts) }()
	for i, sp := range specs {
		sp.shape = shape{peer: backs[i].ports.http, certs: ids}
		s, err := e.start(ctx, sp)
		if err != nil {
			return err
		}
		s.behind = backs[i]
		fronts = append(fronts, s)
	}
	measure := func(s *subject) (sample, error) {
		return s.h2load(ctx, "http", e.length(), eightByEight()...)
	}
	if _, err := alternate(fronts, 1, measure); err != nil { // warm-up
		return err
	}
	data, err := alternate(fronts, e.rounds, measure)
	if err != nil {
		return err
	}
	e.compareCPU("mtls", metricCPU, specs, data, 0.5)
	return nil
}

// runIdleHTTP2 reads the memory of HTTP/2 connections that have done one request a minute ago.
func runIdleHTTP2(ctx context.Context, e *env) error {
	n, err := e.manyConnections(10000)
	if err != nil {
		return err
	}
	ids, err := e.identities()
	if err != nil {
		return err
	}
	withCertificate, err := ids.clientConfig("h2", true)
	if err != nil {
		return err
	}
	kinds := []struct {
		name   string
		shape  shape
		config *tls.Config
		target float64
	}{
		{"plaintext", shape{service: serviceHTTP2}, nil, 10},
		{"mutual TLS", shape{service: serviceHTTP2, security: mutual, certs: ids}, withCertificate, 24},
	}
	wait := time.Minute
	if e.short {
		wait = 2 * time.Second
	}
	for _, k := range kinds {
		for i, sp := range e.shaped(k.shape)[:1+btoi(e.envoy != "")] {
			kb, err := e.idleHTTP2(ctx, sp, n, k.config, wait)
			if err != nil {
				return fmt.Errorf("%s: %w", sp.name, err)
			}
			e.note("%s: %d idle connections, %s: %.1f KB each", sp.name, n, k.name, kb)
			if i == 0 {
				e.atMost("idle-http2", "RSS a connection, "+k.name, kb, "", "KB", k.target)
			}
		}
	}
	return nil
}

func (e *env) idleHTTP2(ctx context.Context, sp spec, n int, c *tls.Config, wait time.Duration) (float64, error) {
	s, err := e.start(ctx, sp)
	if err != nil {
		return 0, err
	}
	defer s.stop()
	before, err := s.proc.Usage()
	if err != nil {
		return 0, err
	}
	conns, err := load.HoldHTTP2(s.httpAddress(), n, c, benchPath)
	defer load.CloseAll(conns)
	if err != nil {
		return 0, err
	}
	if err := task.Sleep(ctx, wait); err != nil {
		return 0, err
	}
	after, err := s.proc.Usage()
	return float64(after.RSS-before.RSS) / 1024 / float64(n), err
}

// runRotation replaces the certificate under load; each connection does a few requests and ends.
func runRotation(ctx context.Context, e *env) error {
	ids, err := e.identities()
	if err != nil {
		return err
	}
	total := time.Minute
	if e.short {
		total = 3 * time.Second
	}
	for i, sp := range e.shaped(shape{security: secured, secrets: true, certs: ids})[:1+btoi(e.envoy != "")] {
		if i > 0 && !e.short {
			total = 10 * time.Second // Envoy is there to show that the load is right
		}
		r := &rotationRun{ids: ids, serials: map[string]int{}}
		if err := r.run(ctx, e, sp, total); err != nil {
			return fmt.Errorf("%s: %w", sp.name, err)
		}
		e.note("%s: %d requests, %d rotations, %d certificates seen, %d failures", sp.name,
			r.requests.Load(), r.rotations, len(r.serials), len(r.errs))
		for j, err := range r.errs {
			if j < 5 {
				e.note("failure: %v", err)
			}
		}
		if i == 0 {
			e.atMost("rotation", "failed requests", float64(len(r.errs)), "", "", 0)
			e.atLeast("rotation", "certificates seen, of each rotation",
				float64(len(r.serials))/float64(max(1, r.rotations)), 0.8)
		}
	}
	return nil
}

type rotationRun struct {
	ids       *identities
	requests  atomic.Int64
	rotations int

	mu      sync.Mutex // guards below
	serials map[string]int
	errs    []error
}

func (r *rotationRun) run(ctx context.Context, e *env, sp spec, total time.Duration) error {
	c, err := r.ids.clientConfig("http/1.1", false)
	if err != nil {
		return err
	}
	s, err := e.start(ctx, sp)
	if err != nil {
		return err
	}
	defer s.stop()
	loadCtx, cancel := context.WithTimeout(ctx, total)
	defer cancel()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for loadCtx.Err() == nil {
				if err := r.connection(s.httpAddress(), c); err != nil {
					r.mu.Lock()
					r.errs = append(r.errs, err)
					r.mu.Unlock()
					return
				}
			}
		})
	}
	defer wg.Wait()
	for task.Sleep(loadCtx, time.Second) == nil {
		id, err := r.ids.issue(benchHost)
		if err != nil {
			return err
		}
		if err := s.writeSecret(id); err != nil {
			return err
		}
		r.rotations++
	}
	return ctx.Err()
}

func (r *rotationRun) connection(address string, c *tls.Config) error {
	client, serial, err := load.DialTLS(address, c)
	if err != nil {
		return err
	}
	defer client.Close()
	r.mu.Lock()
	r.serials[serial]++
	r.mu.Unlock()
	request := load.Request(benchPath)
	for range 50 {
		resp, err := client.Do(request, 10*time.Second)
		if err != nil {
			return err
		}
		if resp.Status != 200 || resp.Close {
			return errors.New("status " + strconv.Itoa(resp.Status))
		}
		r.requests.Add(1)
	}
	return nil
}
