package router

import (
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/internal/buf"
)

// shadow is a copy of a request for another cluster (request_mirror_policies). It is a stream of its
// own, with one attempt and the timeout of the route; nobody waits for it, and what becomes of it is
// only counted. The copy is made when the request is complete: a body over the buffer limit is not
// mirrored, and counts as abandoned.
type shadow struct {
	mon     stream.Monitor
	cluster *cluster.Cluster
	ctx     cluster.Context
	attempt cluster.Attempt
	timeout time.Duration
	timer   *time.Timer

	// Owned by whoever runs the shadow.
	head     header.Map
	trailers *header.Map
	body     buf.Buffer
	enc      stream.Encoder
	sent     time.Time
	response cluster.Response
	gotHead  bool
	done     atomic.Bool // read by the timer, too
}

// findMirrors chooses the clusters that get a copy.
func (r *Filter) findMirrors() {
	for i := range r.entry.Action.Mirrors {
		m := &r.entry.Action.Mirrors[i]
		name := m.Cluster(r.request, r.cfg.random())
		if name == "" {
			continue
		}
		if c := r.cfg.clusters.Get(name); c != nil {
			r.mirrors = append(r.mirrors, mirror{c, m.Host, m.Suffix})
		}
	}
	if len(r.mirrors) == 0 {
		return
	}
	r.keepBody = true
	r.shadowHead = new(header.Map)
	r.shadowHead.CopyFrom(r.request)
}

type mirror struct {
	cluster *cluster.Cluster
	host    string
	suffix  bool
}

// sendShadows sends the copies of a complete request.
func (r *Filter) sendShadows(t *stream.Turn) {
	if len(r.mirrors) == 0 {
		return
	}
	for i := range r.mirrors {
		r.sendShadow(t, &r.mirrors[i])
	}
	r.mirrors = nil
	if !r.retry.enabled() {
		r.keepBody = false
	}
}

func (r *Filter) sendShadow(t *stream.Turn, m *mirror) {
	s := &shadow{cluster: m.cluster, timeout: r.timeouts.route}
	s.ctx.Priority = r.ctx.Priority
	s.head.CopyFrom(r.shadowHead)
	s.setHost(m)
	s.head.SetStatic(header.XEnvoyInternal, "true")
	if r.cfg.localAddress != "" {
		s.head.AddID(header.XForwardedFor, r.cfg.localAddress)
	}
	s.body.Append(r.body.Bytes())
	if r.trailers != nil {
		s.trailers = new(header.Map)
		s.trailers.CopyFrom(r.trailers)
	}
	s.ctx.Headers = &s.head
	s.mon.Post(t, s.mon.Gen(), stream.Event{To: s, Kind: stream.EventCall})
}

func (s *shadow) setHost(m *mirror) {
	host := s.head.Value(header.Authority)
	switch {
	case m.host != "":
		host = m.host
	case m.suffix:
		name, port, hasPort := strings.Cut(host, ":")
		if !hasPort {
			host += "-shadow"
		} else if !strings.Contains(port, ":") {
			host = name + "-shadow:" + port
		} else {
			host += "-shadow"
		}
	}
	s.head.SetID(header.Authority, host)
}

func (s *shadow) target() stream.Target {
	return stream.Target{M: &s.mon, To: s, Gen: s.mon.Gen(), Seq: 1}
}

// Receive implements stream.Receiver.
func (s *shadow) Receive(t *stream.Turn, e *stream.Event) {
	if s.done.Load() {
		return
	}
	switch e.Kind {
	case stream.EventCall:
		s.begin(t)
	case stream.EventReady:
		enc, f := s.attempt.Open(t)
		if f != nil {
			s.fail(t, f)
			return
		}
		if enc != nil {
			s.send(t, enc)
		}
	case stream.EventFailed, stream.EventReset:
		s.fail(t, e.Fault)
	case stream.EventHeaders:
		s.onHeaders(t, e)
	case stream.EventData, stream.EventTrailers:
		if e.End || e.Kind == stream.EventTrailers {
			s.complete(t)
		}
	case stream.EventTimer:
		s.cluster.Traffic().RqTimeout.Inc()
		s.charge(504)
		s.finish(t, true)
	}
}

func (s *shadow) begin(t *stream.Turn) {
	s.ctx.Seq, s.ctx.Ask = 1, s.cluster.Ask(&s.head, s.head.Value(header.Authority), nil)
	if s.timeout > 0 {
		x := s.target()
		s.timer = time.AfterFunc(s.timeout, func() {
			if !s.done.Load() {
				stream.Do(func(t *stream.Turn) { x.Post(t, stream.Event{Kind: stream.EventTimer}) })
			}
		})
	}
	enc, f := s.cluster.NewStream(t, &s.ctx, s.target(), &s.attempt)
	switch {
	case f != nil:
		s.fail(t, f)
	case enc != nil:
		s.send(t, enc)
	}
}

func (s *shadow) send(t *stream.Turn, enc stream.Encoder) {
	s.enc, s.sent = enc, t.Now()
	hasBody := s.body.Len() > 0
	enc.EncodeHeaders(t, &s.head, !hasBody && s.trailers == nil)
	if hasBody {
		enc.EncodeData(t, s.body.Bytes(), s.trailers == nil)
	}
	if s.trailers != nil {
		enc.EncodeTrailers(t, s.trailers)
	}
	s.body.Reset()
}

func (s *shadow) onHeaders(t *stream.Turn, e *stream.Event) {
	status, err := strconv.Atoi(e.Map.Value(header.Status))
	if err != nil || s.gotHead {
		return
	}
	s.gotHead = true
	s.charge(status)
	if e.End {
		s.complete(t)
	}
}

func (s *shadow) charge(status int) {
	s.response = cluster.Response{Code: status, Internal: true}
	s.cluster.ChargeCode(s.response, s.attempt.Host)
}

func (s *shadow) complete(t *stream.Turn) {
	s.cluster.ChargeTime(s.response, t.Now().Sub(s.sent))
	s.finish(t, false)
}

func (s *shadow) fail(t *stream.Turn, f *stream.Fault) {
	if !s.gotHead {
		status := 503
		if f != nil && f.Reason == stream.ReasonProtocolError {
			status = 502
		}
		s.charge(status)
	}
	s.finish(t, false)
}

func (s *shadow) finish(t *stream.Turn, cut bool) {
	s.done.Store(true)
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.enc != nil {
		if cut {
			s.enc.Reset(t, &stream.Fault{Reason: stream.ReasonLocalReset})
		}
		s.enc.Release(t)
		s.enc = nil
	}
	s.attempt.Cancel(t)
	s.body.Reset()
	s.mon.Retire()
}
