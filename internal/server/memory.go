package server

import (
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sidecar/xds/bootstrap"
)

// gcPercent lets the heap grow threefold between collections: the live heap is configuration and
// small, and collections cost latency first (datapath.md §6).
const gcPercent = 300

// setMemory sets the collector, unless the environment does (GOGC, GOMEMLIMIT).
func setMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		if limit := cgroupLimit(); limit > 0 {
			debug.SetMemoryLimit(limit / 10 * 9)
		}
	}
}

// cgroupLimit is the memory limit of the container, 0 for none.
func cgroupLimit() int64 {
	for _, f := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err == nil && n > 0 && n < math.MaxInt64/2 {
			return n
		}
	}
	return 0
}

// rejectShare is the share of the container's memory above which new connections are refused, if the
// overload manager of the bootstrap says nothing else: better than to be killed with all of them.
const rejectShare = 0.95

// memoryCheck is how long a reading of the heap is good for.
const memoryCheck = 250 * time.Millisecond

// limits implements listener.Limits.
type limits struct {
	maxConnections int64
	maxHeap        float64
	next           atomic.Int64
	reject         atomic.Bool
}

func newLimits(o bootstrap.Overload) *limits {
	l := &limits{maxConnections: int64(min(o.MaxDownstreamConnections, math.MaxInt64))}
	switch {
	case o.MaxHeapBytes > 0 && o.RejectIncoming > 0:
		l.maxHeap = float64(o.MaxHeapBytes) * o.RejectIncoming
	case o.MaxHeapBytes > 0 && o.StopAccepting > 0:
		l.maxHeap = float64(o.MaxHeapBytes) * o.StopAccepting
	default:
		l.maxHeap = float64(cgroupLimit()) * rejectShare
	}
	return l
}

// MaxConnections implements listener.Limits.
func (l *limits) MaxConnections() int64 { return l.maxConnections }

// RejectConnections implements listener.Limits.
func (l *limits) RejectConnections() bool {
	if l.maxHeap == 0 {
		return false
	}
	now := time.Now().UnixNano()
	due := l.next.Load()
	if now >= due && l.next.CompareAndSwap(due, now+int64(memoryCheck)) {
		l.reject.Store(float64(heapInUse()) > l.maxHeap)
	}
	return l.reject.Load()
}

// heapInUse is what the runtime holds from the system less what it has given back.
func heapInUse() uint64 {
	s := [2]metrics.Sample{
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(s[:])
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}
