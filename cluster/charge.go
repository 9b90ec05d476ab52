package cluster

import (
	"time"

	"sidecar/cluster/host"
	"sidecar/cluster/load"
)

// Response is what the router charges a cluster with.
type Response struct {
	Code int
	// Internal says that the request came from an internal address, Canary that the response is of a
	// canary (x-envoy-upstream-canary, or the host is one).
	Internal, Canary bool
}

// ChargeCode counts a response, or a local reply that stands for one, by code, and by who asked and
// who answered (CodeStatsImpl::chargeResponseStat). h is the host that answered or was tried, nil if
// none was: its successes and errors are counted too.
func (c *Cluster) ChargeCode(r Response, h *host.Host) {
	tr := c.traffic.Get()
	tr.Rq.Inc(r.Code)
	if r.Canary {
		tr.RqCanary.Inc(r.Code)
	}
	if r.Internal {
		tr.RqInternal.Inc(r.Code)
	} else {
		tr.RqExternal.Inc(r.Code)
	}
	if h == nil {
		return
	}
	if r.Code >= 500 && r.Code < 600 {
		h.Counters().RqError.Inc()
	} else {
		h.Counters().RqSuccess.Inc()
	}
}

// ChargeTime records the time from the end of the request to the end of the response
// (CodeStatsImpl::chargeResponseTiming).
func (c *Cluster) ChargeTime(r Response, d time.Duration) {
	ms := uint64(max(0, d.Milliseconds()))
	tr := c.traffic.Get()
	tr.Time.Record(ms)
	if r.Canary {
		tr.TimeCanary.Record(ms)
	}
	if r.Internal {
		tr.TimeInt.Record(ms)
	} else {
		tr.TimeExt.Record(ms)
	}
}

// ChargeTimeout counts a request that timed out on a host.
func (c *Cluster) ChargeTimeout(h *host.Host) {
	if h != nil {
		h.Counters().RqTimeout.Inc()
	}
}

// TakeRetry asks the circuit breaker, or the retry budget, for one more active retry. Each true is
// given back by GiveRetry when the retried request has ended or its back-off was given up; a false is
// the router's upstream_rq_retry_overflow.
func (c *Cluster) TakeRetry(p load.Priority) bool { return c.use().breakers.TakeRetry(p) }

// GiveRetry undoes TakeRetry.
func (c *Cluster) GiveRetry(p load.Priority) { c.use().breakers.GiveRetry(p) }
