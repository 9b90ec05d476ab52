package hcm

import (
	"time"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/grpchttp"
	"sidecar/listener/route"
)

// Stream is one request and its response. It is pooled: everything below lives from begin to
// recycle, and its monitor's generation keeps late events out of the next use.
type Stream struct {
	mon  stream.Monitor
	info stream.Info

	// Set by begin, never changed while the stream lives.
	conn        *Conn
	cfg         *Config
	enc         stream.Encoder // nil after it was released
	table       *route.Table
	bufferLimit int

	// Owned by whoever runs the stream.
	chain        []filterEntry
	slots        []slot
	terminal     any // of the last slot
	req, resp    state
	reached      int // the last filter that saw the request head
	finishedAll  bool
	headSent     bool // the response head was given to the codec
	replying     bool // the response is a local reply
	closeAfter   bool // the connection ends with this response
	upgraded     bool // an upgrade or CONNECT was accepted
	isGRPC       bool
	isHead       bool
	requestWhole bool // the request was received to its end
	answered     bool // the response was given to the codec to its end
	entry        *route.Entry
	entryKnown   bool
	random       uint64
	pauses       [2]pauseReason
	timers       timers

	data          [2]buf.Buffer // what is being shown, so that it needn't be allocated
	addedTrailers [2]header.Map
	localResponse header.Map
	localBuf      buf.Buffer
	scratch       []byte

	finishing bool // EventFinish is on its way
	broken    bool // a callback panicked
	counted   bool // the record was logged and counted
}

// pauseReason is a set of reasons for which a source is stopped.
type pauseReason uint8

const (
	pauseFilter         pauseReason = 1 << iota // a filter's buffer is full
	pauseUpstreamFull                           // the upstream takes no more of the request
	pauseDownstreamFull                         // the downstream takes no more of the response
)

//nolint:gochecknoglobals // free list
var streams = buf.Pool[Stream]{New: newStream}

func newStream() *Stream {
	s := new(Stream)
	s.timers.init(s)
	return s
}

// begin takes a stream for a request whose first byte was just read.
func begin(t *stream.Turn, c *Conn, enc stream.Encoder) stream.Target {
	s := c.cfg.streams.Get()
	if s.mon.OnPanic == nil {
		s.mon.OnPanic = s.onPanic // once for the pooled object: it allocates
	}
	s.conn, s.cfg, s.enc = c, c.cfg, enc
	s.info.Reset(t.Now(), &c.info)
	s.info.StreamID = c.nextStreamID()
	s.bufferLimit = c.cfg.bufferLimit
	s.table = c.cfg.routes.Load()
	s.random = c.cfg.random()
	s.reached = -1
	s.info.Protocol = enc.Protocol()
	if s.info.Protocol == stream.ProtocolNone {
		s.info.Protocol = stream.HTTP11 // until the head says otherwise
	}
	to := s.target(s)
	s.startTimers(t) // from here on the stream may be over at any time
	return to
}

// target returns where events for r go.
func (s *Stream) target(r stream.Receiver) stream.Target {
	return stream.Target{M: &s.mon, To: r, Gen: s.mon.Gen()}
}

// Receive handles the events of the downstream codec stream and of the timer.
func (s *Stream) Receive(t *stream.Turn, e *stream.Event) {
	switch e.Kind {
	case stream.EventHeaders:
		if s.req.move(headersEvent(e.End)) {
			s.touch(t)
			s.onRequestHeaders(t, e.Map, e.End)
		}
	case stream.EventData:
		if s.req.move(dataEvent(e.End)) {
			s.touch(t)
			s.onRequestData(t, e.Data, e.End)
		}
	case stream.EventTrailers:
		if s.req.move(gotTrailers) {
			s.touch(t)
			s.onRequestTrailers(t, e.Map)
		}
	case stream.EventReset:
		s.onDownstreamReset(t, e.Fault)
	case stream.EventRejected:
		s.onRejected(t, e.Fault)
	case stream.EventDrained:
		s.onDownstreamDrained(t)
	case stream.EventTimer:
		s.onTimer(t)
	case stream.EventFinish:
		s.finish(t)
	}
}

func (s *Stream) onRequestData(t *stream.Turn, p []byte, end bool) {
	s.info.BytesReceived += uint64(len(p))
	if end {
		s.requestEnded(t)
	}
	b := &s.data[filter.Request]
	b.AppendShared(t.Holder(p), p)
	s.pushData(t, filter.Request, 0, b, end)
	b.Reset()
}

func (s *Stream) onRequestTrailers(t *stream.Turn, h *header.Map) {
	s.info.RequestTrailers = h
	s.requestEnded(t)
	s.pushTrailers(t, filter.Request, 0)
}

func (s *Stream) requestEnded(t *stream.Turn) {
	s.requestWhole = true
	s.info.LastRxDownstream = s.info.Since(t.Now())
	s.disarm(timerRequest)
}

// endHeaders is the end of a direction's way for the head: the router, or the codec.
func (s *Stream) endHeaders(t *stream.Turn, d filter.Direction, h *header.Map, end bool) {
	if d == filter.Response {
		s.sendHeaders(t, h, end)
		return
	}
	s.reached = s.inner()
	if end {
		s.req.move(passedEnd)
	}
	if f, ok := s.terminal.(filter.RequestHeaders); ok {
		f.OnRequestHeaders(t, h, end)
	}
}

func (s *Stream) endData(t *stream.Turn, d filter.Direction, b *buf.Buffer, end bool) {
	if d == filter.Response {
		s.sendData(t, b.Bytes(), end)
		return
	}
	if end {
		s.req.move(passedEnd)
	}
	if f, ok := s.terminal.(filter.RequestData); ok {
		f.OnRequestData(t, b, end)
	}
}

func (s *Stream) endTrailers(t *stream.Turn, d filter.Direction, h *header.Map) {
	if d == filter.Response {
		s.sendTrailers(t, h)
		return
	}
	s.req.move(passedEnd)
	if f, ok := s.terminal.(filter.RequestTrailers); ok {
		f.OnRequestTrailers(t, h)
	}
}

// pauseSource stops or restarts the source of a direction for one of several reasons.
func (s *Stream) pauseSource(t *stream.Turn, d filter.Direction, why pauseReason, on bool) {
	old := s.pauses[d]
	if on {
		s.pauses[d] |= why
	} else {
		s.pauses[d] &^= why
	}
	if (old == 0) == (s.pauses[d] == 0) {
		return
	}
	if d == filter.Request {
		if s.enc != nil {
			s.enc.Pause(t, on)
		}
		return
	}
	if f, ok := s.terminal.(filter.ResponseDrained); ok {
		if on {
			f.OnResponseFull(t)
		} else {
			f.OnResponseDrained(t)
		}
	}
}

func (s *Stream) onDownstreamDrained(t *stream.Turn) {
	s.touch(t)
	s.pauseSource(t, filter.Response, pauseDownstreamFull, false)
}

// entryOf returns the route entry of the request, looking it up when it is not known.
func (s *Stream) entryOf() *route.Entry {
	if s.entryKnown {
		return s.entry
	}
	s.entryKnown = true
	s.entry = nil
	if s.table != nil && s.info.Request != nil {
		s.entry = s.table.Match(s.info.Request, &s.info, s.random)
	}
	if e := s.entry; e != nil {
		s.onRoute(e)
	}
	return s.entry
}

// onRoute takes over what the route says about the stream itself.
func (s *Stream) onRoute(e *route.Entry) {
	s.info.RouteName = e.Name()
	s.info.RouteMetadata = e.Metadata
	s.decorate(s.info.Request, e)
	if e.Action != nil {
		// Known from here on, so that log lines of requests that a filter refuses show it, too; the
		// router takes the cluster of a cluster_header as it was when the route was found.
		s.info.Cluster = e.Cluster(s.info.Request)
		if s.cfg.clusterName != nil {
			if name, ok := s.cfg.clusterName(s.info.Cluster); ok {
				s.info.Upstream.Cluster = name
			}
		}
	}
	if e.VirtualHost != nil {
		s.info.VirtualHost = e.VirtualHost.Name
		s.info.VirtualHostMetadata = e.VirtualHost.Metadata
	}
	if e.Action == nil {
		return
	}
	s.limitFlush(e.Action)
	if e.Action.IdleTimeout != route.Unset {
		x := &s.timers
		x.idle = int64(e.Action.IdleTimeout)
		if x.idle > 0 {
			x.ensure(x.active, x.active+x.idle)
		}
	}
}

// limitFlush tells the codec how long the end of the response may wait for the client; where a route
// says nothing of that, its idle timeout does. HTTP/1 has no such wait.
func (s *Stream) limitFlush(a *route.Action) {
	d := a.FlushTimeout
	if d == route.Unset {
		d = a.IdleTimeout
	}
	if f, ok := s.enc.(interface{ SetFlushTimeout(d time.Duration) }); ok && d != route.Unset {
		f.SetFlushTimeout(d)
	}
}

// maxDuration is how long the stream may last, by grpc-timeout, the route or the manager
// (ConnectionManagerImpl::ActiveStream::refreshDurationTimeout).
func (s *Stream) maxDuration(h *header.Map) time.Duration {
	e := s.entryOf()
	if e == nil || e.Action == nil {
		return s.cfg.maxStreamDuration
	}
	a := e.Action
	d := grpchttp.Timeout(h.Value(header.GrpcTimeout))
	if d == 0 || a.GRPCTimeoutHeaderMax == route.Unset {
		if a.MaxStreamDuration != route.Unset {
			return a.MaxStreamDuration
		}
		return s.cfg.maxStreamDuration
	}
	if limit := a.GRPCTimeoutHeaderMax; limit != 0 && d > limit {
		d = limit
	}
	if off := a.GRPCTimeoutHeaderOffset; off > 0 && off < d {
		d -= off
	}
	return d
}

func (s *Stream) clearRoute() { s.entryKnown, s.entry = false, nil }

// since is the time from the stream's start.
func (s *Stream) since(t *stream.Turn) time.Duration { return s.info.Since(t.Now()) }
