package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// h2loadResult is what h2load reports.
type h2loadResult struct {
	requests int64
	rate     float64
	mean     time.Duration
}

var (
	h2loadRequests = regexp.MustCompile(`(?m)^requests: (\d+) total, \d+ started, (\d+) done, ` +
		`(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
	h2loadRate = regexp.MustCompile(`(?m)^finished in [^,]+, ([0-9.]+) req/s`)
	h2loadMean = regexp.MustCompile(`(?m)^time for request:\s+\S+\s+\S+\s+([0-9.]+)(us|ms|s)\s`)
)

// runH2load drives url as fast as it answers, for d. Any answer but 2xx and any broken connection is
// an error.
func runH2load(ctx context.Context, h2load, url string, d time.Duration, args ...string) (h2loadResult, error) {
	args = append(args, "-t1", "-D", strconv.FormatFloat(d.Seconds(), 'f', 0, 64), url)
	out, err := exec.CommandContext(ctx, h2load, args...).CombinedOutput()
	if err != nil {
		return h2loadResult{}, fmt.Errorf("h2load: %w: %s", err, out)
	}
	return parseH2load(string(out))
}

func parseH2load(out string) (h2loadResult, error) {
	m := h2loadRequests.FindStringSubmatch(out)
	rate := h2loadRate.FindStringSubmatch(out)
	mean := h2loadMean.FindStringSubmatch(out)
	if m == nil || rate == nil || mean == nil {
		return h2loadResult{}, fmt.Errorf("h2load: unexpected output %q", out)
	}
	var counts [6]int64
	for i := range counts {
		var err error
		if counts[i], err = strconv.ParseInt(m[i+1], 10, 64); err != nil {
			return h2loadResult{}, err
		}
	}
	done, succeeded := counts[1], counts[2]
	if done == 0 || succeeded != done || counts[3]+counts[4]+counts[5] > 0 {
		return h2loadResult{}, fmt.Errorf("h2load: %s", m[0])
	}
	r := h2loadResult{requests: done}
	var err error
	if r.rate, err = strconv.ParseFloat(rate[1], 64); err != nil {
		return r, err
	}
	r.mean, err = time.ParseDuration(mean[1] + mean[2])
	return r, err
}

const metricMean = "mean ms"

// h2loadRounds starts the specs and measures them in turn with h2load.
func (e *env) h2loadRounds(ctx context.Context, specs []spec, scheme string, args ...string) (rounds, error) {
	if e.h2load == "" {
		return nil, fmt.Errorf("%w: no h2load", errSkip)
	}
	subjects, err := e.startAll(ctx, specs...)
	if err != nil {
		return nil, err
	}
	defer stopAll(subjects)
	measure := func(s *subject) (sample, error) { return s.h2load(ctx, scheme, e.length(), args...) }
	if _, err := alternate(subjects, 1, measure); err != nil { // warm-up
		return nil, err
	}
	return alternate(subjects, e.rounds, measure)
}

// h2load loads the proxy for d and accounts for it, and for the proxy behind it.
func (s *subject) h2load(ctx context.Context, scheme string, d time.Duration, args ...string) (sample, error) {
	before, err := s.cpu()
	if err != nil {
		return nil, err
	}
	l, err := runH2load(ctx, s.env.h2load, scheme+"://"+s.httpAddress()+benchPath, d, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	after, err := s.cpu()
	if err != nil {
		return nil, err
	}
	u, err := s.proc.Usage()
	if err != nil {
		return nil, err
	}
	return sample{
		metricCPU:  float64((after - before).Microseconds()) / float64(l.requests),
		metricRate: l.rate,
		metricMean: milliseconds(l.mean),
		metricRSS:  megabytes(u.RSS),
	}, nil
}

// cpu is the time of the proxy and of the one behind it.
func (s *subject) cpu() (time.Duration, error) {
	d, err := s.proc.CPU()
	if err != nil || s.behind == nil {
		return d, err
	}
	more, err := s.behind.proc.CPU()
	return d + more, err
}
