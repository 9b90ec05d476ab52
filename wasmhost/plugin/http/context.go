package http

import (
	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/wasmhost"
	"sidecar/wasmhost/abi"
)

var _ wasmhost.Owner = (*Filter)(nil)

// Stream implements wasmhost.Owner.
func (f *Filter) Stream() *wasmhost.Stream { return &f.stream }

// Info implements wasmhost.Owner; nil after the stream has ended.
func (f *Filter) Info() *stream.Info {
	switch {
	case f.kept != nil:
		return &f.kept.Info
	case f.ended:
		return nil
	}
	return f.s.Info()
}

// which maps a map type to a direction and the callback that shows it.
func which(m abi.MapType) (filter.Direction, phase) {
	switch m {
	case abi.RequestHeaders:
		return filter.Request, headersPhase
	case abi.RequestTrailers:
		return filter.Request, trailersPhase
	case abi.ResponseHeaders:
		return filter.Response, headersPhase
	case abi.ResponseTrailers:
		return filter.Response, trailersPhase
	default: // The VM has the others.
		return filter.Request, noPhase
	}
}

func mapIn(i *stream.Info, d filter.Direction, p phase) *header.Map {
	switch {
	case p == headersPhase && d == filter.Request:
		return i.Request
	case p == headersPhase:
		return i.Response
	case d == filter.Request:
		return i.RequestTrailers
	}
	return i.ResponseTrailers
}

// reachable tells whether the guest may use a map now: during its own callback and while paused there.
func (f *Filter) reachable(d filter.Direction, p phase) bool {
	h := &f.half[d]
	if !f.inside || p == noPhase || h.gone {
		return false
	}
	return (f.running == p && f.current == d) || h.paused[p]
}

// Headers implements abi.Maps. In the log phase all maps but the request's trailers can be read.
func (f *Filter) Headers(m abi.MapType) (*header.Map, abi.Status) {
	d, p := which(m)
	if f.running == logPhase {
		if i := f.Info(); i != nil && m != abi.RequestTrailers {
			if got := mapIn(i, d, p); got != nil {
				return got, abi.OK
			}
		}
		return nil, abi.NotFound
	}
	if !f.reachable(d, p) {
		return nil, abi.OK
	}
	return mapIn(f.s.Info(), d, p), abi.OK
}

// MutableHeaders implements abi.Maps. With the last data shown and no trailers yet, it makes some.
func (f *Filter) MutableHeaders(m abi.MapType) *header.Map {
	d, p := which(m)
	if f.running == logPhase || f.ended || !f.inside {
		return nil
	}
	if p == trailersPhase && f.running == dataPhase && f.current == d && f.half[d].end {
		if have := mapIn(f.s.Info(), d, p); have != nil {
			return have
		}
		return f.s.AddTrailers(d)
	}
	if !f.reachable(d, p) {
		return nil
	}
	return mapIn(f.s.Info(), d, p)
}

// HeadersChanged implements abi.Maps.
func (f *Filter) HeadersChanged(m abi.MapType) {
	if m == abi.RequestHeaders {
		f.noRoute = true
	}
}

// Buffer implements abi.Buffers: a body is there in its callback, and while the guest paused in one.
func (f *Filter) Buffer(b abi.BufferType) (abi.Body, abi.Status) {
	d := filter.Request
	switch b {
	case abi.RequestBody:
	case abi.ResponseBody:
		d = filter.Response
	default:
		return abi.Body{}, abi.OK
	}
	h := &f.half[d]
	if !f.inside || f.running == logPhase || h.gone {
		return abi.Body{}, abi.OK
	}
	if (f.running == dataPhase && f.current == d) || h.paused[dataPhase] {
		return abi.Body{Data: f.s.Held(d)}, abi.OK
	}
	return abi.Body{}, abi.OK
}

// SendLocalResponse implements abi.Control: the first one counts.
func (f *Filter) SendLocalResponse(r abi.LocalResponse) {
	switch {
	case f.ended || f.running == logPhase:
		f.noEffect("proxy_send_local_response", "the stream has ended")
	case f.reply != nil || f.replied:
		f.noEffect("proxy_send_local_response", "the stream was answered already")
	case f.inside:
		f.reply = &r
	default: // From another stream's callback, or the root's.
		f.stream.VM().Defer(func(t *stream.Turn) {
			f.post.Call(t, func(t *stream.Turn) {
				f.reply = &r
				f.apply(t)
			})
		})
	}
}

// Continue implements abi.Control. It makes the maps of the direction unreachable at once, as Envoy.
func (f *Filter) Continue(s abi.StreamType) abi.Status {
	d, ok := direction(s)
	if !ok || f.ended || f.running == logPhase {
		f.noEffect("proxy_continue_stream", "the stream has ended, or is no HTTP stream")
		return abi.OK
	}
	if own := f.inside && f.running != noPhase && f.current == d; !own && f.half[d].paused == [4]bool{} && !f.proceed[d] {
		f.noEffect("proxy_continue_stream", "this direction of the stream is not paused")
	}
	if f.inside {
		f.proceed[d] = true
		f.half[d].gone = true
		return abi.OK
	}
	f.stream.VM().Defer(func(t *stream.Turn) {
		f.post.Call(t, func(t *stream.Turn) {
			f.proceed[d] = true
			f.proceedOther(t, d)
		})
	})
	return abi.OK
}

// Close implements abi.Control.
func (f *Filter) Close(s abi.StreamType) abi.Status {
	if _, ok := direction(s); !ok || f.ended || f.running == logPhase {
		f.noEffect("proxy_close_stream", "the stream has ended, or is no HTTP stream")
		return abi.OK
	}
	if f.inside {
		f.reset = true
		return abi.OK
	}
	f.stream.VM().Defer(func(t *stream.Turn) {
		f.post.Call(t, func(t *stream.Turn) {
			f.reset = true
			f.apply(t)
		})
	})
	return abi.OK
}

// ClearRouteCache implements abi.Control.
func (f *Filter) ClearRouteCache() {
	if f.inside && !f.ended {
		f.noRoute = true
	}
}

// noEffect notes a call that its guest will take for a success.
func (f *Filter) noEffect(call, why string) {
	if vm := f.stream.VM(); vm != nil {
		vm.NoEffect(call, why)
	}
}

func direction(s abi.StreamType) (filter.Direction, bool) {
	switch s {
	case abi.RequestStream:
		return filter.Request, true
	case abi.ResponseStream:
		return filter.Response, true
	case abi.DownstreamStream, abi.UpstreamStream:
	}
	return filter.Request, false
}

func addHeaders(pairs [][2]string) func(*header.Map) {
	if len(pairs) == 0 {
		return nil
	}
	return func(h *header.Map) {
		for _, p := range pairs {
			h.Add(p[0], p[1])
		}
	}
}
