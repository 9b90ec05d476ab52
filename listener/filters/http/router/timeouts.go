package router

import (
	"strconv"
	"time"

	"sidecar/api/header"
	"sidecar/internal/grpchttp"
	"sidecar/listener/route"
)

// timeouts are those of a request: of the route, overridden by what an internal client asks for in
// headers (FilterUtility::finalTimeout). 0 is none.
type timeouts struct {
	route      time.Duration
	perTry     time.Duration
	perTryIdle time.Duration
	// overrideGRPC says that grpc-timeout is set to the timeout that the upstream has.
	overrideGRPC bool
	keepExpected bool
}

func (x *timeouts) read(r *Filter) {
	*x = timeouts{}
	a, h := r.entry.Action, r.request
	if !a.HasMaxStreamDuration {
		x.route = a.Timeout
		if r.grpc && a.MaxGRPCTimeout != route.Unset {
			x.route, x.overrideGRPC = grpcTimeout(a, h), true
		}
	}
	if a.Retry != nil {
		x.perTry, x.perTryIdle = a.Retry.PerTryTimeout, a.Retry.PerTryIdleTimeout
	}
	if d, ok := msHeader(h, header.XEnvoyExpectedRqTimeoutMs); ok && r.cfg.respectExpected {
		x.route, x.keepExpected = d, true
	} else if d, ok := msHeader(h, header.XEnvoyUpstreamRqTimeoutMs); ok {
		x.route = d
		h.RemoveID(header.XEnvoyUpstreamRqTimeoutMs)
	}
	if d, ok := msHeader(h, header.XEnvoyUpstreamRqPerTryTimeoutMs); ok {
		x.perTry = d
		h.RemoveID(header.XEnvoyUpstreamRqPerTryTimeoutMs)
	}
	h.RemoveID(header.XEnvoyUpstreamRqTimeoutAltResponse)
	if x.route != 0 && x.perTry >= x.route {
		x.perTry = 0
	}
}

// announce tells the upstream how long it has (FilterUtility::setTimeoutHeaders).
func (x *timeouts) announce(r *Filter) {
	expected := x.perTry
	if expected == 0 {
		expected = x.route
	}
	if expected == 0 {
		return
	}
	var b [24]byte
	if !r.cfg.suppressHeaders {
		r.request.SetBytes(header.XEnvoyExpectedRqTimeoutMs, strconv.AppendInt(b[:0], expected.Milliseconds(), 10))
	}
	if x.overrideGRPC {
		r.request.SetBytes(header.GrpcTimeout, grpchttp.AppendTimeout(b[:0], expected))
	}
}

func grpcTimeout(a *route.Action, h *header.Map) time.Duration {
	d := grpchttp.Timeout(h.Value(header.GrpcTimeout))
	if a.GRPCTimeoutOffset > 0 && a.GRPCTimeoutOffset < d {
		d -= a.GRPCTimeoutOffset
	}
	if limit := a.MaxGRPCTimeout; limit != 0 && (d == 0 || d > limit) {
		d = limit
	}
	return d
}

func msHeader(h *header.Map, id header.ID) (time.Duration, bool) {
	v, ok := h.GetID(id)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil || n > uint64(1<<62/time.Millisecond) {
		return 0, false
	}
	return time.Duration(n) * time.Millisecond, true
}
