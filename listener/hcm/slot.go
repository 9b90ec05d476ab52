package hcm

import (
	"strconv"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
)

// side is where one direction stands at one filter.
type side struct {
	held      buf.Buffer
	seq       uint32 // of the last token taken; a resume with another is void
	reached   bool   // the head was shown to the filter
	headers   bool   // the head is held here
	wait      bool   // no callbacks until resumed
	replay    bool   // the wait began at the head: what is held was not shown yet
	end       bool   // the end arrived and is held here
	headEnd   bool   // it came with the head
	trailers  bool   // trailers arrived and are held here
	trShown   bool   // they were shown to the filter
	watermark bool   // a full buffer stops the source instead of failing
	paused    bool   // it does so now
	showing   *buf.Buffer
	last      bool // showing is the last of the data, and there are no trailers
}

// slot is one filter of one stream, and what that filter sees of the stream.
type slot struct {
	s     *Stream
	f     any
	entry *filterEntry
	index int
	side  [2]side
}

var (
	_ filter.Stream   = (*slot)(nil)
	_ filter.Terminal = (*slot)(nil)
)

func (sl *slot) clear() {
	for d := range sl.side {
		sl.side[d].held.Reset()
		sl.side[d] = side{}
	}
	sl.f = nil
}

// Info implements filter.Record.
func (sl *slot) Info() *stream.Info { return &sl.s.info }

// Held implements filter.Bodies.
func (sl *slot) Held(d filter.Direction) *buf.Buffer {
	sd := &sl.side[d]
	if sd.showing != nil {
		return sd.showing
	}
	return &sd.held
}

// AddTrailers implements filter.Bodies.
func (sl *slot) AddTrailers(d filter.Direction) *header.Map {
	sd := &sl.side[d]
	if sd.showing == nil || !sd.last {
		return nil
	}
	m := sl.s.ownTrailers(d)
	sd.last = false
	return m
}

// Watermark implements filter.Bodies.
func (sl *slot) Watermark(t *stream.Turn, d filter.Direction, on bool) {
	sd := &sl.side[d]
	sd.watermark = on
	if !on && sd.paused && !sd.wait {
		// The source goes on, and meets the limit.
		sd.paused = false
		sl.s.pauseSource(t, d, pauseFilter, false)
	}
}

// Reply implements filter.Control.
func (sl *slot) Reply(t *stream.Turn, r *filter.Reply) { sl.s.reply(t, r) }

// Reset implements filter.Control.
func (sl *slot) Reset(t *stream.Turn, f *stream.Fault) { sl.s.reset(t, f) }

// Pause implements filter.Control.
func (sl *slot) Pause(d filter.Direction) filter.Resume {
	sd := &sl.side[d]
	sd.seq++
	// The token carries direction and number; receivers are per slot.
	return filter.Resume{Target: sl.s.target(sl), Seq: sd.seq<<1 | uint32(d)}
}

// Receive handles what Resume tokens post.
func (sl *slot) Receive(t *stream.Turn, e *stream.Event) {
	switch e.Kind {
	case stream.EventCall:
		if f, ok := e.Ref.(func(*stream.Turn)); ok {
			f(t)
		}
	case stream.EventResume:
		d := filter.Direction(e.Seq & 1)
		if sl.side[d].seq == e.Seq>>1 {
			sl.side[d].seq++
			sl.s.resume(t, d, sl.index)
		}
	}
}

// Route implements filter.Routing.
func (sl *slot) Route() filter.Route {
	if r := sl.s.entryOf(); r != nil {
		return r
	}
	return nil
}

// ClearRouteCache implements filter.Routing.
func (sl *slot) ClearRouteCache() { sl.s.clearRoute() }

// RouteConfig implements filter.Routing.
func (sl *slot) RouteConfig() any {
	if r := sl.s.entryOf(); r != nil && sl.entry != nil {
		return r.FilterConfig(sl.entry.Name)
	}
	return nil
}

// Target implements filter.Terminal.
func (sl *slot) Target(r stream.Receiver) stream.Target { return sl.s.target(r) }

// Committed implements filter.Terminal.
func (sl *slot) Committed() bool { return sl.s.resp != idle }

// RespondInterim implements filter.Terminal.
func (sl *slot) RespondInterim(t *stream.Turn, h *header.Map) {
	// Envoy passes 1xx heads on only where it does not answer Expect: 100-continue itself.
	if sl.s.resp == idle && sl.s.enc != nil && sl.s.cfg.proxy100Continue {
		if status, err := strconv.Atoi(h.Value(header.Status)); err == nil {
			sl.s.countStatus(status)
		}
		sl.s.enc.EncodeInterim(t, h)
	}
}

// RespondHeaders implements filter.Terminal.
func (sl *slot) RespondHeaders(t *stream.Turn, h *header.Map, end bool) {
	sl.s.respondHeaders(t, h, end, sl.index)
}

// RespondData implements filter.Terminal.
func (sl *slot) RespondData(t *stream.Turn, p []byte, end bool) { sl.s.respondData(t, p, end) }

// RespondTrailers implements filter.Terminal.
func (sl *slot) RespondTrailers(t *stream.Turn, h *header.Map) { sl.s.respondTrailers(t, h) }

// PauseRequest implements filter.Terminal.
func (sl *slot) PauseRequest(t *stream.Turn, paused bool) {
	sl.s.pauseSource(t, filter.Request, pauseUpstreamFull, paused)
}
