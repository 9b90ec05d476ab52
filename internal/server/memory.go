package server

import (
	"math"
	"net"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/api/stats"
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

// memoryCheck is how long a reading of the heap is good for, if the overload manager doesn't say.
const memoryCheck = 250 * time.Millisecond

// limits implements listener.Limits.
type limits struct {
	// Set by newLimits, never changed.
	maxConnections int64
	maxHeap        float64
	every          time.Duration
	pressure       *stats.Gauge // nil: the bootstrap monitors no heap

	next   atomic.Int64
	reject atomic.Bool
	admin  atomic.Int64 // open connections of the admin server
}

// newLimits takes what the overload manager of the bootstrap says, else a share of the container's
// memory.
//
// DIVERGES(overload-stop-accepting): stop_accepting_connections lets connections wait in the kernel in
// Envoy; here they are closed at once, as with reject_incoming_connections.
func newLimits(o bootstrap.Overload, scope *stats.Scope) *limits {
	l := &limits{maxConnections: int64(min(o.MaxDownstreamConnections, math.MaxInt64)), every: memoryCheck}
	share := o.RejectIncoming
	if share == 0 || (o.StopAccepting > 0 && o.StopAccepting < share) {
		share = o.StopAccepting
	}
	if o.MaxHeapBytes == 0 {
		l.maxHeap = float64(cgroupLimit()) * rejectShare
		return l
	}
	l.maxHeap, l.every = float64(o.MaxHeapBytes)*share, o.RefreshInterval
	l.pressure = scope.Gauge("overload.envoy.resource_monitors.fixed_heap.pressure")
	scope.Store().BeforeRead(func() {
		l.pressure.SetUint(heapInUse() * 100 / o.MaxHeapBytes)
	})
	return l
}

// MaxConnections implements listener.Limits. What the admin server has open counts too.
func (l *limits) MaxConnections() int64 {
	if l.maxConnections == 0 {
		return 0
	}
	return max(1, l.maxConnections-l.admin.Load())
}

// RejectConnections implements listener.Limits.
func (l *limits) RejectConnections() bool {
	if l.maxHeap == 0 {
		return false
	}
	now := time.Now().UnixNano()
	due := l.next.Load()
	if now >= due && l.next.CompareAndSwap(due, now+int64(l.every)) {
		l.reject.Store(float64(heapInUse()) > l.maxHeap)
	}
	return l.reject.Load()
}

// listener applies the limit of connections to the admin server's.
func (l *limits) listener(ln net.Listener, others func() int64, scope *stats.Scope) net.Listener {
	if l.maxConnections == 0 {
		return ln
	}
	return &limitedListener{
		Listener: ln, limits: l, others: others, overflow: scope.Counter("downstream_global_cx_overflow"),
	}
}

type limitedListener struct {
	net.Listener
	limits   *limits
	others   func() int64
	overflow *stats.Counter
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.limits.admin.Add(1)+l.others() <= l.limits.maxConnections {
			return &limitedConn{Conn: c, limits: l.limits}, nil
		}
		l.limits.admin.Add(-1)
		l.overflow.Inc()
		_ = c.Close()
	}
}

type limitedConn struct {
	net.Conn
	limits *limits
	once   sync.Once
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	c.once.Do(func() { c.limits.admin.Add(-1) })
	return c.Conn.Close()
}

// heapInUse is what the runtime holds from the system less what it has given back.
func heapInUse() uint64 {
	s := [2]metrics.Sample{
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(s[:])
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}

// releaseAfter is how long no configuration must have come before its garbage is given back.
const releaseAfter = 2 * time.Second

// configured notes that configuration has been taken in.
func (s *Server) configured() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// releaseWhenQuiet gives memory back some time after the start, and after later pushes.
func (s *Server) releaseWhenQuiet() {
	s.goes("release memory", func() {
		var quiet <-chan time.Time
		for {
			select {
			case <-s.changed:
				quiet = time.After(releaseAfter)
			case <-quiet:
				quiet = nil
				releaseMemory()
			case <-s.shutdown:
				return
			}
		}
	})
}
