package http

import (
	"errors"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/wasmhost"
	"sidecar/wasmhost/abi"
	"sidecar/wasmhost/attribute"
)

// phase is a callback of the guest.
type phase uint8

const (
	noPhase phase = iota
	headersPhase
	dataPhase
	trailersPhase
	logPhase
)

// half is where one direction stands.
type half struct {
	due     [4]bool // callbacks that the guest is to be shown when the VM is free, by phase
	end     bool    // no more data comes
	paused  [4]bool // callbacks that the guest paused in, by phase
	stopAll bool    // it wants no data before it goes on
	// watermark: while it is paused a full buffer stops the source instead of failing the stream.
	watermark bool
	token     filter.Resume
	waiting   *waiter
	shown     *buf.Buffer // the data of a data callback that runs
	gone      bool        // the guest has gone on from inside the callback: its map is out of reach
}

// Filter is the plugin on one stream. It is used inside the stream, and by whoever owns the VM.
type Filter struct {
	factory *Factory
	plugin  *wasmhost.Plugin // acquired; nil if the factory doesn't serve
	phases  abi.Phases
	s       filter.Stream
	stream  wasmhost.Stream

	state   state
	half    [2]half
	current filter.Direction // of the callback that runs
	running phase            // noPhase outside of callbacks

	// What the guest asked for; done when it has returned.
	reply     *abi.LocalResponse
	reset     bool
	proceed   [2]bool
	noRoute   bool
	replied   bool
	faulted   bool // the plugin failed the stream
	rebound   bool // to another VM, since the first failed before it was entered
	logged    bool
	post      filter.Resume // posts into the stream until it ends
	answering *waiter
	inside    bool            // the guest runs for this stream, not for another
	ended     bool            // the stream is gone; only kept is left
	kept      *attribute.Kept // what a late on_log reads
}

// state is whether the filter takes part in its stream.
type state uint8

const (
	unbound state = iota
	bound
	bypassed // the plugin failed open, or has nothing to do here
	failed   // the stream was answered for a plugin that failed
)

// bind gets the stream a VM, or the answer of a failed plugin.
func (f *Filter) bind(t *stream.Turn) state {
	if f.state != unbound {
		return f.state
	}
	verdict := f.factory.Missing()
	if f.plugin != nil {
		if !f.rebound { // A new token would make the one void that the stream waits with.
			f.post = f.s.Pause(filter.Request)
		}
		verdict = f.plugin.NewStream(f, &f.stream)
	}
	switch verdict {
	case wasmhost.Serve:
		f.state = bound
	case wasmhost.Bypass:
		f.state = bypassed
	case wasmhost.Refuse:
		f.state, f.faulted = failed, true
		f.replyFailed(t)
	}
	return f.state
}

// OnRequestHeaders implements filter.RequestHeaders.
func (f *Filter) OnRequestHeaders(t *stream.Turn, _ *header.Map, end bool) filter.Action {
	if f.factory.routes.Load() {
		if a, over := f.routed(end); over {
			return a
		}
	}
	return f.begin(t, end)
}

// begin is the plugin's first callback.
func (f *Filter) begin(t *stream.Turn, end bool) filter.Action {
	switch f.bind(t) {
	case bound:
	case failed:
		return filter.Done
	case unbound, bypassed:
		return filter.Continue
	}
	return f.onHeaders(t, filter.Request, end)
}

// OnResponseHeaders implements filter.ResponseHeaders. A request that never came here was answered
// before: the plugin has no part in it.
func (f *Filter) OnResponseHeaders(t *stream.Turn, _ *header.Map, end bool) filter.Action {
	return f.onHeaders(t, filter.Response, end)
}

// OnRequestData implements filter.RequestData.
func (f *Filter) OnRequestData(t *stream.Turn, b *buf.Buffer, end bool) filter.Action {
	return f.onData(t, filter.Request, b, end)
}

// OnResponseData implements filter.ResponseData.
func (f *Filter) OnResponseData(t *stream.Turn, b *buf.Buffer, end bool) filter.Action {
	return f.onData(t, filter.Response, b, end)
}

// OnRequestTrailers implements filter.RequestTrailers.
func (f *Filter) OnRequestTrailers(t *stream.Turn, _ *header.Map) filter.Action {
	return f.onTrailers(t, filter.Request)
}

// OnResponseTrailers implements filter.ResponseTrailers.
func (f *Filter) OnResponseTrailers(t *stream.Turn, _ *header.Map) filter.Action {
	return f.onTrailers(t, filter.Response)
}

func (f *Filter) onHeaders(t *stream.Turn, d filter.Direction, end bool) filter.Action {
	if f.state != bound {
		return filter.Continue
	}
	h := &f.half[d]
	h.end = end
	h.due[headersPhase] = true
	return f.enter(t, d)
}

func (f *Filter) onData(t *stream.Turn, d filter.Direction, b *buf.Buffer, end bool) filter.Action {
	if f.state != bound {
		return filter.Continue
	}
	h := &f.half[d]
	h.end = end
	if h.stopAll {
		h.due[dataPhase] = true
		return f.hold(d)
	}
	h.due[dataPhase] = true
	if h.waiting != nil {
		return f.hold(d)
	}
	h.shown = b
	a := f.enter(t, d)
	h.shown = nil
	return a
}

func (f *Filter) onTrailers(t *stream.Turn, d filter.Direction) filter.Action {
	if f.state != bound {
		return filter.Continue
	}
	h := &f.half[d]
	h.end = true
	h.due[trailersPhase] = true
	if h.stopAll || h.waiting != nil {
		return f.hold(d)
	}
	return f.enter(t, d)
}

// hold is how a direction stops: with Hold while data may come that has to join what is held, else
// with Wait, after which no callback comes.
func (f *Filter) hold(d filter.Direction) filter.Action {
	h := &f.half[d]
	h.token = f.s.Pause(d)
	if h.end || !f.holding(d) {
		return filter.Wait
	}
	return filter.Hold
}

// holding tells whether data callbacks go on while the direction is stopped: they do once the head has
// passed, or if the plugin wants them before.
func (f *Filter) holding(d filter.Direction) bool {
	h := &f.half[d]
	if h.due[headersPhase] || h.paused[headersPhase] {
		return f.factory.config.AllowHeadersStop
	}
	return true
}

// OnLog implements filter.Logger.
func (f *Filter) OnLog(t *stream.Turn, _ *stream.Info) {
	f.afterPanic(t)
	if f.plugin == nil || !f.phases.Log {
		return
	}
	if f.state == unbound { // Answered before it came here: the log still gets a context.
		f.replied = true
		f.bindForLog()
	}
	if f.state != bound {
		return
	}
	f.cancelWaits(t)
	f.running, f.inside = logPhase, true
	f.logged = f.stream.TryLog(t)
	f.running, f.inside = noPhase, false
	if !f.logged { // The record and its maps are not to be used after this callback.
		f.kept = attribute.Keep(f.s.Info())
	}
}

func (f *Filter) bindForLog() {
	f.state = bypassed
	f.post = f.s.Pause(filter.Request)
	if f.plugin.NewStream(f, &f.stream) == wasmhost.Serve {
		f.state = bound
	}
}

// OnDestroy implements filter.Destroyer.
func (f *Filter) OnDestroy(t *stream.Turn) {
	f.afterPanic(t)
	if f.stream.VM() != nil {
		f.end(t)
	}
	f.ended, f.s = true, nil
	if f.plugin != nil {
		f.plugin.Served(f.faulted)
		f.plugin.Release()
	}
}

// errPanicked ends a VM whose owner has panicked.
var errPanicked = errors.New("the host panicked while the guest ran")

// afterPanic ends a VM that the stream still owns: a callback did not return, so the connection manager
// ends the stream, and whoever waits for the VM would wait for ever.
func (f *Filter) afterPanic(t *stream.Turn) {
	if f.running == noPhase && !f.inside {
		return
	}
	f.running, f.inside = noPhase, false
	f.state = failed
	f.stream.VM().Fail(t, errPanicked)
}

func (f *Filter) end(t *stream.Turn) {
	f.cancelWaits(t)
	log := f.kept != nil && f.state == bound
	f.ended = true
	if log {
		f.running = logPhase
	}
	f.stream.End(t, log)
}
