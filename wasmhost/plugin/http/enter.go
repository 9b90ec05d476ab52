package http

import (
	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/wasmhost"
	"sidecar/wasmhost/abi"
)

// waiter waits for the VM for one direction, or for an answer to a call-out.
type waiter struct {
	f       *Filter
	d       filter.Direction
	answers bool
}

// Ready implements wasmhost.Waiter: the VM is used inside the stream. If the stream has ended the post
// is dropped, and cancelWaits has left the VM.
func (w *waiter) Ready(t *stream.Turn) { w.f.post.Call(t, w.run) }

// Failed implements wasmhost.Waiter: VMFailed comes too.
func (w *waiter) Failed(*stream.Turn) {}

func (w *waiter) run(t *stream.Turn) {
	f := w.f
	f.stream.VM().Own(t)
	if f.state != bound { // Answered for another reason meanwhile.
		f.forget(w)
		f.stream.VM().Leave(t)
		return
	}
	if w.answers {
		f.answering = nil
		f.answer(t)
		return
	}
	f.half[w.d].waiting = nil
	a := f.show(t, w.d)
	f.settle(t, w.d, a)
}

func (f *Filter) forget(w *waiter) {
	if w.answers {
		f.answering = nil
		return
	}
	f.half[w.d].waiting = nil
}

// cancelWaits gives up the places in the queue, or the VM if it has been granted and not used.
func (f *Filter) cancelWaits(t *stream.Turn) {
	for _, w := range []**waiter{&f.half[0].waiting, &f.half[1].waiting, &f.answering} {
		if *w == nil {
			continue
		}
		vm := f.stream.VM()
		if !vm.Cancel(*w) && !vm.Dead() {
			vm.Leave(t)
		}
		*w = nil
	}
}

// enter shows the guest what is due, now or when the VM is free, and says how the direction goes on.
func (f *Filter) enter(t *stream.Turn, d filter.Direction) filter.Action {
	if !f.wanted(d) {
		return filter.Continue
	}
	vm := f.stream.VM()
	w := &f.half[d].waiting
	if *w != nil {
		return f.hold(d)
	}
	var entry wasmhost.Entry
	if !vm.TryEnter(t) {
		*w = &waiter{f: f, d: d}
		entry = vm.Enter(t, *w)
	}
	switch entry {
	case wasmhost.Entered:
		*w = nil
		return f.show(t, d)
	case wasmhost.Queued:
		// The guest has not asked for this: a body that comes faster than the VM is no failure.
		f.s.Watermark(t, d, true)
		return f.hold(d)
	case wasmhost.Overloaded, wasmhost.Dead:
		*w = nil
	}
	return f.unserved(t, d, entry == wasmhost.Dead)
}

// unserved handles a VM that can't be entered. A stream that hasn't begun in a VM that has failed is
// as a new one: another VM may serve it, or the policy lets it pass.
func (f *Filter) unserved(t *stream.Turn, d filter.Direction, dead bool) filter.Action {
	open := f.factory.config.Policy == wasmhost.FailOpen || f.factory.config.Policy == wasmhost.FailOpenLegacy
	switch {
	case f.stream.ID() == 0 && dead && !f.rebound:
		f.rebound = true
		f.stream.Abandon()
		f.state = unbound
		switch f.bind(t) {
		case bound:
			return f.enter(t, d)
		case failed:
			return filter.Done
		case unbound, bypassed:
		}
	case !dead && open: // Too many wait: no failure of the plugin's.
		f.state = bypassed
	default:
		return f.fail(t)
	}
	f.half[0].due, f.half[1].due = [4]bool{}, [4]bool{}
	return filter.Continue
}

// wanted drops what the plugin has no callback for; false if nothing is left.
func (f *Filter) wanted(d filter.Direction) bool {
	h, p := &f.half[d], &f.phases
	has := [4]bool{
		headersPhase:  d == filter.Request || p.ResponseHeaders, // The request's make the context.
		dataPhase:     d == filter.Request && p.RequestBody || d == filter.Response && p.ResponseBody,
		trailersPhase: d == filter.Request && p.RequestTrailers || d == filter.Response && p.ResponseTrailers,
	}
	left := false
	for i := range h.due {
		h.due[i] = h.due[i] && has[i]
		left = left || h.due[i]
	}
	return left
}

// show calls the guest for all that is due in a direction, leaves the VM and says how to go on. The VM
// is owned.
func (f *Filter) show(t *stream.Turn, d filter.Direction) filter.Action {
	var act abi.Action
	err := f.stream.Create()
	for p := headersPhase; p <= trailersPhase && err == nil; p++ {
		h := &f.half[d]
		if !h.due[p] {
			continue
		}
		h.due[p] = false
		if act, err = f.call(d, p); err != nil {
			break
		}
		if f.stopped(d, p, act) {
			break
		}
		h.paused = [4]bool{}
		if f.interrupted() {
			break
		}
	}
	if err != nil {
		return f.failVM(t, err)
	}
	f.stream.VM().Leave(t)
	return f.outcome(t, d)
}

// call makes one callback.
func (f *Filter) call(d filter.Direction, p phase) (abi.Action, error) {
	h, g, response := &f.half[d], f.stream.Guest(), d == filter.Response
	h.gone = false
	f.current, f.running, f.inside = d, p, true
	var act abi.Action
	var err error
	switch info := f.s.Info(); {
	case p == headersPhase:
		m := info.Request
		if response {
			m = info.Response
		}
		act, err = g.Headers(response, f, f.stream.ID(), m.Len(), h.end)
	case p == dataPhase:
		act, err = g.Body(response, f, f.stream.ID(), f.s.Held(d).Len(), h.end && !h.due[trailersPhase])
		if err == nil && act >= abi.ActionStopAllBuffer {
			f.s.Held(d).Reset() // The guest keeps it itself.
		}
	default:
		m := info.RequestTrailers
		if response {
			m = info.ResponseTrailers
		}
		act, err = g.Trailers(response, f, f.stream.ID(), m.Len())
	}
	f.running, f.inside = noPhase, false
	return act, err
}

// stopped notes what an action means for the direction; false is going on.
func (f *Filter) stopped(d filter.Direction, p phase, act abi.Action) bool {
	h := &f.half[d]
	if act == abi.ActionContinue || (p == headersPhase && act == abi.ActionContinueAndEnd) {
		return false
	}
	if f.proceed[d] { // It has asked to go on before it said to stop.
		return false
	}
	h.paused[p] = true
	if p == headersPhase {
		h.stopAll = act != abi.ActionStop || !f.factory.config.AllowHeadersStop
	}
	h.watermark = p == dataPhase && act == abi.ActionContinueAndEnd
	return true
}

// interrupted tells that the guest asked for what ends the stream's way here.
func (f *Filter) interrupted() bool { return f.reply != nil || f.reset }

// outcome does what the guest asked for during the callbacks of direction d. The VM is left.
func (f *Filter) outcome(t *stream.Turn, d filter.Direction) filter.Action {
	if f.apply(t) {
		return filter.Done
	}
	f.proceed[d] = false
	f.proceedOther(t, 1-d)
	h := &f.half[d]
	if h.paused == [4]bool{} {
		return filter.Continue
	}
	f.s.Watermark(t, d, h.watermark)
	return f.hold(d)
}

// settle carries out the action of a callback that was made late.
func (f *Filter) settle(t *stream.Turn, d filter.Direction, a filter.Action) {
	if a == filter.Continue {
		f.half[d].token.Continue(t)
	}
}

// apply replies or resets if the guest said so: true if the stream's way ends here.
func (f *Filter) apply(t *stream.Turn) bool {
	if f.noRoute {
		f.noRoute = false
		f.s.ClearRouteCache()
	}
	switch {
	case f.reset:
		f.reset = false
		f.s.Reset(t, &stream.Fault{
			Details: "wasm_close_stream", Reason: stream.ReasonLocalReset, Flag: stream.LocalReset,
		})
		return true
	case f.reply != nil:
		r := f.reply
		f.reply = nil
		if f.replied { // A stream is answered once; Envoy ignores the second one too.
			return false
		}
		f.replied = true
		f.s.Reply(t, &filter.Reply{
			Status: int(r.Status), Body: r.Body, Details: r.Details, GRPCStatus: r.GRPCStatus,
			Headers: addHeaders(r.Headers),
		})
		return true
	}
	return false
}

// proceedOther goes on with a paused direction that the guest resumed from outside its callback.
func (f *Filter) proceedOther(t *stream.Turn, d filter.Direction) {
	if !f.proceed[d] {
		return
	}
	f.proceed[d] = false
	h := &f.half[d]
	if h.waiting != nil { // It isn't the guest's pause that it waits in.
		return
	}
	h.paused, h.stopAll = [4]bool{}, false
	if h.due[dataPhase] || h.due[trailersPhase] {
		// What came while all was stopped is shown before it goes on.
		f.settle(t, d, f.enter(t, d))
		return
	}
	h.token.Continue(t)
}

// fail answers for a plugin that can't serve the stream, as its policy says.
func (f *Filter) fail(t *stream.Turn) filter.Action {
	f.half[0].due, f.half[1].due = [4]bool{}, [4]bool{}
	f.faulted = true
	if f.factory.config.Policy == wasmhost.FailOpenLegacy {
		f.state = bypassed
		return filter.Continue
	}
	f.state = failed
	f.replyFailed(t)
	return filter.Done
}

func (f *Filter) failVM(t *stream.Turn, err error) filter.Action {
	f.running, f.inside = noPhase, false
	f.stream.VM().Fail(t, err)
	return f.fail(t)
}

func (f *Filter) replyFailed(t *stream.Turn) {
	f.replied = true
	f.s.Reply(t, &filter.Reply{Status: 503, Details: "wasm_fail_stream", GRPCStatus: 14})
}

// VMFailed implements wasmhost.Owner: a stream that waits for the guest would wait for ever.
func (f *Filter) VMFailed(t *stream.Turn, v *wasmhost.VM) {
	f.post.Call(t, func(t *stream.Turn) {
		if f.state != bound || f.stream.VM() != v {
			return
		}
		f.half[0].waiting, f.half[1].waiting, f.answering = nil, nil, nil
		stopped := false
		for d := range f.half {
			h := &f.half[d]
			stopped = stopped || h.paused != [4]bool{} || h.due != [4]bool{}
		}
		if !stopped {
			return // It hears of it at its next callback.
		}
		if f.stream.ID() == 0 {
			f.settle(t, filter.Request, f.unserved(t, filter.Request, true))
			return
		}
		f.failLate(t)
	})
}

// failLate is fail outside of the proxy's callbacks.
func (f *Filter) failLate(t *stream.Turn) {
	if f.fail(t) == filter.Continue {
		f.half[0].token.Continue(t)
		f.half[1].token.Continue(t)
	}
}

// Answered implements wasmhost.Owner.
func (f *Filter) Answered(t *stream.Turn) {
	if f.state != bound || f.answering != nil || !f.stream.HasAnswer() {
		return
	}
	f.answering = &waiter{f: f, answers: true}
	switch f.stream.VM().Enter(t, f.answering) {
	case wasmhost.Entered:
		f.answering = nil
		f.answer(t)
	case wasmhost.Queued:
	case wasmhost.Overloaded, wasmhost.Dead:
		f.answering = nil
		f.failLate(t)
	}
}

// answer gives the guest the answers that have come. The VM is owned.
func (f *Filter) answer(t *stream.Turn) {
	for {
		f.inside = true
		more, err := f.stream.TakeAnswer()
		f.inside = false
		if err != nil {
			f.stream.VM().Fail(t, err)
			f.failLate(t)
			return
		}
		if !more || f.interrupted() {
			break
		}
	}
	f.stream.VM().Leave(t)
	if f.apply(t) {
		return
	}
	f.proceedOther(t, filter.Request)
	f.proceedOther(t, filter.Response)
}

// Post implements wasmhost.Owner.
func (f *Filter) Post(t *stream.Turn, run func(*stream.Turn)) { f.post.Call(t, run) }
