package router

import (
	"strconv"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/load"
)

// start begins an attempt: a host is chosen and a stream on it taken or waited for.
func (r *Filter) start(t *stream.Turn) {
	r.seq++
	r.info.Attempts++
	r.gotHead, r.headSent, r.sentEnd = false, false, false
	r.countAttempt()
	r.retry.context(&r.ctx)
	r.ctx.Seq, r.ctx.Headers, r.ctx.Local = r.seq, r.request, r.info.Conn.Local
	r.ctx.Hint = uint32(r.info.Conn.ID)
	r.ctx.Priority = load.Default
	if r.entry.Action.HighPriority {
		r.ctx.Priority = load.High
	}
	target := r.s.Target(r)
	target.Seq = r.seq
	enc, fault := r.cluster.NewStream(t, &r.ctx, target, &r.attempt)
	r.noteHost()
	switch {
	case fault != nil:
		r.onFailure(t, fault)
	case enc != nil:
		r.ready(t, enc)
	}
}

// countAttempt tells the upstream which attempt this is, if the virtual host wants that.
func (r *Filter) countAttempt() {
	if r.entry.VirtualHost.IncludeAttemptCount {
		r.request.SetID(header.XEnvoyAttemptCount, strconv.Itoa(r.info.Attempts))
	}
}

// noteHost records the host that was chosen.
func (r *Filter) noteHost() { r.attempt.Describe(&r.info.Upstream) }

// ready sends what there is of the request on the attempt's stream.
func (r *Filter) ready(t *stream.Turn, enc stream.Encoder) {
	r.enc = enc
	r.noteHost()
	now := r.info.Since(t.Now())
	r.info.FirstTxUpstream = now
	r.info.Upstream.Protocol = enc.Protocol()
	r.sent = t.Now()
	if r.timeouts.perTry > 0 {
		r.s.Arm(t, deadlineTry, r.timeouts.perTry)
	}
	if r.timeouts.perTryIdle > 0 {
		r.s.Arm(t, deadlineTryIdle, r.timeouts.perTryIdle)
	}
	if r.entry.Action.AutoHostRewrite {
		if name := r.hostname(); name != "" {
			r.entry.RewriteHost(r.request, name, !r.cfg.suppressHeaders)
		}
	}
	if r.respPaused {
		enc.Pause(t, true)
	}
	headersEnd := r.headEnd && r.trailers == nil
	r.headSent = true
	enc.EncodeHeaders(t, r.request, headersEnd)
	if headersEnd {
		r.sentEnd = true
		r.lastByte(t)
		return
	}
	if r.body.Len() > 0 || (r.ended && r.trailers == nil) {
		r.send(t, r.body.Bytes(), r.ended && r.trailers == nil)
		if !r.keepBody {
			r.body.Reset()
		}
	}
	if r.trailers != nil {
		r.sentEnd = true
		enc.EncodeTrailers(t, r.trailers)
		r.lastByte(t)
	}
	if r.paused && !enc.Full() {
		r.pause(t, false)
	}
}

// Receive handles the events of the pool and of the upstream stream. A stale attempt's are dropped.
func (r *Filter) Receive(t *stream.Turn, e *stream.Event) {
	if r.done || e.Seq != r.seq {
		return
	}
	switch e.Kind {
	case stream.EventReady:
		enc, fault := r.attempt.Open(t)
		if fault != nil {
			r.onFailure(t, fault)
			return
		}
		r.ready(t, enc)
	case stream.EventFailed:
		r.onFailure(t, e.Fault)
	case stream.EventInterim:
		r.onInterim(t, e.Map)
	case stream.EventHeaders:
		r.onHeaders(t, e.Map, e.End)
	case stream.EventData:
		r.onData(t, e.Data, e.End)
	case stream.EventTrailers:
		r.onTrailers(t, e.Map)
	case stream.EventReset:
		r.onFailure(t, e.Fault)
	case stream.EventDrained:
		r.pause(t, false)
	}
}

func (r *Filter) onInterim(t *stream.Turn, h *header.Map) {
	r.touchTry(t)
	if status, err := strconv.Atoi(h.Value(header.Status)); err == nil {
		r.chargeCode(status, h)
	}
	r.s.RespondInterim(t, h)
}

func (r *Filter) touchTry(t *stream.Turn) {
	if r.timeouts.perTryIdle > 0 {
		r.s.Arm(t, deadlineTryIdle, r.timeouts.perTryIdle)
	}
}

// onHeaders is the head of the response: the end of the attempt if it is to be repeated, else it goes
// downstream.
func (r *Filter) onHeaders(t *stream.Turn, h *header.Map, end bool) {
	if r.gotHead {
		return
	}
	r.touchTry(t)
	now := t.Now()
	r.info.FirstRxUpstream = r.info.Since(now)
	status, err := strconv.Atoi(h.Value(header.Status))
	if err != nil {
		r.onFailure(t, &stream.Fault{
			Side: stream.Upstream, Reason: stream.ReasonProtocolError, Flag: stream.UpstreamProtocolError,
		})
		return
	}
	if r.retryResponse(t, status, h, end) {
		return
	}
	r.gotHead = true
	r.s.Arm(t, deadlineTry, 0)
	r.charge(status, h)
	if !r.cfg.suppressHeaders && r.ended {
		ms := now.Sub(r.completed).Milliseconds()
		var b [20]byte
		h.SetBytes(header.XEnvoyUpstreamServiceTime, strconv.AppendInt(b[:0], ms, 10))
	}
	r.answerAttempts(h)
	r.info.Status, r.info.Details, r.info.Response = status, "via_upstream", h
	r.entry.FinalizeResponse(h, r.info)
	if end {
		r.responseEnd(t)
	}
	r.s.RespondHeaders(t, h, end)
}

// answerAttempts tells the client how many attempts there were, if the virtual host wants that.
func (r *Filter) answerAttempts(h *header.Map) {
	if v := r.entry.VirtualHost; v != nil && v.IncludeAttemptCountInResponse && r.info.Attempts > 0 {
		h.SetID(header.XEnvoyAttemptCount, strconv.Itoa(r.info.Attempts))
	}
}

func (r *Filter) onData(t *stream.Turn, p []byte, end bool) {
	if !r.gotHead {
		return
	}
	r.touchTry(t)
	if end {
		r.responseEnd(t)
	}
	r.s.RespondData(t, p, end)
}

func (r *Filter) onTrailers(t *stream.Turn, h *header.Map) {
	if !r.gotHead {
		return
	}
	r.responseEnd(t)
	r.s.RespondTrailers(t, h)
}

// responseEnd notes the end of the response. The stream lets go of the upstream as it is destroyed,
// since maps of the upstream stream are in use until then.
func (r *Filter) responseEnd(t *stream.Turn) {
	now := t.Now()
	r.info.LastRxUpstream = r.info.Since(now)
	r.cluster.ChargeTime(r.response, now.Sub(r.sent))
	r.done = true
	for _, d := range []uint8{deadlineRoute, deadlineTry, deadlineTryIdle, deadlineMaxDuration} {
		r.s.Arm(t, d, 0)
	}
}

// charge counts a response that goes downstream.
func (r *Filter) charge(status int, h *header.Map) {
	r.response = r.chargeCode(status, h)
}

func (r *Filter) chargeCode(status int, h *header.Map) cluster.Response {
	x := cluster.Response{
		Code: status, Internal: r.info.Internal,
		Canary: h.Value(header.XEnvoyUpstreamCanary) == "true" || r.canary(),
	}
	r.cluster.ChargeCode(x, r.attempt.Host)
	r.chargeRoute(status)
	return x
}

// abandon ends the current attempt's use of the upstream, whatever its state.
func (r *Filter) abandon(t *stream.Turn) {
	if r.enc != nil {
		r.info.UpstreamWire = r.enc.Traffic()
		if !r.done || !r.sentEnd {
			r.enc.Reset(t, &stream.Fault{Reason: stream.ReasonLocalReset})
		}
		r.enc.Release(t)
		r.enc = nil
	}
	r.attempt.Cancel(t)
}

// hostname is the name of the chosen host, for auto_host_rewrite.
func (r *Filter) hostname() string {
	if h := r.attempt.Host; h != nil {
		return h.Hostname()
	}
	return ""
}

func (r *Filter) canary() bool {
	h := r.attempt.Host
	return h != nil && h.Attr().Canary
}

var _ filter.TerminalFactory = (*Config)(nil)
