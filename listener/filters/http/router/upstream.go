package router

import (
	"strconv"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/load"
	"sidecar/cluster/outlier"
	"sidecar/internal/grpchttp"
)

// start begins an attempt: a host is chosen and a stream on it taken or waited for.
func (r *Filter) start(t *stream.Turn) {
	r.seq++
	r.info.Attempts++
	r.gotHead, r.headSent, r.sentEnd, r.gotInterim = false, false, false, false
	r.countAttempt()
	r.retry.context(&r.ctx)
	r.ctx.Seq, r.ctx.Headers, r.ctx.Info = r.seq, r.request, r.info
	r.ctx.Hint = uint32(r.info.Conn.ID)
	r.ctx.Protocol, r.ctx.Conn = r.info.Protocol, r.info.Conn
	r.ctx.Priority = load.Default
	if r.entry.Action.HighPriority {
		r.ctx.Priority = load.High
	}
	target := r.s.Target(r)
	target.Seq = r.seq
	if r.terminates() {
		f := r.cluster.Connect(&r.ctx, target, &r.attempt)
		r.trying = f == nil
		if f != nil {
			r.noteHost()
			r.onFailure(t, f)
		}
		return
	}
	enc, fault := r.cluster.NewStream(t, &r.ctx, target, &r.attempt)
	r.noteHost()
	r.trying = fault == nil
	switch {
	case fault != nil:
		r.onFailure(t, fault)
	case enc != nil:
		r.ready(t, enc)
	}
}

// terminates tells that a tunnel ends here: its payload, not the request, goes upstream.
func (r *Filter) terminates() bool {
	c := r.entry.Action.Connect
	method := r.request.Value(header.Method)
	return c != nil && (method == "CONNECT" || c.AllowPost && method == "POST")
}

// open takes what EventReady announced.
func (r *Filter) open(t *stream.Turn) (stream.Encoder, *stream.Fault) {
	if r.attempt.Resolved() || !r.terminates() {
		return r.attempt.Open(t)
	}
	conn := r.attempt.OpenTCP()
	if conn == nil {
		return nil, &stream.Fault{
			Side: stream.Upstream, Reason: stream.ReasonConnectionTermination,
			Flag: stream.UpstreamConnectionTermination,
		}
	}
	target := r.s.Target(r)
	target.Seq = r.seq
	return newTunnel(conn, target), nil
}

// countAttempt tells the upstream which attempt this is and, of a later one, whether a timeout ended
// the one before, if the virtual host wants that.
func (r *Filter) countAttempt() {
	if r.info.Attempts > 1 && r.entry.VirtualHost.IncludeIsTimeoutRetry {
		r.request.SetStatic(header.XEnvoyIsTimeoutRetry, strconv.FormatBool(r.timedOut))
	}
	r.timedOut = false
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
	r.attempt.Report(outlier.Connected, 0)
	for _, g := range r.groups {
		if g != nil {
			g.RqTotal.Inc()
		}
	}
	now := r.info.Since(t.Now())
	r.info.FirstTxUpstream = now
	r.info.Upstream.Protocol = enc.Protocol()
	r.sent = t.Now()
	if r.ended {
		r.startTry(t)
	}
	if r.entry.Action.AutoHostRewrite {
		if name := r.hostname(); name != "" {
			r.entry.RewriteHost(r.request, name, !r.cfg.suppressHeaders)
		}
	}
	if r.info.SchemeMatchUpstream {
		scheme := "http"
		if r.info.Upstream.TLS != nil {
			scheme = "https"
		}
		r.request.SetStatic(header.Scheme, scheme)
	}
	if r.respPaused {
		enc.Pause(t, true)
	}
	if r.request.Has(header.Upgrade) && r.request.Value(header.ContentLength) == "0" {
		// The manager said so for the filters (ConnectionManagerUtility::mutateRequestHeaders).
		r.request.RemoveID(header.ContentLength)
	}
	headersEnd := r.headEnd && r.trailers == nil
	r.headSent = true
	r.sizes = cluster.Sizes{RequestHead: r.request.Bytes(), RequestFields: r.request.Len()}
	enc.EncodeHeaders(t, r.request, headersEnd)
	if headersEnd {
		r.sentEnd = true
		r.lastByte(t)
		return
	}
	if !r.payload.waits() {
		r.sendHeld(t)
	}
}

// sendHeld sends what there is of the request behind its head.
func (r *Filter) sendHeld(t *stream.Turn) {
	if r.body.Len() > 0 || (r.ended && r.trailers == nil) {
		r.send(t, r.body.Bytes(), r.ended && r.trailers == nil)
		if !r.keepBody {
			r.body.Reset()
		}
	}
	if r.trailers != nil {
		r.sendTrailers(t)
	}
	if r.paused && !r.enc.Full() {
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
		enc, fault := r.open(t)
		if fault != nil {
			r.onFailure(t, fault)
			return
		}
		if enc == nil {
			r.noteHost() // its name is resolved, and now it waits for a connection
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

// onInterim passes the first 1xx head of an attempt on, as Envoy does. After it nothing is repeated:
// the client may be told to send a body that we then don't have.
func (r *Filter) onInterim(t *stream.Turn, h *header.Map) {
	r.touchTry(t)
	if r.gotInterim {
		return
	}
	r.gotInterim = true
	r.retry.giveUp()
	if status, err := strconv.Atoi(h.Value(header.Status)); err == nil {
		r.chargeCode(status, h)
	}
	r.s.RespondInterim(t, h)
}

// startTry starts the timers of the attempt, once the request is complete: a client may take its time
// to send it (UpstreamRequest::setupPerTryTimeout).
func (r *Filter) startTry(t *stream.Turn) {
	if r.timeouts.perTry > 0 && !r.gotHead {
		r.s.Arm(t, deadlineTry, r.timeouts.perTry)
	}
	r.touchTry(t)
}

func (r *Filter) touchTry(t *stream.Turn) {
	if r.timeouts.perTryIdle > 0 && r.ended {
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
	r.judge(status, h)
	if r.payload == webSocket && status != 101 && status < 400 {
		r.refuseWebSocket(t, status, h)
		return
	}
	if r.retryResponse(t, status, h, end) {
		return
	}
	r.gotHead = true
	r.sizes.ResponseHead, r.sizes.ResponseFields = h.Bytes(), h.Len()
	r.s.Arm(t, deadlineTry, 0)
	r.charge(status, h, end)
	if !r.cfg.suppressHeaders && r.ended {
		ms := now.Sub(r.completed).Milliseconds()
		var b [20]byte
		h.SetBytes(header.XEnvoyUpstreamServiceTime, strconv.AppendInt(b[:0], ms, 10))
	}
	r.answerAttempts(h)
	r.info.Status, r.info.Details, r.info.Response = status, "via_upstream", h
	r.entry.FinalizeResponse(h, r.info)
	for _, cookie := range r.cookies {
		h.Add("set-cookie", cookie)
	}
	if end {
		r.responseEnd(t)
	}
	r.s.RespondHeaders(t, h, end)
	if r.payload.granted(status) && !r.done {
		r.payload = ordinary
		r.sendHeld(t)
	}
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
	r.sizes.ResponseBody += uint64(len(p))
	if end {
		r.responseEnd(t)
	}
	r.s.RespondData(t, p, end)
}

func (r *Filter) onTrailers(t *stream.Turn, h *header.Map) {
	if !r.gotHead {
		return
	}
	if r.callOpen {
		r.chargeCall(h)
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
	r.chargeGroupTime(now.Sub(r.sent))
	r.done = true
	for _, d := range []uint8{deadlineRoute, deadlineTry, deadlineTryIdle, deadlineMaxDuration} {
		r.s.Arm(t, d, 0)
	}
}

// charge counts a response that goes downstream. Whether a call was a success for its host is known
// when its status is (Router::Filter::handleNon5xxResponseHeaders).
func (r *Filter) charge(status int, h *header.Map, end bool) {
	if !r.grpc || status >= 500 {
		r.response = r.chargeCode(status, h)
		return
	}
	r.response = r.responseOf(status, h)
	r.cluster.ChargeCode(r.response, nil)
	r.chargeGroups(status)
	if r.callOpen = !end; end {
		r.chargeCall(h)
	}
}

// chargeCall counts a call for its host, by the status in a head or in trailers.
func (r *Filter) chargeCall(h *header.Map) {
	r.callOpen = false
	if r.attempt.Host == nil {
		return
	}
	if grpchttp.HTTPFromStatus(h.Value(header.GrpcStatus)) < 500 {
		r.attempt.Host.Counters().RqSuccess.Inc()
	} else {
		r.attempt.Host.Counters().RqError.Inc()
	}
}

func (r *Filter) responseOf(status int, h *header.Map) cluster.Response {
	return cluster.Response{
		Code: status, Internal: r.info.Internal,
		Canary: h.Value(header.XEnvoyUpstreamCanary) == "true" || r.canary(),
	}
}

func (r *Filter) chargeCode(status int, h *header.Map) cluster.Response {
	x := r.responseOf(status, h)
	r.cluster.ChargeCode(x, r.attempt.Host)
	r.chargeGroups(status)
	return x
}

// abandon ends the current attempt's use of the upstream, whatever its state.
func (r *Filter) abandon(t *stream.Turn) {
	r.trying = false
	if r.enc != nil {
		r.info.UpstreamWire = r.enc.Traffic()
		r.cluster.ChargeSizes(&r.sizes)
		if !r.done || !r.sentEnd {
			if r.multiplexed() {
				r.cluster.Traffic().RqTxReset.Inc()
			}
			r.enc.Reset(t, &stream.Fault{Reason: stream.ReasonLocalReset})
		}
		r.enc.Release(t)
		r.enc = nil
	}
	r.attempt.Cancel(t)
}

// multiplexed tells that the attempt is a stream among others (Http::MultiplexedActiveClientBase counts
// how those end).
func (r *Filter) multiplexed() bool { return r.enc != nil && r.enc.Protocol() >= stream.HTTP2 }

// countReset counts the end of a stream that was not ours to reset.
func (r *Filter) countReset(f *stream.Fault) {
	if !r.multiplexed() {
		return
	}
	x := r.cluster.Traffic()
	switch f.Reason {
	case stream.ReasonConnectionTermination:
		x.RqPendingFailureEject.Inc()
	case stream.ReasonRemoteReset:
		x.RqRxReset.Inc()
	case stream.ReasonLocalReset, stream.ReasonProtocolError:
		x.RqTxReset.Inc()
	default:
	}
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
