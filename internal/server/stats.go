package server

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

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
	if s.listeners != nil {
		s.stats.TotalConnections.Set(s.listeners.Connections())
	}
	if s.draining != nil {
		s.stats.State.Set(int64(s.State()))
	}
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
