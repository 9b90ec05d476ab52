package hcm

import (
	"strconv"
	"time"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
)

// statusText returns the decimal text of a status without allocating for the usual ones.
func statusText(status int) string {
	if status >= 100 && status < 600 {
		return statusTexts[3*(status-100) : 3*(status-100)+3]
	}
	return strconv.Itoa(status)
}

//nolint:gochecknoglobals // immutable table
var statusTexts = func() string {
	b := make([]byte, 0, 1500)
	for i := 100; i < 600; i++ {
		b = strconv.AppendInt(b, int64(i), 10)
	}
	return string(b)
}()

func (s *Stream) setStatus(h *header.Map) {
	n, err := strconv.Atoi(h.Value(header.Status))
	if err == nil {
		s.info.Status = n
	}
}

// respondHeaders takes the response's head from the terminal filter.
func (s *Stream) respondHeaders(t *stream.Turn, h *header.Map, end bool, from int) {
	if s.finishedAll || !s.resp.move(headersEvent(end)) {
		return
	}
	s.touch(t)
	s.info.Response = h
	s.setStatus(h)
	if s.info.Details == "" {
		s.info.Details = "via_upstream"
	}
	s.pushHeaders(t, filter.Response, min(from, s.inner())-1, end)
}

func (s *Stream) respondData(t *stream.Turn, p []byte, end bool) {
	if s.finishedAll || !s.resp.move(dataEvent(end)) {
		return
	}
	s.touch(t)
	if s.inner() == 0 {
		s.sendData(t, p, end)
		return
	}
	b := &s.data[filter.Response]
	b.AppendShared(t.Holder(p), p)
	s.pushData(t, filter.Response, s.inner()-1, b, end)
	b.Reset()
}

func (s *Stream) respondTrailers(t *stream.Turn, h *header.Map) {
	if s.finishedAll || !s.resp.move(gotTrailers) {
		return
	}
	s.touch(t)
	s.info.ResponseTrailers = h
	s.pushTrailers(t, filter.Response, s.inner()-1)
}

// sendHeaders gives the head to the codec, changed as Envoy changes it
// (ConnectionManagerImpl::ActiveStream::encodeHeaders, mutateResponseHeaders).
func (s *Stream) sendHeaders(t *stream.Turn, h *header.Map, end bool) {
	if s.enc == nil || s.headSent {
		return
	}
	c := s.cfg
	if !h.Has(header.Date) {
		h.SetID(header.Date, c.clock.Date(t.Now()))
	}
	switch c.serverTransform {
	case serverOverwrite:
		h.SetStatic(header.Server, c.serverName)
	case serverAppendIfAbsent:
		if !h.Has(header.Server) {
			h.SetStatic(header.Server, c.serverName)
		}
	case serverPassThrough:
	}
	s.cleanResponse(h)
	s.setStatus(h)
	s.decideClose(t, h)
	s.countResponse()
	if s.info.FirstTxDownstream == stream.Unset {
		s.info.FirstTxDownstream = s.since(t)
	}
	s.headSent = true
	s.enc.EncodeHeaders(t, h, end)
	if end {
		s.responseDone(t)
	}
}

func (s *Stream) cleanResponse(h *header.Map) {
	if s.upgraded && isUpgrade(h) {
		// A 101 or a refusal keeps what the peers must see.
	} else {
		h.RemoveID(header.Connection)
		if !s.upgraded {
			h.RemoveID(header.Upgrade)
		}
	}
	h.RemoveID(header.TransferEncoding)
	h.RemoveID(header.KeepAlive)
	h.RemoveID(header.ProxyConnection)
	if s.cfg.requestIDInResponse || (s.info.Request != nil && s.info.Request.Has(header.XEnvoyForceTrace)) {
		if s.info.RequestID != "" {
			h.SetID(header.XRequestID, s.info.RequestID)
		}
	}
	if s.cfg.via != "" {
		appendVia(h, s.cfg.via)
	}
	s.decorateResponse(h)
}

// decideClose says in the head that the connection ends with this response: the request is not
// whole (its rest would be taken for the next one), or the connection drains. HTTP/2 has GOAWAY for
// that, and a stream that ends early leaves the others alone.
func (s *Stream) decideClose(t *stream.Turn, h *header.Map) {
	if !s.requestWhole {
		s.cfg.stats.RqResponseBeforeComplete.Inc()
		if s.info.Protocol < stream.HTTP2 {
			s.closeAfter = true
		}
	}
	closing := s.conn.shouldClose(t, s)
	if s.info.Protocol >= stream.HTTP2 {
		if s.closeAfter && s.conn.draining.CompareAndSwap(false, true) {
			s.conn.beginDrain(t)
		}
		return
	}
	s.closeAfter = s.closeAfter || closing
	if s.closeAfter && !isUpgrade(h) && !s.acceptedConnect() {
		h.SetStatic(header.Connection, "close")
	}
}

// acceptedConnect tells that the response makes a tunnel of the connection.
func (s *Stream) acceptedConnect() bool {
	return s.upgraded && s.info.Status/100 == 2 && s.info.Request.Value(header.Method) == "CONNECT"
}

func (s *Stream) sendData(t *stream.Turn, p []byte, end bool) {
	if s.enc == nil {
		return
	}
	if len(p) == 0 && !end {
		return // a filter has taken all of it
	}
	s.info.BytesSent += uint64(len(p))
	s.enc.EncodeData(t, p, end)
	if end {
		s.responseDone(t)
		return
	}
	if s.enc.Full() {
		s.pauseSource(t, filter.Response, pauseDownstreamFull, true)
	}
}

func (s *Stream) sendTrailers(t *stream.Turn, h *header.Map) {
	if s.enc == nil {
		return
	}
	if h.Len() == 0 {
		s.enc.EncodeData(t, nil, true) // a filter has taken them out
	} else {
		s.enc.EncodeTrailers(t, h)
	}
	s.responseDone(t)
}

// responseDone notes that the whole response was given to the codec.
func (s *Stream) responseDone(t *stream.Turn) {
	s.resp, s.answered = finished, true
	s.info.LastTxDownstream = s.since(t)
	if s.info.FirstTxDownstream == stream.Unset {
		s.info.FirstTxDownstream = s.info.LastTxDownstream
	}
	s.req = finished
	s.scheduleFinish(t)
}

// scheduleFinish ends the stream once the callbacks that led here have returned.
func (s *Stream) scheduleFinish(t *stream.Turn) {
	if s.finishing {
		return
	}
	s.finishing = true
	s.mon.Post(t, s.mon.Gen(), stream.Event{To: s, Kind: stream.EventFinish})
}

// Clock gives the text of the date header; it is renewed once a second.
type Clock interface {
	Date(now time.Time) string
}
