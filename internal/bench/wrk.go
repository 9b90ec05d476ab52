package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// wrkResult is what wrk reports.
type wrkResult struct {
	requests int64
	rate     float64
	p50, p99 time.Duration
}

var (
	wrkRequests = regexp.MustCompile(`(?m)^\s*(\d+) requests in`)
	wrkRate     = regexp.MustCompile(`(?m)^Requests/sec:\s*([0-9.]+)`)
	wrkLatency  = regexp.MustCompile(`(?m)^\s*(50|99)%\s+([0-9.]+)(us|ms|s|m)\s*$`)
	wrkErrors   = regexp.MustCompile(`(?m)^\s*(Non-2xx or 3xx responses|Socket errors):.*$`)
)

// runWrk drives url as fast as it answers. Any answer but 2xx and any broken connection is an error.
func runWrk(ctx context.Context, wrk, url string, conns int, d time.Duration) (wrkResult, error) {
	cmd := exec.CommandContext(ctx, wrk, "-t1", "-c"+strconv.Itoa(conns), "--latency",
		"-d"+strconv.FormatFloat(d.Seconds(), 'f', 0, 64)+"s", "-H", "Host: bench.test", url)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return wrkResult{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	return parseWrk(string(out))
}

func parseWrk(out string) (wrkResult, error) {
	if m := wrkErrors.FindString(out); m != "" {
		return wrkResult{}, fmt.Errorf("wrk: %s", strings.TrimSpace(m))
	}
	var l wrkResult
	m := wrkRequests.FindStringSubmatch(out)
	rate := wrkRate.FindStringSubmatch(out)
	if m == nil || rate == nil {
		return wrkResult{}, fmt.Errorf("wrk: unexpected output %q", out)
	}
	var err error
	if l.requests, err = strconv.ParseInt(m[1], 10, 64); err != nil {
		return wrkResult{}, err
	}
	if l.rate, err = strconv.ParseFloat(rate[1], 64); err != nil {
		return wrkResult{}, err
	}
	for _, m := range wrkLatency.FindAllStringSubmatch(out, -1) {
		d, err := time.ParseDuration(m[2] + m[3])
		if err != nil {
			return wrkResult{}, err
		}
		if m[1] == "50" {
			l.p50 = d
		} else {
			l.p99 = d
		}
	}
	if l.requests == 0 {
		return wrkResult{}, fmt.Errorf("wrk: no request was answered: %s", out)
	}
	return l, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
