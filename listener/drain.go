package listener

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/api/stats"
	"sidecar/internal/wire"
)

// DrainPolicy is how the process drains (--drain-time-s, --drain-strategy).
type DrainPolicy struct {
	Time      time.Duration
	Immediate bool
}

// Draining decides for connections whether to end: at once when it fails its health check, else with
// a chance that grows over the drain time (DrainManagerImpl::drainClose).
type Draining struct {
	policy DrainPolicy
	parent *Draining
	start  atomic.Int64 // unix nanoseconds; 0 is not draining
	// failed is POST /healthcheck/fail.
	failed atomic.Bool
	// modifyOnly is drain_type MODIFY_ONLY: a failed health check does not drain.
	modifyOnly bool
}

// NewDraining returns the state of the whole process.
func NewDraining(p DrainPolicy) *Draining { return &Draining{policy: p} }

// Begin starts the drain; a second call changes nothing.
func (d *Draining) Begin() { d.start.CompareAndSwap(0, time.Now().UnixNano()) }

// Active tells whether the drain has begun.
func (d *Draining) Active() bool { return d.start.Load() != 0 }

// FailHealthCheck makes every connection end with its next response, or stops that.
func (d *Draining) FailHealthCheck(on bool) { d.failed.Store(on) }

// HealthCheckFailed tells what FailHealthCheck was last called with.
func (d *Draining) HealthCheckFailed() bool { return d.failed.Load() }

// Draining implements filter.Drainer.
func (d *Draining) Draining(roll uint64) bool {
	for x := d; x != nil; x = x.parent {
		if x.failed.Load() && !d.modifyOnly || x.started(roll) {
			return true
		}
	}
	return false
}

// started tells whether a drain has come as far as roll.
func (d *Draining) started(roll uint64) bool {
	start := d.start.Load()
	if start == 0 {
		return false
	}
	if d.policy.Immediate || d.policy.Time <= 0 {
		return true
	}
	share := float64(time.Now().UnixNano()-start) / float64(d.policy.Time)
	return share >= 1 || float64(roll)/math.MaxUint64 < share
}

// connections are those of one filter chain.
type connections struct {
	mu     sync.Mutex
	open   map[*wire.Conn]struct{}
	closed bool
	empty  chan struct{} // closed when the last one ends; nil while nobody waits for that
}

func (c *connections) add(w *wire.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if c.open == nil {
		c.open = map[*wire.Conn]struct{}{}
	}
	c.open[w] = struct{}{}
	return true
}

func (c *connections) remove(w *wire.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, w)
	if len(c.open) == 0 && c.empty != nil {
		close(c.empty)
		c.empty = nil
	}
}

// ended returns nil if no connection is open, else a channel that is closed when the last one ends.
func (c *connections) ended() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) == 0 {
		return nil
	}
	if c.empty == nil {
		c.empty = make(chan struct{})
	}
	return c.empty
}

// closeAll ends what is left when the drain time is over.
func (c *connections) closeAll() {
	c.mu.Lock()
	c.closed = true
	list := make([]*wire.Conn, 0, len(c.open))
	for w := range c.open {
		list = append(list, w)
	}
	c.mu.Unlock()
	for _, w := range list {
		w.Close()
	}
}

// Stats are those of a listener, "listener.ADDR.".
//
// DIVERGES(worker_stats): there are no workers, so listener.ADDR.worker_N.* are not there.
type Stats struct {
	CxTotal             stats.Counter   `stat:"downstream_cx_total"`
	CxActive            stats.Gauge     `stat:"downstream_cx_active"`
	CxDestroy           stats.Counter   `stat:"downstream_cx_destroy"`
	CxOverflow          stats.Counter   `stat:"downstream_cx_overflow"`
	CxOverloadReject    stats.Counter   `stat:"downstream_cx_overload_reject"`
	CxConnectTimeout    stats.Counter   `stat:"downstream_cx_transport_socket_connect_timeout"`
	GlobalCxOverflow    stats.Counter   `stat:"downstream_global_cx_overflow"`
	PreCxActive         stats.Gauge     `stat:"downstream_pre_cx_active"`
	PreCxTimeout        stats.Counter   `stat:"downstream_pre_cx_timeout"`
	FilterRemoteClose   stats.Counter   `stat:"downstream_listener_filter_remote_close"`
	FilterError         stats.Counter   `stat:"downstream_listener_filter_error"`
	NoChain             stats.Counter   `stat:"no_filter_chain_match"`
	ConfigMissing       stats.Counter   `stat:"extension_config_missing"`
	NetConfigMissing    stats.Counter   `stat:"network_extension_config_missing"`
	ConnectionsAccepted stats.Histogram `stat:"connections_accepted_per_socket_event"`
	CxLength            stats.Histogram `stat:"downstream_cx_length_ms,ms"`
}

// ManagerStats are "listener_manager.".
type ManagerStats struct {
	Added          stats.Counter `stat:"listener_added"`
	Modified       stats.Counter `stat:"listener_modified"`
	Removed        stats.Counter `stat:"listener_removed"`
	Stopped        stats.Counter `stat:"listener_stopped"`
	InPlaceUpdated stats.Counter `stat:"listener_in_place_updated"`
	CreateSuccess  stats.Counter `stat:"listener_create_success"`
	CreateFailure  stats.Counter `stat:"listener_create_failure"`
	Active         stats.Gauge   `stat:"total_listeners_active"`
	Warming        stats.Gauge   `stat:"total_listeners_warming"`
	Draining       stats.Gauge   `stat:"total_listeners_draining"`
	ChainsDraining stats.Gauge   `stat:"total_filter_chains_draining"`
	WorkersStarted stats.Gauge   `stat:"workers_started"`
}
