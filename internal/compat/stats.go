package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sidecar/internal/peer/process"
)

// statsPath asks for the statistics that requests and connections move.
const statsPath = "/stats?filter=^(http|cluster|listener|tcp|vhost|tls_inspector|http_inspector)%5C."

// volatileStats are left out: they belong to the check's own traffic, or depend on how long things
// took (a service time has one digit or two, which moves the bytes sent).
var volatileStats = regexp.MustCompile(`^(http|listener)\.(admin|fence)\.|` +
	`downstream_cx_tx_bytes_total$|_length_ms$|upstream_rq_time$|upstream_cx_connect_ms$|` +
	`\.worker_[0-9]+\.|^listener\.admin|^http\.admin`)

func readStats(ctx context.Context, p *process.Process, path string) (map[string]int64, error) {
	body, err := p.Get(ctx, path)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for line := range strings.Lines(body) {
		i := strings.LastIndex(line, ": ")
		if i < 0 {
			continue
		}
		// Histograms and text readouts don't parse as a number and are not compared.
		n, err := strconv.ParseInt(strings.TrimSpace(line[i+2:]), 10, 64)
		if err == nil && !volatileStats.MatchString(line[:i]) {
			out[line[:i]] = n
		}
	}
	return out, nil
}

// added returns what moved from before to after.
func added(before, after map[string]int64) map[string]int64 {
	out := map[string]int64{}
	for name, n := range after {
		if d := n - before[name]; d != 0 {
			out[name] = d
		}
	}
	return out
}

// dropCompressed leaves out what depends on how well a random id was compressed.
func dropCompressed(stats map[string]int64) {
	for name := range stats {
		if strings.HasSuffix(name, ".upstream_cx_tx_bytes_total") {
			delete(stats, name)
		}
	}
}

const (
	activePath   = "/stats?filter=(downstream|upstream)_cx_active$"
	quietWithin  = 3 * time.Second
	quietPollGap = 2 * time.Millisecond
)

// quiesce waits until the proxy holds no connection of the case any more, so that all its
// statistics and log lines are final.
func quiesce(ctx context.Context, p *process.Process) error {
	deadline := time.Now().Add(quietWithin)
	for {
		active, err := readStats(ctx, p, activePath)
		if err != nil {
			return err
		}
		busy := ""
		for name, n := range active {
			if n != 0 {
				busy = fmt.Sprintf("%s is %d", name, n)
			}
		}
		if busy == "" {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("connections are left %s after the case: %s", quietWithin, busy)
		}
		time.Sleep(quietPollGap)
	}
}
