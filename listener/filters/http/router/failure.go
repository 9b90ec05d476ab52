package router

import (
	"strings"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster"
)

//nolint:gochecknoglobals // immutable table
var (
	noRoute = filter.Reply{
		Status: 404, Details: "route_not_found", Flag: stream.NoRouteFound, GRPCStatus: -1,
	}
	noCluster = filter.Reply{
		Status: 503, Details: "cluster_not_found", Flag: stream.NoClusterFound, GRPCStatus: -1,
	}
)

// OnDeadline ends what has taken too long.
func (r *Filter) OnDeadline(t *stream.Turn, which uint8) {
	if r.done {
		return
	}
	switch which {
	case deadlineRoute:
		r.cluster.Traffic().RqTimeout.Inc()
		r.eachGroup(func(g *groupStats) { g.Timeout.Inc() })
		r.cluster.ChargeTimeout(r.attempt.Host)
		r.judgeTimeout()
		r.onTimeout(t, &filter.Reply{
			Status: 504, Details: "response_timeout", Body: "upstream request timeout",
			Flag: stream.UpstreamRequestTimeout, GRPCStatus: -1,
		})
	case deadlineTry, deadlineTryIdle:
		r.onTryTimeout(t, which)
	case deadlineBackoff:
		r.start(t)
	case deadlineMaxDuration:
		r.cluster.Traffic().RqMaxDuration.Inc()
		r.onTimeout(t, &filter.Reply{
			Status: 504, Details: "upstream_max_stream_duration_reached", Body: "upstream max stream duration reached",
			Flag: stream.UpstreamMaxStreamDurationReached, GRPCStatus: -1,
		})
	}
}

// onTryTimeout ends one attempt; the next one may do better.
func (r *Filter) onTryTimeout(t *stream.Turn, which uint8) {
	details := "upstream_per_try_timeout"
	r.cluster.ChargeTimeout(r.attempt.Host)
	r.judgeTimeout()
	if which == deadlineTry {
		r.cluster.Traffic().RqPerTryTimeout.Inc()
	} else {
		r.cluster.Traffic().RqPerTryIdleTimeout.Inc()
		details = "upstream_per_try_idle_timeout"
	}
	r.abandon(t)
	r.timedOut = true
	if r.retryReset(t, resetPerTry, nil) {
		return
	}
	r.onTimeout(t, &filter.Reply{
		Status: 504, Details: details, Body: "upstream request timeout",
		Flag: stream.UpstreamRequestTimeout | r.retry.exhausted(), GRPCStatus: -1,
	})
}

func (r *Filter) onTimeout(t *stream.Turn, reply *filter.Reply) {
	r.done = true
	r.abandonEarly(t)
	r.chargeLocal(reply.Status)
	r.reply(t, reply)
}

// abandonEarly ends an attempt whose response is not complete.
func (r *Filter) abandonEarly(t *stream.Turn) {
	if r.enc != nil {
		r.sentEnd = false
	}
	r.abandon(t)
}

// chargeLocal counts an answer that stands for the upstream's, or a response that breaks off, which
// Envoy counts only where a gRPC status was still to come (Router::Filter::chargeUpstreamAbort).
func (r *Filter) chargeLocal(status int) {
	if r.s.Committed() || r.gotInterim {
		if r.grpc && r.s.Committed() {
			r.cfg.stats.RqResetAfterHead.Inc()
		}
		return
	}
	r.cluster.ChargeCode(cluster.Response{Code: status, Internal: r.info.Internal, Canary: r.canary()},
		r.attempt.Host)
	r.chargeGroups(status)
}

// onFailure is the end of an attempt without a (complete) response.
func (r *Filter) onFailure(t *stream.Turn, f *stream.Fault) {
	r.info.Upstream.TransportFailure = f.Transport
	if r.attempt.Host == nil {
		r.info.Upstream.Host = stream.Addr{} // nobody was asked
	}
	r.noteHost()
	r.judgeFailure(f)
	wasSent := r.headSent
	r.sentEnd = false
	r.countReset(f)
	if r.enc != nil {
		r.enc.Release(t)
		r.enc = nil
	}
	r.s.Arm(t, deadlineTry, 0)
	r.s.Arm(t, deadlineTryIdle, 0)
	if r.gotHead {
		r.cutResponse(t, f)
		return
	}
	if f.Status != 0 {
		// The failure is none of the upstream's, so nothing is repeated: there is no host, a filter took
		// the head apart, the protocol is not spoken.
		r.done = true
		r.chargeLocal(f.Status)
		r.reply(t, &filter.Reply{
			Status: f.Status, Body: f.Body, Details: f.Details, Flag: f.Flag, GRPCStatus: -1, Fault: f,
		})
		return
	}
	if r.replay(t, f) {
		return
	}
	kind := resetKind(f, wasSent)
	if r.retryReset(t, kind, f) {
		return
	}
	r.done = true
	r.fail(t, f)
}

// maxReplays bounds how often a request is repeated that no upstream has begun to handle.
const maxReplays = 3

// replay repeats a request that its upstream has said it did not look at: a stream above the last one
// of a GOAWAY. No policy needs to ask for that, as long as all that was sent is still there.
//
// DIVERGES(goaway-replay): Envoy repeats only with retry_on refused-stream, so that a request that
// meets a GOAWAY fails.
func (r *Filter) replay(t *stream.Turn, f *stream.Fault) bool {
	if !f.Reused || f.Reason != stream.ReasonRemoteRefusedStream || r.replays == maxReplays || r.unkept || r.bodyLost || r.gotInterim || r.s.Committed() {
		return false
	}
	r.replays++
	r.start(t)
	return true
}

// cutResponse ends a stream whose response broke off after its head had gone downstream.
func (r *Filter) cutResponse(t *stream.Turn, f *stream.Fault) {
	r.done = true
	r.chargeLocal(0)
	r.s.Reset(t, &stream.Fault{
		Side: stream.Upstream, Reason: f.Reason, Flag: f.Flag, Transport: f.Transport,
		Details: "upstream_reset_after_response_started{" + token(f) + "}",
	})
}

// fail answers for an upstream that gave no response (Router::Filter::onUpstreamReset).
func (r *Filter) fail(t *stream.Turn, f *stream.Fault) {
	status := 503
	if f.Reason == stream.ReasonProtocolError {
		status = 502
	}
	var b strings.Builder
	b.WriteString("upstream connect error or disconnect/reset before headers. ")
	if r.info.Attempts > 1 {
		b.WriteString("retried and the latest ")
	}
	b.WriteString("reset reason: ")
	b.WriteString(f.Reason.String())
	reply := &filter.Reply{
		Status: status, Body: b.String(), Flag: f.Flag | r.retry.exhausted(), GRPCStatus: -1, Fault: f,
		Details: "upstream_reset_before_response_started{" + token(f) + "}",
	}
	if r.gotInterim {
		reply.Details = "upstream_reset_after_response_started{" + token(f) + "}"
	}
	if f.Reason == stream.ReasonOverflow {
		reply.Headers = func(h *header.Map) { h.SetStatic(header.XEnvoyOverloaded, "true") }
	}
	r.chargeLocal(status)
	r.reply(t, reply)
}

// token is a failure as details hold it: the reason, and the transport's own after a bar.
func token(f *stream.Fault) string {
	if f.Transport == "" {
		return f.Reason.Token()
	}
	return f.Reason.Token() + "|" + strings.ReplaceAll(f.Transport, " ", "_")
}

// reply answers locally, with the route's response header changes.
func (r *Filter) reply(t *stream.Turn, spec *filter.Reply) {
	entry, info, own := r.entry, r.info, spec.Headers
	reply := *spec
	reply.Headers = func(h *header.Map) {
		r.answerAttempts(h)
		if own != nil {
			own(h)
		}
		entry.FinalizeResponse(h, info)
	}
	r.s.Reply(t, &reply)
}
