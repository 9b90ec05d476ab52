package router

import (
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster/outlier"
	"sidecar/internal/grpchttp"
)

// judge tells outlier detection what a host has answered; of a call that has failed at once, its
// status (Router::Filter::onUpstreamHeaders).
func (r *Filter) judge(status int, h *header.Map) {
	if r.grpc {
		if v, ok := h.GetID(header.GrpcStatus); ok {
			status = grpchttp.HTTPFromStatus(v)
		}
	}
	result := outlier.RequestSuccess
	if status >= 500 {
		result = outlier.RequestFailed
	}
	r.attempt.Report(result, status)
	if h.Has(header.XEnvoyDegraded) {
		r.attempt.Degraded()
	}
	if h.Has(header.XEnvoyImmediateHealthCheckFail) {
		r.attempt.FailNow()
	}
}

// judgeTimeout tells of an attempt without an answer in time.
func (r *Filter) judgeTimeout() {
	if r.trying && !r.gotHead {
		r.attempt.Report(outlier.Timeout, 504)
	}
}

// judgeFailure tells of an attempt that was reset, or had no connection. What was turned away by a
// circuit breaker says nothing of the host, nor does what we ended ourselves.
func (r *Filter) judgeFailure(f *stream.Fault) {
	r.trying = false
	if f.Reason != stream.ReasonNone && f.Reason != stream.ReasonOverflow && f.Status == 0 {
		r.attempt.Report(outlier.ConnectFailed, 0)
	}
}
