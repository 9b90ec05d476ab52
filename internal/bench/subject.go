package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"sidecar/internal/peer/process"
)

// spec is a proxy to be started for a bench.
type spec struct {
	name        string
	binary      string
	concurrency int
	shape       shape
}

// subject is a running proxy.
type subject struct {
	spec

	proc  *process.Process
	ports ports
	dir   string
	env   *env

	behind *subject // another proxy, whose time counts too
}

func (e *env) start(ctx context.Context, sp spec) (*subject, error) {
	var last error
	// A port that was free may be taken by the time the proxy binds it.
	for range 3 {
		s, err := e.startOnce(ctx, sp)
		if err == nil {
			return s, nil
		}
		if last = err; !strings.Contains(err.Error(), "in use") {
			break
		}
	}
	return nil, last
}

func (e *env) startOnce(ctx context.Context, sp spec) (*subject, error) {
	free, err := process.FreePorts(3)
	if err != nil {
		return nil, err
	}
	s := &subject{spec: sp, ports: ports{admin: free[0], http: free[1], tcp: free[2]}, env: e}
	if s.dir, err = os.MkdirTemp(e.dir, "proxy-"); err != nil {
		return nil, err
	}
	config, err := sp.shape.build(s.ports, s.dir, e.up.upstreamPorts)
	if err != nil {
		return nil, err
	}
	if sp.shape.ecds {
		if err := s.writeECDS(sp.shape.version); err != nil {
			return nil, err
		}
	}
	if sp.shape.secrets {
		if err := s.writeSecret(sp.shape.certs.server); err != nil {
			return nil, err
		}
	}
	s.proc, err = process.Start(ctx, process.Options{
		Name: "proxy", Binary: sp.binary, Config: config, AdminPort: s.ports.admin,
		Concurrency: sp.concurrency, Dir: s.dir, StartWithin: 60 * time.Second,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", sp.name, err)
	}
	return s, nil
}

// writeECDS replaces the plugin's file.
func (s *subject) writeECDS(version string) error {
	data, err := s.shape.ecdsFile(version)
	if err != nil {
		return err
	}
	return replaceFile(s.dir+"/ecds.yaml", data)
}

// replaceFile moves the new content into place, which is what watchers look for.
func replaceFile(path string, data []byte) error {
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// stop ends the proxy at once: how it drains is no bench's matter.
func (s *subject) stop() {
	s.proc.Kill()
	_ = os.RemoveAll(s.dir)
}

func stopAll(subjects []*subject) {
	for _, s := range subjects {
		s.stop()
	}
}

func (e *env) startAll(ctx context.Context, specs ...spec) ([]*subject, error) {
	var out []*subject
	for _, sp := range specs {
		s, err := e.start(ctx, sp)
		if err != nil {
			stopAll(out)
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func (s *subject) httpAddress() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports.http))
}

func (s *subject) tcpAddress() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.ports.tcp))
}

// wrk loads the proxy for d and accounts for it.
func (s *subject) wrk(ctx context.Context, conns int, d time.Duration) (sample, error) {
	url := "http://" + s.httpAddress() + benchPath
	before, err := s.proc.CPU()
	if err != nil {
		return nil, err
	}
	l, err := runWrk(ctx, s.env.wrkPath, url, conns, d)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	after, err := s.proc.Usage()
	if err != nil {
		return nil, err
	}
	return sample{
		metricCPU:  float64((after.CPU - before).Microseconds()) / float64(l.requests),
		metricRate: l.rate,
		metricP50:  milliseconds(l.p50),
		metricP99:  milliseconds(l.p99),
		metricRSS:  megabytes(after.RSS),
	}, nil
}

func megabytes(n int64) float64 { return float64(n) / (1 << 20) }

// goStat reads one of our own runtime statistics; Envoy has none.
func (s *subject) goStat(ctx context.Context, name string) (float64, bool) {
	return s.stat(ctx, "server.go_"+name)
}

// stat reads one statistic by its exact name.
func (s *subject) stat(ctx context.Context, name string) (float64, bool) {
	pattern := "^" + strings.ReplaceAll(name, ".", "%5C.") + "$"
	body, err := s.proc.Get(ctx, "/stats?filter="+pattern)
	if err != nil {
		return 0, false
	}
	_, value, ok := strings.Cut(strings.TrimSpace(body), ": ")
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseFloat(value, 64)
	return v, err == nil
}

// statSum adds up the statistics that match a pattern (a URL-escaped regular expression).
func (s *subject) statSum(ctx context.Context, pattern string) (sum float64) {
	body, err := s.proc.Get(ctx, "/stats?filter="+pattern)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(body) {
		i := strings.LastIndex(line, ": ")
		if i < 0 {
			continue
		}
		if v, err := strconv.ParseFloat(strings.TrimSpace(line[i+2:]), 64); err == nil {
			sum += v
		}
	}
	return sum
}

// alternate measures each subject in turn, round after round, and starts each round with another.
func alternate(subjects []*subject, n int, measure func(*subject) (sample, error)) (rounds, error) {
	out := rounds{}
	for r := range n {
		for i := range subjects {
			s := subjects[(i+r)%len(subjects)]
			v, err := measure(s)
			if err != nil {
				return nil, err
			}
			if !s.proc.Alive() {
				return nil, fmt.Errorf("%s died: %s", s.name, s.proc.LogTail(1000))
			}
			out[s.name] = append(out[s.name], v)
		}
	}
	return out, nil
}
