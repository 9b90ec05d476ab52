package wasmhost

import (
	"sync"

	"sidecar/api/stream"
	"sidecar/wasmhost/abi"
)

// Owner is the placement's side of a Stream.
type Owner interface {
	abi.Context
	// Stream and Info say which stream it is.
	Stream() *Stream
	Info() *stream.Info
	// Post runs f inside the stream, or drops it when the stream has ended. It doesn't block.
	Post(t *stream.Turn, f func(*stream.Turn))
	// Answered has the stream take its answers (TakeAnswer) when it is next inside; it is called inside.
	Answered(t *stream.Turn)
	// VMFailed says that a VM is gone that the stream was bound to, and may not be any more. Called with
	// no stream entered.
	VMFailed(t *stream.Turn, v *VM)
}

// Stream is a context of the guest, bound to one VM for its life.
type Stream struct {
	// Set by NewStream, never changed.
	vm    *VM
	owner Owner

	id   uint32 // of the guest's context; 0 before it is made. Owned by the VM's owner.
	gone bool   // the guest's context was ended already

	mu    sync.Mutex // guards below; a leaf
	inbox []answer
	ended bool
}

// Verdict says what a plugin can do for a new stream.
type Verdict uint8

// The verdicts.
const (
	Serve  Verdict = iota
	Bypass         // the plugin has failed open
	Refuse         // the plugin has failed closed, or is between a failure and its reload
)

// Acquire keeps the plugin running until as many Release calls. False: it was closed.
func (p *Plugin) Acquire() bool {
	for {
		n := p.refs.Load()
		if n == 0 {
			return false
		}
		if p.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release ends an Acquire.
func (p *Plugin) Release() { p.unref() }

// NewStream binds a stream to one of the plugin's VMs. End it. The plugin must be acquired.
func (p *Plugin) NewStream(o Owner, s *Stream) Verdict {
	v := p.pick()
	if v != nil && p.iso != nil {
		v = p.clone()
	}
	if v == nil {
		switch p.config.Policy {
		case FailOpen, FailOpenLegacy:
			p.stats.bypassed.Inc()
			return Bypass
		case FailReload:
			p.stats.reloadBackoff.Inc()
		case FailClosed:
		}
		p.stats.refusals.Inc()
		return Refuse
	}
	v.mu.Lock()
	if len(v.streams) >= maxStreams {
		v.mu.Unlock()
		p.stats.overloads.Inc()
		p.stats.refusals.Inc()
		return Refuse
	}
	p.refs.Add(1)
	s.vm, s.owner = v, o
	v.streams[s] = struct{}{}
	v.bound++
	enough := p.config.Recycling.Streams > 0 && v.bound == p.config.Recycling.Streams && !v.isClone
	v.mu.Unlock()
	if enough {
		p.replace(v, "streams")
	}
	return Serve
}

// VM that the stream is bound to.
func (s *Stream) VM() *VM { return s.vm }

// Guest is for calls while the VM is owned, after Create.
func (s *Stream) Guest() *abi.VM { return s.vm.abi }

// ID of the guest's context.
func (s *Stream) ID() uint32 { return s.id }

// Create makes the guest's context unless there is one. The VM is owned.
func (s *Stream) Create() error {
	if s.id != 0 {
		return nil
	}
	s.vm.lastID++
	s.id = s.vm.lastID
	s.vm.abi.Contexts[s.id] = s.owner
	return s.vm.abi.ContextCreate(s.owner, s.id, rootContext)
}

// Abandon lets go of a VM that failed before the stream entered it. The Stream may be bound again.
func (s *Stream) Abandon() {
	s.vm.mu.Lock() // It has failed: nothing of it is left to be drained or given back.
	delete(s.vm.streams, s)
	s.vm.mu.Unlock()
	p := s.vm.plugin
	s.vm = nil
	p.unref()
}

// TryLog makes the last calls, on_log, on_done and on_delete, at once if the VM is free: false if it
// isn't, or has failed. Nothing but End may follow.
func (s *Stream) TryLog(t *stream.Turn) bool {
	if !s.vm.TryEnter(t) {
		return false
	}
	s.gone = true
	if s.vm.isClone { // Another stream's, from here on.
		s.vm.mu.Lock()
		delete(s.vm.streams, s)
		s.vm.mu.Unlock()
	}
	s.vm.conclude(t, s.last(true))
	return true
}

// End lets go of the VM: on_log if it is still due, on_done and on_delete run now, or when the VM is
// free, so that the owner must hold on to what on_log may read. Nothing is posted to the stream any
// more; answers that it didn't take go to the root.
func (s *Stream) End(t *stream.Turn, log bool) {
	v := s.vm
	v.mu.Lock()
	delete(v.streams, s)
	drained := v.endDrain()
	v.mu.Unlock()
	s.mu.Lock()
	s.ended = true
	rest := s.inbox
	s.inbox = nil
	s.mu.Unlock()
	switch {
	case s.gone:
	case s.id == 0 && !log:
		if v.isClone && !v.Dead() {
			v.giveBack()
		}
	case v.TryEnter(t):
		v.conclude(t, s.last(log))
	default:
		v.must(t, func() error { return s.last(log) })
	}
	if !v.isClone {
		for _, a := range rest {
			v.answerRoot(t, a)
		}
	}
	if drained {
		v.shutDown()
	}
	v.plugin.unref()
}

func (s *Stream) log() error {
	if err := s.Create(); err != nil {
		return err
	}
	return s.vm.abi.Log(s.owner, s.id)
}

// last makes the last calls for the stream.
func (s *Stream) last(log bool) error {
	if log {
		if err := s.log(); err != nil {
			return err
		}
	}
	if err := s.finish(false); err != nil {
		return err
	}
	if s.vm.isClone {
		return errStreamOver
	}
	return nil
}

// finish makes the last calls for the context, if it has one; on_log, where it is asked for, comes in
// between.
func (s *Stream) finish(log bool) error {
	if s.id == 0 {
		return nil
	}
	g := s.vm.abi
	defer delete(g.Contexts, s.id)
	if _, err := g.Done(s.owner, s.id); err != nil {
		return err
	}
	if log {
		if err := g.Log(s.owner, s.id); err != nil {
			return err
		}
	}
	return g.Delete(s.owner, s.id)
}

// deliver hands an answer to the stream; false when it has ended.
func (s *Stream) deliver(t *stream.Turn, a answer) bool {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return false
	}
	s.inbox = append(s.inbox, a)
	s.mu.Unlock()
	s.owner.Post(t, s.owner.Answered)
	return true
}

// TakeAnswer runs the guest's callback for the oldest answer; false when there is none. The VM is
// owned, the stream entered.
func (s *Stream) TakeAnswer() (bool, error) {
	s.mu.Lock()
	if len(s.inbox) == 0 {
		s.mu.Unlock()
		return false, nil
	}
	a := s.inbox[0]
	s.inbox = s.inbox[1:]
	s.mu.Unlock()
	return true, s.vm.answer(s.owner, a)
}

// HasAnswer tells whether TakeAnswer has one.
func (s *Stream) HasAnswer() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.inbox) > 0
}
