package wasmhost

import (
	"errors"

	"sidecar/api/stream"
)

// ErrUnserved is what Block answers when the VM has failed, or too many wait for it.
var ErrUnserved = errors.New("the VM does not serve")

// parked is a Waiter whose goroutine waits.
type parked struct{ ready chan bool }

// Ready implements Waiter.
func (p *parked) Ready(*stream.Turn) { p.ready <- true }

// Failed implements Waiter.
func (p *parked) Failed(*stream.Turn) { p.ready <- false }

// Block runs guest calls in the stream's VM and waits for its turn first: for goroutines that serve
// nothing but this stream and are inside none. It is bounded by the deadlines of those before it in the
// queue. A failure ends the VM.
func (s *Stream) Block(t *stream.Turn, run func() error) error {
	v := s.vm
	if !v.TryEnter(t) {
		w := &parked{ready: make(chan bool, 1)}
		switch v.Enter(t, w) {
		case Entered:
		case Queued:
			if !<-w.ready {
				return ErrUnserved
			}
			v.Own(t)
		case Overloaded, Dead:
			return ErrUnserved
		}
	}
	err := run()
	v.conclude(t, err)
	return err
}

// Leave ends a stream whose last calls Block has made: it lets go of the VM.
func (s *Stream) Leave(t *stream.Turn) {
	s.gone = true
	s.End(t, false)
}

// Last makes the calls that end a connection's context, in their order there: on_done, on_log,
// on_delete. The VM is owned.
func (s *Stream) Last() error { return s.finish(true) }
