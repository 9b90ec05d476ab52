package server

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"sidecar/api/stats"
	"sidecar/internal/task"
)

// serverStats are "server.".
type serverStats struct {
	Live             stats.Gauge     `stat:"live"`
	State            stats.Gauge     `stat:"state"`
	Uptime           stats.Gauge     `stat:"uptime"`
	Concurrency      stats.Gauge     `stat:"concurrency"`
	MemoryAllocated  stats.Gauge     `stat:"memory_allocated"`
	MemoryHeap       stats.Gauge     `stat:"memory_heap_size"`
	MemoryPhysical   stats.Gauge     `stat:"memory_physical_size"`
	TotalConnections stats.Gauge     `stat:"total_connections"`
	ParentConns      stats.Gauge     `stat:"parent_connections"`
	HotRestartEpoch  stats.Gauge     `stat:"hot_restart_epoch"`
	Version          stats.Gauge     `stat:"version"`
	DaysToExpiry     stats.Gauge     `stat:"days_until_first_cert_expiring"`
	OCSPExpiry       stats.Gauge     `stat:"seconds_until_first_ocsp_response_expiring"`
	FIPS             stats.Gauge     `stat:"compilation_settings.fips_mode"`
	RecentLookups    stats.Gauge     `stat:"stats_recent_lookups"`
	InitTime         stats.Histogram `stat:"initialization_time_ms,ms"`
	StaticUnknown    stats.Counter   `stat:"static_unknown_fields"`
	DynamicUnknown   stats.Counter   `stat:"dynamic_unknown_fields"`
	DroppedFlushes   stats.Counter   `stat:"dropped_stat_flushes"`
	DebugAssertions  stats.Counter   `stat:"debug_assertion_failures"`
	EnvoyBug         stats.Counter   `stat:"envoy_bug_failures"`
	Notifications    stats.Counter   `stat:"envoy_notifications"`
	WIPProtos        stats.Counter   `stat:"wip_protos"`
	// Ours: what leak checks and the allocation budget read.
	GoMallocs    stats.Gauge `stat:"go_mallocs"`
	GoGoroutines stats.Gauge `stat:"go_goroutines"`
}

// noCertificate is what days_until_first_cert_expiring shows without a certificate.
const noCertificate = 1<<32 - 1

// setStats sets what doesn't change while the process lives.
func (s *Server) setStats() {
	s.stats.Concurrency.Set(int64(s.opts.Concurrency))
	s.stats.Version.Set(versionNumber(s.opts.Version))
	s.stats.DaysToExpiry.Set(noCertificate)
	s.stats.StaticUnknown.Add(uint64(s.boot.UnknownFields))
}

// versionNumber is the first six digits of the revision that a version begins with, as in Envoy; 0
// for a build without one.
func versionNumber(version string) int64 {
	version = strings.TrimSpace(version)
	if len(version) < 6 {
		return 0
	}
	n, err := strconv.ParseInt(version[:6], 16, 64)
	if err != nil {
		return 0
	}
	return n
}

func (s *Server) setState(st State) { s.state.Store(int32(st)) }

// refreshStats sets the gauges that are only worth reading when somebody looks.
func (s *Server) refreshStats() {
	s.stats.Uptime.Set(int64(time.Since(s.started).Seconds()))
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.stats.MemoryAllocated.SetUint(m.HeapAlloc)
	s.stats.MemoryHeap.SetUint(m.HeapSys)
	s.stats.GoMallocs.SetUint(m.Mallocs)
	s.stats.GoGoroutines.Set(int64(runtime.NumGoroutine()))
	s.stats.MemoryPhysical.Set(residentBytes())
	s.stats.DaysToExpiry.Set(s.daysToExpiry())
	s.stats.TotalConnections.Set(s.listeners.Connections())
	s.stats.State.Set(int64(s.State()))
	live := int64(1)
	if s.draining.HealthCheckFailed() {
		live = 0
	}
	s.stats.Live.Set(live)
}

// flushStats merges the histograms every so often, until the process ends; without an interval the
// admin server does it.
func (s *Server) flushStats() {
	interval := s.boot.Stats.FlushInterval
	if interval <= 0 {
		return
	}
	s.goes("flush stats", func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.store.Flush()
				s.places.flush()
			case <-s.shutdown:
				return
			}
		}
	})
}

// goes runs f on a goroutine that close waits for. f returns soon after shutdown is closed.
func (s *Server) goes(name string, f func()) {
	s.wg.Add(1)
	task.Go(name, func() {
		defer s.wg.Done()
		f()
	}, func(p *task.Panic) { s.log.Error(p.Error()) })
}

// residentBytes is the resident size of the process.
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
