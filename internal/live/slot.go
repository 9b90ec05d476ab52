package live

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"sidecar/internal/config/source"
	"sidecar/internal/task"
)

// Errors that an update may end with, besides those of its Compile and Warm.
var (
	// ErrSuperseded ends the warming of a version that a newer one, or the revert to the live one,
	// made pointless.
	ErrSuperseded = errors.New("superseded by a newer version")
	// ErrClosed ends updates of a slot that was closed.
	ErrClosed = errors.New("the resource was removed")
)

// Outcome tells what became of an update.
type Outcome uint8

// The outcomes.
const (
	// Unset is never the outcome of an update that has ended.
	Unset Outcome = iota
	// Swapped: the version is live.
	Swapped
	// Unchanged: the live version already means the same.
	Unchanged
	// Rejected: Compile or Warm failed; what was live, or warming in case of Compile, goes on.
	Rejected
	// Superseded: see ErrSuperseded and ErrClosed.
	Superseded
)

// Hooks are what a slot calls. All are optional.
type Hooks[T any] struct {
	// Warm readies a version before it goes live. It runs on a goroutine of its own and may block
	// until ctx ends, which a newer version makes happen. Without it a version goes live inside
	// Update.
	Warm func(ctx context.Context, v T) error
	// Swapped runs right after v went live and before old is retired (nil if there was none). It
	// must not call Update or Close of the same slot: the slot's lock is held, which is what keeps
	// these calls in order.
	Swapped func(v, old *Version[T])
	// Retire closes a version that nobody uses any more, or that never went live. It runs on the
	// goroutine that let go last.
	Retire func(v T)
	// Stripes is how many counters a version's users are spread over; 0 and 1 mean one.
	Stripes int
}

// Slot is the place of one resource. Make one with NewSlot.
type Slot[T any] struct {
	hooks Hooks[T]
	live  atomic.Pointer[Version[T]]

	mu      sync.Mutex // guards below
	pending *pending[T]
	closed  bool
}

// pending is a version that warms.
type pending[T any] struct {
	version *Version[T]
	cancel  context.CancelFunc
	done    []func(Outcome, error)
}

// NewSlot makes an empty slot.
func NewSlot[T any](hooks Hooks[T]) *Slot[T] { return &Slot[T]{hooks: hooks} }

// Load returns the live version, or nil. It is one atomic load; the version stays valid, but may be
// closed at any time unless it is acquired.
func (s *Slot[T]) Load() *Version[T] { return s.live.Load() }

// Acquire pins and returns the live version, or nil when there is none.
func (s *Slot[T]) Acquire(hint uint32) *Version[T] {
	for {
		v := s.live.Load()
		if v == nil || v.Acquire(hint) {
			return v
		}
		// v was retired after the load, so the pointer has changed already: no spinning.
	}
}

// Update brings the resource to a new version, r. compile is called at most once, before Update
// returns, with no lock held; it is not called when r means what the live or the warming version
// means. done (may be nil) is told the outcome exactly once: inside Update when nothing has to warm,
// else on the goroutine that ended the warming. Calls of Update for one slot must not overlap.
func (s *Slot[T]) Update(ctx context.Context, r *source.Resource, compile func() (T, error),
	done func(Outcome, error),
) {
	if done == nil {
		done = func(Outcome, error) {}
	}
	if s.known(r.Digest, done) {
		return
	}
	value, err := compile()
	if err != nil {
		done(Rejected, err)
		return
	}
	v := s.version(value, r)
	if s.hooks.Warm == nil {
		s.goLive(v, nil, done)
		return
	}
	s.warm(ctx, v, done)
}

// Deliver is Update with a resource that a subscription has given: the delivery is answered with the
// outcome, and then told it. A version that is superseded before it was warm is no error of the
// resource.
func (s *Slot[T]) Deliver(ctx context.Context, d *source.Delivery, compile func() (T, error), then func(Outcome)) {
	s.Update(ctx, d.Resource, compile, func(o Outcome, err error) {
		if o == Superseded {
			err = nil
		}
		d.Done(err)
		then(o)
	})
}

func (s *Slot[T]) version(value T, r *source.Resource) *Version[T] {
	v := &Version[T]{Value: value, Resource: r, retire: s.hooks.Retire}
	if s.hooks.Stripes > 1 {
		v.stripes = make([]stripe, s.hooks.Stripes)
	}
	return v
}

// known handles an update whose meaning is live or on its way.
func (s *Slot[T]) known(digest source.Digest, done func(Outcome, error)) bool {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		done(Superseded, ErrClosed)
		return true
	}
	if p := s.pending; p != nil && p.version.Resource.Digest == digest {
		p.done = append(p.done, done)
		s.mu.Unlock()
		return true
	}
	if v := s.live.Load(); v == nil || v.Resource.Digest != digest {
		s.mu.Unlock()
		return false
	}
	old := s.takePending()
	s.mu.Unlock()
	s.abandon(old, ErrSuperseded)
	done(Unchanged, nil)
	return true
}

// takePending empties the pending place; the caller holds mu and abandons what it got after it.
func (s *Slot[T]) takePending() *pending[T] {
	p := s.pending
	s.pending = nil
	return p
}

func (s *Slot[T]) abandon(p *pending[T], why error) {
	if p == nil {
		return
	}
	p.cancel()
	for _, done := range p.done {
		done(Superseded, why)
	}
}

func (s *Slot[T]) warm(ctx context.Context, v *Version[T], done func(Outcome, error)) {
	ctx, cancel := context.WithCancel(ctx)
	p := &pending[T]{version: v, cancel: cancel, done: []func(Outcome, error){done}}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		cancel()
		v.kill()
		done(Superseded, ErrClosed)
		return
	}
	old := s.takePending()
	s.pending = p
	s.mu.Unlock()
	s.abandon(old, ErrSuperseded)
	ended := false
	task.Go("live: warm", func() {
		err := s.hooks.Warm(ctx, v.Value)
		ended = true
		s.warmed(p, err)
	}, func(err *task.Panic) {
		if !ended { // else it was a callback that panicked, and the version may be live
			s.warmed(p, err)
		}
	})
}

// warmed ends the warming of p: live if it still is the pending one, else closed.
func (s *Slot[T]) warmed(p *pending[T], err error) {
	defer p.cancel()
	if err == nil {
		s.goLive(p.version, p, nil)
		return
	}
	s.mu.Lock()
	mine := s.pending == p
	if mine {
		s.pending = nil
	}
	s.mu.Unlock()
	p.version.kill()
	if !mine {
		return // its callers were told when it was superseded
	}
	for _, done := range p.done {
		done(Rejected, err)
	}
}

// goLive swaps v in. p is the pending it comes from; without one it supersedes any pending.
func (s *Slot[T]) goLive(v *Version[T], p *pending[T], done func(Outcome, error)) {
	s.mu.Lock()
	if s.closed || (p != nil && s.pending != p) {
		s.mu.Unlock()
		v.kill()
		if p == nil {
			done(Superseded, ErrClosed)
		}
		return
	}
	superseded := s.takePending()
	old := s.live.Swap(v)
	if s.hooks.Swapped != nil {
		s.hooks.Swapped(v, old)
	}
	s.mu.Unlock()
	if old != nil {
		old.kill()
	}
	if p == nil {
		s.abandon(superseded, ErrSuperseded)
		done(Swapped, nil)
		return
	}
	for _, done := range p.done {
		done(Swapped, nil)
	}
}

// Warming tells whether a version is being warmed.
func (s *Slot[T]) Warming() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending != nil
}

// Clear takes the resource away: the warming version is cancelled, the live one is retired and closed
// when its users are gone. The slot takes updates as one that is new.
func (s *Slot[T]) Clear() { s.empty(false) }

// Close is Clear for good: later updates end with ErrClosed.
func (s *Slot[T]) Close() { s.empty(true) }

func (s *Slot[T]) empty(forGood bool) {
	s.mu.Lock()
	s.closed = s.closed || forGood
	p := s.takePending()
	old := s.live.Swap(nil)
	s.mu.Unlock()
	s.abandon(p, ErrClosed)
	if old != nil {
		old.kill()
	}
}
