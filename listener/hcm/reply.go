package hcm

import (
	"strconv"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/grpchttp"
)

// Local replies of the connection manager, with Envoy's status, body and details.
//
//nolint:gochecknoglobals // immutable table
var (
	lowVersion = filter.Reply{
		Status: 426, Details: "low_version", GRPCStatus: -1, Body: "Upgrade Required",
		Flag: stream.DownstreamProtocolError, Close: true,
	}
	missingHost     = filter.Reply{Status: 400, Details: "missing_host_header", GRPCStatus: -1}
	missingPath     = filter.Reply{Status: 404, Details: "missing_path_rejected", GRPCStatus: -1}
	absolutePath    = filter.Reply{Status: 404, Details: "absolute_path_rejected", GRPCStatus: -1}
	pathNormFailed  = filter.Reply{Status: 400, Details: "path_normalization_failed", GRPCStatus: -1}
	upgradeFailed   = filter.Reply{Status: 403, Details: "upgrade_failed", GRPCStatus: -1}
	durationTimeout = filter.Reply{
		Status: 504, Details: "max_duration_timeout", Body: "downstream duration timeout", GRPCStatus: 4,
	}
	headersTimeout = filter.Reply{
		Status: 408, Details: "request_header_timeout", Body: "request header timeout", GRPCStatus: -1,
	}
	requestTimeout = filter.Reply{
		Status: 408, Details: "request_overall_timeout", Body: "request timeout", GRPCStatus: -1,
	}
	idleRequest = filter.Reply{
		Status: 408, Details: "stream_idle_timeout", Body: "stream timeout", GRPCStatus: -1,
	}
	idleGateway = filter.Reply{
		Status: 504, Details: "stream_idle_timeout", Body: "stream timeout", GRPCStatus: -1,
	}
	payloadTooLarge = filter.Reply{
		Status: 413, Details: "request_payload_too_large", Body: "Payload Too Large", GRPCStatus: -1,
	}
	responseTooLarge = filter.Reply{
		Status: 500, Details: "response_payload_too_large", Body: "Internal Server Error", GRPCStatus: -1,
	}
)

// reply answers the request. Every failure of a stream that becomes a response comes through here.
func (s *Stream) reply(t *stream.Turn, r *filter.Reply) {
	if s.finishedAll || s.enc == nil || s.resp == finished {
		return
	}
	s.info.Flags |= r.Flag
	s.info.Details = r.Details
	if r.Close || (r.Status == 400 && s.info.Protocol < stream.HTTP2 && !s.cfg.codecOptions.StreamErrorOnInvalid) {
		// A bad request is a messaging error: what follows on an HTTP/1 connection can't be trusted
		// (ConnectionManagerImpl::ActiveStream::sendLocalReply).
		s.closeAfter = true
	}
	if s.headSent {
		// The client has the head of another response: all that is left is to cut it off.
		s.reset(t, &stream.Fault{Details: r.Details, Flag: r.Flag, Reason: stream.ReasonLocalReset})
		return
	}
	direct := s.resp != idle // a response is in the filters: they see no second one
	s.cutRequest(t)
	h := s.replyHead(r)
	body := s.localBody(h, r)
	s.finishHead(h, r, body)
	s.resp, s.replying = headers, true
	s.info.Response = h
	noBody := body == "" || s.isHead || s.isGRPC
	if noBody {
		s.resp = ended
	}
	s.setStatus(h)
	from := min(s.reached, s.inner()-1)
	if direct {
		s.dropHeld(filter.Response)
		from = -1
	}
	s.pushHeaders(t, filter.Response, from, noBody)
	if noBody || s.over(filter.Response) {
		return
	}
	s.resp = ended
	s.localBuf.AppendString(body)
	s.pushData(t, filter.Response, from, &s.localBuf, true)
	s.localBuf.Reset()
}

func (s *Stream) replyHead(r *filter.Reply) *header.Map {
	h := &s.localResponse
	h.Reset()
	status := r.Status
	if s.isGRPC {
		status = 200
	}
	h.AddStatic(":status", statusText(status))
	return h
}

// localBody applies the local_reply_config and returns the body to send.
func (s *Stream) localBody(h *header.Map, r *filter.Reply) string {
	if r.Headers != nil {
		r.Headers(h)
	}
	body := r.Body
	s.info.LocalReplyBody = body
	s.info.Status = r.Status
	if lr := s.cfg.localReply; lr != nil {
		return lr.rewrite(s, h, r)
	}
	return body
}

// finishHead adds what describes the body, or the gRPC status that stands for it
// (Utility::prepareLocalReply).
func (s *Stream) finishHead(h *header.Map, r *filter.Reply, body string) {
	if !s.isGRPC {
		if body != "" {
			s.scratch = strconv.AppendInt(s.scratch[:0], int64(len(body)), 10)
			h.SetBytes(header.ContentLength, s.scratch)
			if !h.Has(header.ContentType) {
				h.SetStatic(header.ContentType, "text/plain")
			}
		} else {
			h.RemoveID(header.ContentLength)
			h.RemoveID(header.ContentType)
		}
		return
	}
	h.SetStatic(header.ContentType, "application/grpc")
	code := r.GRPCStatus
	if code < 0 {
		code = grpchttp.StatusFromHTTP(s.info.Status)
	}
	s.scratch = strconv.AppendInt(s.scratch[:0], int64(code), 10)
	h.SetBytes(header.GrpcStatus, s.scratch)
	if body != "" {
		s.scratch = grpchttp.AppendMessage(s.scratch[:0], body)
		h.SetBytes(header.GrpcMessage, s.scratch)
	}
}

// dropHeld forgets what filters hold of a direction.
func (s *Stream) dropHeld(d filter.Direction) {
	for i := range s.slots {
		sd := &s.slots[i].side[d]
		sd.held.Reset()
		sd.headers, sd.wait, sd.trailers, sd.end = false, false, false, false
		sd.seq++
	}
}

// cutRequest ends the request's way: no filter sees any more of it.
func (s *Stream) cutRequest(t *stream.Turn) {
	s.req = finished
	s.dropHeld(filter.Request)
	if s.pauses[filter.Request] != 0 {
		s.pauses[filter.Request] = 0
		if s.enc != nil {
			s.enc.Pause(t, false)
		}
	}
}

// tooLarge fails a stream whose buffered body is over the limit.
func (s *Stream) tooLarge(t *stream.Turn, d filter.Direction) {
	if d == filter.Request {
		s.cfg.stats.RqTooLarge.Inc()
		s.reply(t, &payloadTooLarge)
		return
	}
	s.cfg.stats.RsTooLarge.Inc()
	s.reply(t, &responseTooLarge)
}

// onRejected answers what the codec could not take.
func (s *Stream) onRejected(t *stream.Turn, f *stream.Fault) {
	s.info.Protocol = s.enc.Protocol()
	if f.Close || s.info.Protocol < stream.HTTP2 {
		s.cfg.stats.CxProtocolError.Inc()
	}
	s.reply(t, &filter.Reply{
		Status: f.Status, Body: f.Body, Details: f.Details, Flag: f.Flag, GRPCStatus: -1,
		Close: f.Close, Fault: f,
	})
}

// reset ends the stream without a (complete) answer.
func (s *Stream) reset(t *stream.Turn, f *stream.Fault) {
	if s.finishedAll || s.enc == nil {
		return
	}
	s.info.Flags |= f.Flag
	if f.Details != "" {
		s.info.Details = f.Details
	}
	s.cfg.stats.RqTxReset.Inc()
	s.enc.Reset(t, f)
	s.req, s.resp = finished, finished
	s.scheduleFinish(t)
}

// onDownstreamReset is the client's end, or that of its connection.
func (s *Stream) onDownstreamReset(t *stream.Turn, f *stream.Fault) {
	s.noteReset(f)
	s.req, s.resp = finished, finished
	s.scheduleFinish(t)
}

// noteReset takes over what the codec says of the end. A stream may end alone, or with its connection
// (ConnectionManagerImpl::ActiveStream::onResetStream).
func (s *Stream) noteReset(f *stream.Fault) {
	if f == nil || f.Close || f.Reason == stream.ReasonNone || f.Reason == stream.ReasonConnectionTermination {
		s.conn.endedActive.Store(true)
	}
	if f == nil {
		return
	}
	if f.Details != "" {
		s.info.Details = f.Details
	}
	switch {
	case f.Flag != 0:
		s.info.Flags |= f.Flag
	case f.Reason == stream.ReasonConnectionTermination:
		s.info.Flags |= stream.DownstreamConnectionTermination
	case f.Reason == stream.ReasonRemoteReset, f.Reason == stream.ReasonRemoteRefusedStream,
		f.Reason == stream.ReasonConnectError:
		s.info.Flags |= stream.DownstreamRemoteReset
	case f.Reason == stream.ReasonProtocolError:
		s.info.Flags |= stream.DownstreamProtocolError
	case f.Reason == stream.ReasonOverloadManager:
		s.info.Flags |= stream.OverloadManager
	}
}
