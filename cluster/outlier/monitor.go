package outlier

import (
	"math"
	"sync/atomic"
	"time"

	"sidecar/cluster/host"
)

// Result is how a request, or a connection, to a host ended.
type Result uint8

// The results (Envoy's Upstream::Outlier::Result).
const (
	// RequestSuccess and RequestFailed are what the host answered.
	RequestSuccess Result = iota
	RequestFailed
	// Timeout and ConnectFailed began on our side.
	Timeout
	ConnectFailed
	// Connected is a connection over which a request follows; ConnectedFinal one over which nothing
	// does that could be judged (TCP).
	Connected
	ConnectedFinal
)

// code is what a result without a code of its own counts for; 0 for nothing.
func (r Result) code() int {
	return [...]int{
		RequestSuccess: 200, RequestFailed: 500, Timeout: 504, ConnectFailed: 503,
		Connected: 0, ConnectedFinal: 200,
	}[r]
}

// The origins of errors, for what is counted apart.
const (
	external = iota
	local
)

// monitor is what a detector knows of one host.
type monitor struct {
	// Set when it is made, never changed.
	host *host.Host

	// Moved by requests.
	failures5xx, failuresGateway, failuresLocal atomic.Uint32
	rates                                       [2]rate

	// Guarded by the detector's mutex.
	ejectedAt, degradedAt           time.Time
	jitter, degradedJitter          time.Duration
	backoff, degradedBackoff, times uint64
}

// rate counts the requests of an interval and those that succeeded.
type rate struct {
	total, success atomic.Uint64
	last           atomic.Uint64 // the bits of the percentage that /clusters shows
}

// unknownRate is the percentage of a host with too few requests.
const unknownRate = -1

func newMonitor(h *host.Host) *monitor {
	m := &monitor{host: h}
	for i := range m.rates {
		m.rates[i].show(unknownRate)
	}
	return m
}

func (r *rate) show(percent float64) { r.last.Store(math.Float64bits(percent)) }

func (r *rate) shown() float64 { return math.Float64frombits(r.last.Load()) }

// take ends an interval: it returns the percentage of success and the number of requests.
func (r *rate) take() (percent float64, volume uint64) {
	success, volume := r.success.Swap(0), r.total.Swap(0)
	if volume == 0 {
		return 0, 0
	}
	return min(100, float64(success)*100/float64(volume)), volume
}

// clearCounter resets a count of failures in a row. Most are 0 already: a request that succeeds must
// not write to what all processors read.
func clearCounter(c *atomic.Uint32) {
	if c.Load() != 0 {
		c.Store(0)
	}
}

// Rates returns the host's last percentages of success, negative where not known: of all requests or
// those that failed at the host, and of those that failed on our side.
func Rates(h *host.Host) (external, localOrigin float64) {
	m, ok := h.PeekWatch().(*monitor)
	if !ok {
		return unknownRate, unknownRate
	}
	return m.rates[0].shown(), m.rates[1].shown()
}
