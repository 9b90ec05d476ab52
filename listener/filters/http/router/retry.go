package router

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/host"
	"sidecar/cluster/lb"
	"sidecar/listener/route"
)

// Envoy's back-off where the policy sets none.
const (
	defaultBaseInterval = 25 * time.Millisecond
	maxIntervalFactor   = 10
)

// retryState is what is left of the retry policy for a request (RetryStateImpl).
type retryState struct {
	on        route.RetryOn
	remaining uint32
	policy    *route.RetryPolicy
	codes     []uint32 // of x-envoy-retriable-status-codes
	tried     []*host.Host
	count     uint32
	holding   bool // a retry is accounted for in the cluster's breaker
	limited   bool // the retries are used up
	overflown bool // the breaker refused one
}

func (x *retryState) enabled() bool { return x.on != 0 && x.remaining > 0 }

// giveUp ends all retries, since the request can't be sent again.
func (x *retryState) giveUp() { x.on = 0 }

// read takes the route's policy and what the request's headers ask for, and removes those.
func (x *retryState) read(r *Filter) {
	tried := x.tried[:0]
	*x = retryState{policy: r.entry.Action.Retry, tried: tried}
	h := r.request
	if p := x.policy; p != nil {
		x.on, x.remaining = p.On, p.NumRetries
		if len(p.RequestHeaders) > 0 && !anyMatches(p, h) {
			x.on = 0
			return
		}
	}
	asked := false
	for _, id := range [...]header.ID{header.XEnvoyRetryOn, header.XEnvoyRetryGrpcOn} {
		if v, ok := h.GetID(id); ok {
			on, _ := route.ParseRetryOn(v)
			x.on |= on
			asked = true
			h.RemoveID(id)
		}
	}
	if asked && x.policy == nil {
		x.remaining = 1
	}
	if v, ok := h.GetID(header.XEnvoyMaxRetries); ok {
		if n, err := strconv.ParseUint(v, 10, 32); err == nil && x.on != 0 {
			x.remaining = uint32(n)
		}
		h.RemoveID(header.XEnvoyMaxRetries)
	}
	if v, ok := h.GetID(header.XEnvoyRetriableStatusCodes); ok {
		for s := range strings.SplitSeq(v, ",") {
			if n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 32); err == nil {
				x.codes = append(x.codes, uint32(n))
			}
		}
		h.RemoveID(header.XEnvoyRetriableStatusCodes)
	}
}

func anyMatches(p *route.RetryPolicy, h *header.Map) bool {
	for i := range p.RequestHeaders {
		if p.RequestHeaders[i].Match(h) {
			return true
		}
	}
	return false
}

// context tells the choice of a host what was tried.
func (x *retryState) context(c *cluster.Context) {
	p := x.policy
	if p == nil || len(x.tried) == 0 {
		return
	}
	if p.PreviousHosts {
		c.Tried = x.tried
	}
	c.OmitCanary, c.OmitMetadata = p.OmitCanary, p.OmitMetadata
	if p.PreviousHosts || p.OmitCanary || p.OmitMetadata != nil {
		c.MaxAttempts = int(p.HostSelectionAttempts)
	}
	if p.PreviousPriorities > 0 {
		c.Previous = lb.Previous{Attempted: x.tried, Frequency: int(p.PreviousPriorities)}
	}
}

func (x *retryState) exhausted() stream.Flag {
	switch {
	case x.limited:
		return stream.UpstreamRetryLimitExceeded
	case x.overflown:
		return stream.UpstreamOverflow
	}
	return 0
}

// take takes one of the remaining retries, if the breaker allows it.
func (x *retryState) take(r *Filter) bool {
	if x.remaining == 0 {
		x.limited = true
		r.cluster.Traffic().RqRetryLimit.Inc()
		r.eachGroup(func(g *groupStats) { g.RetryLimit.Inc() })
		return false
	}
	if !r.ended || r.bodyLost || r.s.Committed() {
		return false
	}
	x.remaining--
	x.release(r)
	if !r.cluster.TakeRetry(r.ctx.Priority) {
		x.overflown = true
		r.cluster.Traffic().RqRetryOverflow.Inc()
		r.eachGroup(func(g *groupStats) { g.RetryOverflow.Inc() })
		return false
	}
	x.holding = true
	if h := r.attempt.Host; h != nil {
		x.tried = append(x.tried, h)
	}
	return true
}

// release ends the accounting of a retry.
func (x *retryState) release(r *Filter) {
	if x.holding {
		x.holding = false
		r.cluster.GiveRetry(r.ctx.Priority)
	}
}

// retryResponse repeats the request if the policy finds the response worth it.
func (r *Filter) retryResponse(t *stream.Turn, status int, h *header.Map, end bool) bool {
	x := &r.retry
	if x.on == 0 {
		return false
	}
	if !x.wantsStatus(status, h) {
		if x.count > 0 && status < 500 {
			r.cluster.Traffic().RqRetrySuccess.Inc()
			r.eachGroup(func(g *groupStats) { g.RetrySuccess.Inc() })
		}
		return false
	}
	if !x.take(r) {
		r.info.Flags |= x.exhausted()
		return false
	}
	r.cluster.Traffic().RqRetried.Inc(status)
	if end {
		r.sentEnd = true
	}
	r.abandonAttempt(t, end)
	r.backoff(t, h)
	return true
}

// abandonAttempt lets go of an attempt whose response is not wanted; its connection can be used again
// if the response was complete.
func (r *Filter) abandonAttempt(t *stream.Turn, complete bool) {
	done := r.done
	r.done = complete
	r.abandon(t)
	r.done = done
	r.s.Arm(t, deadlineTry, 0)
	r.s.Arm(t, deadlineTryIdle, 0)
}

func (x *retryState) wantsStatus(status int, h *header.Map) bool {
	if h.Has(header.XEnvoyOverloaded) {
		return false
	}
	if h.Has(header.XEnvoyRateLimited) {
		return x.on&route.RetryEnvoyRateLimited != 0
	}
	switch {
	case x.on&route.Retry5xx != 0 && status >= 500 && status < 600:
		return true
	case x.on&route.RetryGatewayError != 0 && status >= 502 && status <= 504:
		return true
	case x.on&route.RetryRetriable4xx != 0 && status == 409:
		return true
	case x.on&route.RetryRetriableStatusCodes != 0 && x.listed(status):
		return true
	case x.on&route.RetryRetriableHeaders != 0 && x.retriableHeader(h):
		return true
	}
	return x.wantsGRPC(h)
}

func (x *retryState) listed(status int) bool {
	return slices.Contains(x.codes, uint32(status)) ||
		x.policy != nil && slices.Contains(x.policy.StatusCodes, uint32(status))
}

func (x *retryState) retriableHeader(h *header.Map) bool {
	if x.policy == nil {
		return false
	}
	for i := range x.policy.ResponseHeaders {
		if x.policy.ResponseHeaders[i].Match(h) {
			return true
		}
	}
	return false
}

// grpcRetries maps the gRPC status codes that can be retried on.
//
//nolint:gochecknoglobals // immutable table
var grpcRetries = map[string]route.RetryOn{
	"1": route.RetryGRPCCancelled, "4": route.RetryGRPCDeadlineExceeded,
	"8": route.RetryGRPCResourceExhausted, "13": route.RetryGRPCInternal,
	"14": route.RetryGRPCUnavailable,
}

const anyGRPC = route.RetryGRPCCancelled | route.RetryGRPCDeadlineExceeded | route.RetryGRPCInternal |
	route.RetryGRPCResourceExhausted | route.RetryGRPCUnavailable

func (x *retryState) wantsGRPC(h *header.Map) bool {
	if x.on&anyGRPC == 0 {
		return false
	}
	v, ok := h.GetID(header.GrpcStatus)
	return ok && x.on&grpcRetries[v] != 0
}

// resetCase is how an attempt ended without a response.
type resetCase uint8

const (
	resetOther resetCase = iota
	resetConnect
	resetRefused
	resetOverflow
	resetPerTry
	resetUnsent
)

func resetKind(f *stream.Fault, sent bool) resetCase {
	switch f.Reason {
	case stream.ReasonOverflow:
		return resetOverflow
	case stream.ReasonRemoteRefusedStream:
		return resetRefused
	case stream.ReasonLocalConnectionFailure, stream.ReasonRemoteConnectionFailure,
		stream.ReasonConnectionTimeout:
		return resetConnect
	}
	if !sent {
		return resetUnsent
	}
	return resetOther
}

// retryReset repeats the request after an attempt that gave no response, if the policy wants that.
func (r *Filter) retryReset(t *stream.Turn, kind resetCase, f *stream.Fault) bool {
	x := &r.retry
	if x.on == 0 || kind == resetOverflow {
		return false
	}
	wanted := x.on&(route.Retry5xx|route.RetryGatewayError|route.RetryReset) != 0
	switch kind {
	case resetConnect:
		wanted = wanted || x.on&(route.RetryConnectFailure|route.RetryResetBeforeRequest) != 0
	case resetRefused:
		wanted = wanted || x.on&route.RetryRefusedStream != 0
	case resetUnsent:
		wanted = wanted || x.on&route.RetryResetBeforeRequest != 0
	case resetOther, resetOverflow, resetPerTry:
	}
	if !wanted || !x.take(r) {
		return false
	}
	_ = f
	r.backoff(t, nil)
	return true
}

// backoff waits before the next attempt: fully jittered exponential, or as long as the response asks
// for (RetryStateImpl::enableBackoffTimer).
func (r *Filter) backoff(t *stream.Turn, h *header.Map) {
	x := &r.retry
	x.count++
	tr := r.cluster.Traffic()
	tr.RqRetry.Inc()
	r.eachGroup(func(g *groupStats) { g.Retry.Inc() })
	if d, ok := x.rateLimited(h, t.Now()); ok {
		tr.RqRetryBackoffRate.Inc()
		r.s.Arm(t, deadlineBackoff, max(d, time.Millisecond))
		return
	}
	tr.RqRetryBackoffExp.Inc()
	base, limit := defaultBaseInterval, time.Duration(0)
	if p := x.policy; p != nil {
		if p.BaseInterval > 0 {
			base = p.BaseInterval
		}
		limit = p.MaxInterval
	}
	if limit <= 0 {
		limit = maxIntervalFactor * base
	}
	d := base << min(x.count, 20)
	if x.count == 1 {
		d = base
	}
	wait := time.Duration(r.cfg.random() % uint64(max(d, 1)))
	r.s.Arm(t, deadlineBackoff, max(min(wait, limit), time.Microsecond))
}

// rateLimited reads from a response when to try again.
func (x *retryState) rateLimited(h *header.Map, now time.Time) (time.Duration, bool) {
	if h == nil || x.policy == nil || x.policy.RateLimited == nil {
		return 0, false
	}
	for _, rh := range x.policy.RateLimited.Headers {
		v, ok := h.Get(rh.Name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			continue
		}
		d := time.Duration(n) * time.Second
		if rh.UnixTime {
			d = time.Unix(n, 0).Sub(now)
		}
		if d >= 0 && d <= x.policy.RateLimited.MaxInterval {
			return d, true
		}
	}
	return 0, false
}
