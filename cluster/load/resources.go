package load

import (
	"math"
	"sync/atomic"

	"sidecar/api/stats"
)

// Priority is a routing priority: each has circuit breakers and connection pools of its own.
type Priority uint8

// The routing priorities.
const (
	Default Priority = iota
	High
	priorities
)

// Limits are the thresholds of one priority. They never change and are shared between clusters that
// were configured alike.
type Limits struct {
	Connections, Pending, Requests, Retries uint32
	// Pools bounds the connection pools (max_connection_pools).
	Pools uint32
	// PerHost bounds the connections to each host (per_host_thresholds).
	PerHost uint32
	// BudgetPercent replaces Retries by a share of what is active, at least MinRetries, if HasBudget.
	BudgetPercent  float64
	MinRetries     uint32
	HasBudget      bool
	TrackRemaining bool
}

// DefaultLimits are Envoy's: 1024 connections, pending requests and requests, 3 retries.
func DefaultLimits() Limits {
	return Limits{Connections: 1024, Pending: 1024, Requests: 1024, Retries: 3, Pools: math.MaxUint32, PerHost: math.MaxUint32}
}

// Breakers are the circuit breakers of one cluster. Limits may be passed by a few when several
// goroutines take at the same time, as in Envoy between workers.
type Breakers struct {
	by [priorities]breaker
}

type breaker struct {
	limits    *Limits
	open      *Open
	remaining *Remaining

	cx, pending, rq, retry, pools atomic.Int64
}

// NewBreakers makes the breakers of a cluster; remaining holds the gauges of priorities that have
// track_remaining.
func NewBreakers(limits *[2]Limits, traffic *Traffic, remaining [2]*Remaining) *Breakers {
	b := &Breakers{}
	open := [priorities]*Open{&traffic.Default, &traffic.High}
	for p := range b.by {
		r := &b.by[p]
		r.open, r.remaining = open[p], remaining[p]
		r.limits = &limits[p]
		if r.remaining != nil {
			r.remaining.Cx.Set(int64(limits[p].Connections))
			r.remaining.Pending.Set(int64(limits[p].Pending))
			r.remaining.Rq.Set(int64(limits[p].Requests))
			r.remaining.CxPools.Set(int64(limits[p].Pools))
			r.remaining.Retries.Set(r.maxRetries())
		}
	}
	return b
}

// note updates the gauges after a count changed to n.
func (r *breaker) note(n int64, limit uint32, open *stats.Gauge, left func(*Remaining) *stats.Gauge) {
	if n >= int64(limit) {
		open.Set(1)
	} else if open.Value() != 0 {
		open.Set(0)
	}
	if r.remaining != nil {
		left(r.remaining).Set(max(0, int64(limit)-n))
	}
}

func leftCx(r *Remaining) *stats.Gauge      { return &r.Cx }
func leftPending(r *Remaining) *stats.Gauge { return &r.Pending }
func leftRq(r *Remaining) *stats.Gauge      { return &r.Rq }
func leftPools(r *Remaining) *stats.Gauge   { return &r.CxPools }
func leftRetries(r *Remaining) *stats.Gauge { return &r.Retries }

// LimitsPools tells whether the number of pools is limited at all.
func (b *Breakers) LimitsPools(p Priority) bool { return b.by[p].limits.Pools != math.MaxUint32 }

// MayPool tells whether another pool is within the limit.
func (b *Breakers) MayPool(p Priority) bool {
	r := &b.by[p]
	return r.pools.Load() < int64(r.limits.Pools)
}

// TakePool counts a connection pool, if the limit allows it.
func (b *Breakers) TakePool(p Priority) bool {
	if !b.MayPool(p) {
		return false
	}
	r := &b.by[p]
	r.note(r.pools.Add(1), r.limits.Pools, &r.open.CxPool, leftPools)
	return true
}

// GivePool undoes TakePool.
func (b *Breakers) GivePool(p Priority) {
	r := &b.by[p]
	r.note(r.pools.Add(-1), r.limits.Pools, &r.open.CxPool, leftPools)
}

// MayConnectHost tells whether a host with n connections may have another one.
func (b *Breakers) MayConnectHost(p Priority, n int64) bool {
	return n < int64(b.by[p].limits.PerHost)
}

// MayConnect tells whether another connection is within the limit.
func (b *Breakers) MayConnect(p Priority) bool {
	r := &b.by[p]
	return r.cx.Load() < int64(r.limits.Connections)
}

// Connection counts a connection in (1) or out (-1).
func (b *Breakers) Connection(p Priority, n int64) {
	r := &b.by[p]
	r.note(r.cx.Add(n), r.limits.Connections, &r.open.Cx, leftCx)
}

// TakePending counts a request that waits for a connection, if the limit allows it.
func (b *Breakers) TakePending(p Priority) bool {
	r := &b.by[p]
	if r.pending.Load() >= int64(r.limits.Pending) {
		return false
	}
	r.note(r.pending.Add(1), r.limits.Pending, &r.open.Pending, leftPending)
	return true
}

// GivePending undoes TakePending.
func (b *Breakers) GivePending(p Priority) {
	r := &b.by[p]
	r.note(r.pending.Add(-1), r.limits.Pending, &r.open.Pending, leftPending)
}

// TakeRequest counts an active request, if the limit allows it.
func (b *Breakers) TakeRequest(p Priority) bool {
	r := &b.by[p]
	n := r.rq.Load()
	if n >= int64(r.limits.Requests) {
		return false
	}
	r.note(r.rq.Add(1), r.limits.Requests, &r.open.Rq, leftRq)
	return true
}

// GiveRequest undoes TakeRequest.
func (b *Breakers) GiveRequest(p Priority) {
	r := &b.by[p]
	r.note(r.rq.Add(-1), r.limits.Requests, &r.open.Rq, leftRq)
}

// maxRetries works out how many retries may be active now. With a budget it is a share of the
// requests that are active or pending (ResourceManagerImpl::RetryBudgetImpl::max).
func (r *breaker) maxRetries() int64 {
	if !r.limits.HasBudget {
		return int64(r.limits.Retries)
	}
	active := float64(r.rq.Load() + r.pending.Load())
	return max(int64(r.limits.BudgetPercent/100*active), int64(r.limits.MinRetries))
}

// TakeRetry counts an active retry, if the limit or the budget allows it. It does not count the
// refusal: Envoy's router does (upstream_rq_retry_overflow).
func (b *Breakers) TakeRetry(p Priority) bool {
	r := &b.by[p]
	if r.retry.Load() >= r.maxRetries() {
		return false
	}
	r.noteRetry(r.retry.Add(1))
	return true
}

// GiveRetry undoes TakeRetry: when the retried request has ended or its back-off was given up.
func (b *Breakers) GiveRetry(p Priority) {
	r := &b.by[p]
	r.noteRetry(r.retry.Add(-1))
}

func (r *breaker) noteRetry(n int64) {
	limit := uint32(min(r.maxRetries(), math.MaxUint32))
	r.note(n, limit, &r.open.Retry, leftRetries)
}

// ForceRequest counts an active request whatever the limit says.
func (b *Breakers) ForceRequest(p Priority) {
	r := &b.by[p]
	r.note(r.rq.Add(1), r.limits.Requests, &r.open.Rq, leftRq)
}
