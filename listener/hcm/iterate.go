package hcm

import (
	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
)

// The way through the filters. Requests go up from slot 0 to the terminal filter in the last one,
// responses down from the slot below it to the codec. Each push goes as far as the filters let it;
// what one holds or waits with is kept in its side, and resume goes on from there.

// inner is the number of slots that hold filters other than the terminal one; none before the
// filters are made.
func (s *Stream) inner() int { return max(len(s.slots)-1, 0) }

// done tells that index i is past the last filter of the direction.
func (s *Stream) done(d filter.Direction, i int) bool {
	if d == filter.Request {
		return i >= s.inner()
	}
	return i < 0
}

func step(d filter.Direction) int {
	if d == filter.Request {
		return 1
	}
	return -1
}

// over tells that the direction has nothing more to pass, since the stream was answered or ended.
func (s *Stream) over(d filter.Direction) bool {
	if s.finishedAll || s.enc == nil {
		return true
	}
	if d == filter.Request {
		return s.req == finished
	}
	return s.resp == finished
}

func (s *Stream) headersOf(d filter.Direction) *header.Map {
	if d == filter.Request {
		return s.info.Request
	}
	return s.info.Response
}

func (s *Stream) trailersOf(d filter.Direction) *header.Map {
	if d == filter.Request {
		return s.info.RequestTrailers
	}
	return s.info.ResponseTrailers
}

// ownTrailers gives a direction trailers that no peer sent.
func (s *Stream) ownTrailers(d filter.Direction) *header.Map {
	m := &s.addedTrailers[d]
	m.Reset()
	if d == filter.Request {
		s.info.RequestTrailers = m
	} else {
		s.info.ResponseTrailers = m
	}
	return m
}

func showHeaders(t *stream.Turn, d filter.Direction, f any, h *header.Map, end bool) filter.Action {
	if d == filter.Request {
		if c, ok := f.(filter.RequestHeaders); ok {
			return c.OnRequestHeaders(t, h, end)
		}
		return filter.Continue
	}
	if c, ok := f.(filter.ResponseHeaders); ok {
		return c.OnResponseHeaders(t, h, end)
	}
	return filter.Continue
}

func wantsData(d filter.Direction, f any) bool {
	if d == filter.Request {
		_, ok := f.(filter.RequestData)
		return ok
	}
	_, ok := f.(filter.ResponseData)
	return ok
}

func showData(t *stream.Turn, d filter.Direction, f any, b *buf.Buffer, end bool) filter.Action {
	if d == filter.Request {
		if c, ok := f.(filter.RequestData); ok {
			return c.OnRequestData(t, b, end)
		}
		return filter.Continue
	}
	if c, ok := f.(filter.ResponseData); ok {
		return c.OnResponseData(t, b, end)
	}
	return filter.Continue
}

func showTrailers(t *stream.Turn, d filter.Direction, f any, h *header.Map) filter.Action {
	if d == filter.Request {
		if c, ok := f.(filter.RequestTrailers); ok {
			return c.OnRequestTrailers(t, h)
		}
		return filter.Continue
	}
	if c, ok := f.(filter.ResponseTrailers); ok {
		return c.OnResponseTrailers(t, h)
	}
	return filter.Continue
}

// pushHeaders shows the head to the filters from i on and hands it to the end of the direction.
func (s *Stream) pushHeaders(t *stream.Turn, d filter.Direction, i int, end bool) {
	h := s.headersOf(d)
	for ; !s.done(d, i); i += step(d) {
		sl := &s.slots[i]
		sd := &sl.side[d]
		sd.reached = true
		if d == filter.Request {
			s.reached = i
		}
		if sl.f == nil {
			continue
		}
		switch showHeaders(t, d, sl.f, h, end) {
		case filter.Continue:
		case filter.Hold:
			sd.headers, sd.end = true, end
			return
		case filter.Wait:
			sd.headers, sd.wait, sd.replay, sd.end, sd.headEnd = true, true, true, end, end
			return
		case filter.Done:
			return
		}
		if s.over(d) {
			return
		}
	}
	s.endHeaders(t, d, h, end)
}

// pushData shows data to the filters from i on. The buffer is emptied, or left to the caller, who
// resets it.
func (s *Stream) pushData(t *stream.Turn, d filter.Direction, i int, b *buf.Buffer, end bool) {
	for ; !s.done(d, i); i += step(d) {
		sl := &s.slots[i]
		sd := &sl.side[d]
		if sl.f == nil {
			continue
		}
		if sd.wait || (sd.headers && !wantsData(d, sl.f)) {
			s.keep(t, d, sl, b, end)
			return
		}
		if !wantsData(d, sl.f) {
			continue
		}
		if sd.held.Len() > 0 {
			sd.held.Append(b.Bytes())
			b.Reset()
			b.Swap(&sd.held)
		}
		sd.showing, sd.last = b, end
		act := showData(t, d, sl.f, b, end)
		added := end && !sd.last
		sd.showing, sd.last = nil, false
		if s.over(d) || act == filter.Done {
			return
		}
		if added {
			end = false
			defer s.trailersAfter(t, d, i+step(d), act)
		}
		if act != filter.Continue {
			sd.wait = act == filter.Wait
			s.keep(t, d, sl, b, end)
			if added {
				sd.trailers, sd.trShown = true, true
			}
			return
		}
		if sd.headers {
			sd.headers = false
			s.pushHeaders(t, d, i+step(d), false)
			if s.over(d) {
				return
			}
		}
		s.relieve(t, d, sl)
	}
	s.endData(t, d, b, end)
}

// trailersAfter passes trailers that a filter added while it was shown the last data.
func (s *Stream) trailersAfter(t *stream.Turn, d filter.Direction, i int, act filter.Action) {
	if act == filter.Continue && !s.over(d) {
		s.pushTrailers(t, d, i)
	}
}

// keep puts data into the filter's buffer and holds the source or fails the stream at the limit.
func (s *Stream) keep(t *stream.Turn, d filter.Direction, sl *slot, b *buf.Buffer, end bool) {
	sd := &sl.side[d]
	if b.Len() > 0 {
		if sd.held.Len() == 0 {
			sd.held.Swap(b)
		} else {
			sd.held.Append(b.Bytes())
			b.Reset()
		}
	}
	sd.end = sd.end || end
	if sd.held.Len() <= s.bufferLimit {
		return
	}
	if sd.wait || sd.watermark {
		if !sd.paused {
			sd.paused = true
			s.pauseSource(t, d, pauseFilter, true)
		}
		return
	}
	s.tooLarge(t, d)
}

// relieve lets the source go on when a filter's buffer is below the limit again.
func (s *Stream) relieve(t *stream.Turn, d filter.Direction, sl *slot) {
	if sd := &sl.side[d]; sd.paused && sd.held.Len() <= s.bufferLimit/2 {
		sd.paused = false
		s.pauseSource(t, d, pauseFilter, false)
	}
}

// pushTrailers shows trailers to the filters from i on.
func (s *Stream) pushTrailers(t *stream.Turn, d filter.Direction, i int) {
	h := s.trailersOf(d)
	for ; !s.done(d, i); i += step(d) {
		sl := &s.slots[i]
		sd := &sl.side[d]
		if sl.f == nil {
			continue
		}
		if sd.wait {
			sd.trailers = true
			return
		}
		act := showTrailers(t, d, sl.f, h)
		if s.over(d) || act == filter.Done {
			return
		}
		if act != filter.Continue {
			sd.trailers, sd.trShown, sd.wait = true, true, true
			return
		}
		s.release(t, d, i, false)
		if s.over(d) {
			return
		}
	}
	s.endTrailers(t, d, h)
}

// release passes on the head and the data that slot i holds; end tells whether the direction ends
// with them.
func (s *Stream) release(t *stream.Turn, d filter.Direction, i int, end bool) {
	sl := &s.slots[i]
	sd := &sl.side[d]
	if sd.headers {
		sd.headers = false
		s.pushHeaders(t, d, i+step(d), end && sd.held.Len() == 0)
		if s.over(d) || (end && sd.held.Len() == 0) {
			return
		}
	}
	if sd.held.Len() > 0 || end {
		var b buf.Buffer
		b.Swap(&sd.held)
		s.relieve(t, d, sl)
		s.pushData(t, d, i+step(d), &b, end)
		b.Reset()
	}
}

// resume goes on behind slot i, as if its callback had returned Continue.
func (s *Stream) resume(t *stream.Turn, d filter.Direction, i int) {
	sl := &s.slots[i]
	sd := &sl.side[d]
	if s.over(d) || !(sd.wait || sd.headers || sd.end || sd.held.Len() > 0) {
		return
	}
	end := sd.end && !sd.trailers
	sd.end = false
	if !sd.replay {
		sd.wait = false
		s.release(t, d, i, end)
	} else {
		s.resumeReplay(t, d, i, end)
	}
	if s.over(d) || !sd.trailers || sd.wait {
		return
	}
	sd.trailers = false
	if sd.trShown {
		s.pushTrailers(t, d, i+step(d))
	} else {
		s.pushTrailers(t, d, i)
	}
}

// resumeReplay goes on after a wait that began at the head: the head goes on, and data that came
// meanwhile is shown to the filter first.
func (s *Stream) resumeReplay(t *stream.Turn, d filter.Direction, i int, end bool) {
	sl := &s.slots[i]
	sd := &sl.side[d]
	sd.wait, sd.replay = false, false
	var b buf.Buffer
	b.Swap(&sd.held)
	// An end that came as a piece of its own is shown as one.
	headersEnd := end && b.Len() == 0 && sd.headEnd
	if sd.headers {
		sd.headers = false
		s.pushHeaders(t, d, i+step(d), headersEnd)
	}
	if !s.over(d) && !headersEnd && (b.Len() > 0 || end) {
		s.relieve(t, d, sl)
		s.pushData(t, d, i, &b, end)
	}
	b.Reset()
}
