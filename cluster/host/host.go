package host

import (
	"sync"
	"sync/atomic"

	"sidecar/api/stats"
	"sidecar/api/stream"
)

// Health is what the control plane says of a host.
type Health uint8

// The health states of EDS; Unhealthy, Draining and Timeout take no traffic outside panic.
const (
	Unknown Health = iota
	Healthy
	Unhealthy
	Draining
	Timeout
	Degraded
)

// String returns the name that the admin interface shows (eds_health_status).
func (h Health) String() string {
	return [...]string{"UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"}[h]
}

// Locality is where a host runs. Hosts of one locality share one value.
type Locality struct{ Region, Zone, SubZone string }

// Metadata is filter_metadata in the form that streams show it.
type Metadata = map[string]map[string]any

// Attributes are what an update may change of a host. They never change themselves and are shared
// between hosts that are alike, which most are.
type Attributes struct {
	Locality *Locality
	Metadata Metadata
	// LocalityMetadata is that of the host's locality.
	LocalityMetadata Metadata
	// Canary is the envoy.lb canary metadata, read for each response.
	Canary   bool
	Weight   uint32
	Priority uint32
	Health   Health
	// Check is how active health checks of the host differ from the others'; nil for most.
	Check *Check
}

// Check is an endpoint's health_check_config.
type Check struct {
	Addr     stream.Addr // zero: the host's own
	Port     uint16      // 0: the address's own
	Hostname string
	Disabled bool
}

// Host is one endpoint of a cluster.
type Host struct {
	hostname string // set by New, never changed
	addrs    atomic.Pointer[Addresses]
	attr     atomic.Pointer[Attributes]
	state    atomic.Pointer[state]
	flags    atomic.Uint32 // of Flag
}

// Addresses are where a host is. They never change themselves.
type Addresses struct {
	Addr stream.Addr
	// More are raced with the first when connecting (additional_addresses); nil for most.
	More []stream.Addr
}

// state is what only a host with traffic has.
type state struct {
	counters Counters
	mu       sync.Mutex // guards making pools, and removed
	pools    [PoolSlots]atomic.Pointer[Pool]
	watch    atomic.Pointer[any] // of outlier detection
	since    atomic.Int64        // when the host came up, for slow start; unix nanoseconds
	keyed    map[string]Pool     // guarded by mu; nil for most
	removed  bool
}

// Counters are a host's own statistics, shown by /clusters.
type Counters struct {
	CxConnectFail, CxTotal, RqError, RqSuccess, RqTimeout, RqTotal stats.Counter
	CxActive, RqActive, RqPendingActive                            stats.Gauge
}

// Pool is the connections of one priority to a host; the pool package implements it.
type Pool interface {
	// Drain closes idle connections, and each other one after its stream. A pool whose host was
	// removed still serves streams that were waiting, and keeps no connection after them.
	Drain(removed bool)
	// CloseRaw closes the raw connections of TCP proxies at once.
	CloseRaw()
	// Close ends all streams and connections at once.
	Close()
}

// New makes a host.
func New(addr stream.Addr, hostname string, more []stream.Addr, attr *Attributes) *Host {
	h := &Host{hostname: hostname}
	h.addrs.Store(&Addresses{addr, more})
	h.attr.Store(attr)
	return h
}

// Addr returns the address.
func (h *Host) Addr() stream.Addr { return h.addrs.Load().Addr }

// Addresses returns all addresses.
func (h *Host) Addresses() *Addresses { return h.addrs.Load() }

// SetAddresses moves the host: new connections go to the new address, others stay (LOGICAL_DNS).
func (h *Host) SetAddresses(a *Addresses) { h.addrs.Store(a) }

// Hostname returns the configured or resolved name, empty for none.
func (h *Host) Hostname() string { return h.hostname }

// Attr returns the current attributes.
func (h *Host) Attr() *Attributes { return h.attr.Load() }

// SetAttr replaces the attributes.
func (h *Host) SetAttr(a *Attributes) { h.attr.Store(a) }

func (h *Host) live() *state {
	if s := h.state.Load(); s != nil {
		return s
	}
	h.state.CompareAndSwap(nil, new(state))
	return h.state.Load()
}

// Counters returns the host's counters, allocated at the first call.
func (h *Host) Counters() *Counters { return &h.live().counters }

// PeekCounters returns the counters of a host that was used, else nil.
func (h *Host) PeekCounters() *Counters {
	if s := h.state.Load(); s != nil {
		return &s.counters
	}
	return nil
}

// Active returns the number of active requests, as least request compares them.
func (h *Host) Active() int64 {
	if s := h.state.Load(); s != nil {
		return s.counters.RqActive.Value()
	}
	return 0
}

// PoolSlots is how many pools a host has: one for each priority and HTTP version.
const PoolSlots = 4

// PeekPool returns the pool of a slot if it was made, else nil.
func (h *Host) PeekPool(slot int) Pool {
	if s := h.state.Load(); s != nil {
		if p := s.pools[slot].Load(); p != nil {
			return *p
		}
	}
	return nil
}

// Pool returns the pool of a slot, made by make at the first call.
func (h *Host) Pool(slot int, make func() Pool) Pool {
	s := h.live()
	if p := s.pools[slot].Load(); p != nil {
		return *p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pools[slot].Load(); p != nil {
		return *p
	}
	p := make()
	s.pools[slot].Store(&p)
	if s.removed {
		// A stream chose the host just before it was removed; its connection serves no other stream.
		p.Drain(true)
	}
	return p
}

// Drain drains the host's pools; removed says that the host has left its cluster, so that pools made
// by streams which chose it before are drained too.
func (h *Host) Drain(removed bool) {
	s := h.state.Load()
	if s == nil {
		if !removed {
			return
		}
		s = h.live()
	}
	s.mu.Lock()
	s.removed = s.removed || removed
	s.mu.Unlock()
	s.each(func(p Pool) { p.Drain(removed) })
}

// CloseRaw closes the connections of TCP proxies to the host at once.
func (h *Host) CloseRaw() {
	if s := h.state.Load(); s != nil {
		s.each(Pool.CloseRaw)
	}
}

// Close closes the host's pools at once.
func (h *Host) Close() {
	s := h.state.Load()
	if s == nil {
		return
	}
	s.each(Pool.Close)
}
