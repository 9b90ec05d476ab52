package stream

import (
	"runtime"
	"time"

	"sidecar/internal/buf"
)

// Turn is what one goroutine carries while it works on streams: the time, the stream it is inside
// of, what has to run after that stream is left, and the connections it wrote to.
//
// A connection's reader has one Turn for its life and ends it (End) whenever it has nothing more to
// handle. Other goroutines (timers, call-outs) borrow one with Do. A Turn is never shared.
type Turn struct {
	now     time.Time
	current *Monitor
	later   []deferred
	emptied bool // runLater is on the stack
	dirty   []Flusher
	// slot holds the event being handled: an event on the stack would move to the heap at the
	// interface call that handles it.
	slot Event
}

// Flusher is a connection with bytes to send. Flush makes at most one write that does not block.
type Flusher interface {
	Flush(t *Turn)
	// Shared tells that several streams write to the connection, so that it pays to let other ready
	// readers add to the same batch first.
	Shared() bool
}

type deferred struct {
	m   *Monitor
	gen uint32
	e   Event
	run func(*Turn)
}

//nolint:gochecknoglobals // free list
var turns = buf.Pool[Turn]{New: func() *Turn { return new(Turn) }}

// NewTurn returns a Turn for a goroutine that keeps it.
func NewTurn() *Turn { return new(Turn) }

// Do runs f with a Turn and ends it: for goroutines that are no connection's reader.
func Do(f func(t *Turn)) {
	t := turns.Get()
	f(t)
	t.End()
	turns.Put(t)
}

// Now returns the time as read once in this Turn; it has wall and monotonic parts.
func (t *Turn) Now() time.Time {
	if t.now.IsZero() {
		t.now = time.Now()
	}
	return t.now
}

// epoch is what Nano counts from.
//
//nolint:gochecknoglobals // set once
var epoch = time.Now()

// Nano returns Now as nanoseconds on a clock that never goes back, for deadlines.
func (t *Turn) Nano() int64 { return int64(t.Now().Sub(epoch)) }

// Fresh reads the clock again: for goroutines that have slept since.
func (t *Turn) Fresh() { t.now = time.Time{} }

// Dirty notes that f has bytes to send; they are sent by End. The caller makes sure that f is noted
// once per batch (it holds a flag under its own lock).
func (t *Turn) Dirty(f Flusher) { t.dirty = append(t.dirty, f) }

// Holder returns the block that p is a part of, if that is known: it is, inside a stream, for data that
// came with the event being handled and was passed on in place. Whoever keeps p longer than the event
// may share the block (buf.Block.Share) instead of copying p; nobody writes to p any more then.
func (t *Turn) Holder(p []byte) *buf.Block {
	if b := t.slot.Block; b != nil && t.current != nil && len(p) > 0 && b.Holds(p) {
		return b
	}
	return nil
}

// Later runs f after the stream that this goroutine is inside of is left, at once if there is none:
// for work that enters another stream or calls back into one.
func (t *Turn) Later(f func(*Turn)) {
	if t.current == nil {
		f(t)
		return
	}
	t.later = append(t.later, deferred{run: f})
}

// runLater empties the run list. Nothing on it runs inside a stream. What runs may post, which ends
// here again: that call leaves the list to the one that is walking it.
func (t *Turn) runLater() {
	if t.emptied {
		return
	}
	t.emptied = true
	defer func() { t.emptied = false }()
	for i := 0; i < len(t.later); i++ {
		d := t.later[i]
		t.later[i] = deferred{}
		if d.run != nil {
			d.run(t)
			continue
		}
		d.m.enter(t, d.gen, &d.e)
	}
	t.later = t.later[:0]
}

// End flushes every connection written to in this Turn and forgets the time. It must not be called
// inside a stream.
func (t *Turn) End() {
	if len(t.later) > 0 {
		t.runLater()
	}
	if len(t.dirty) > 0 {
		t.flush()
	}
	t.now = time.Time{}
}

func (t *Turn) flush() {
	for _, f := range t.dirty {
		if f.Shared() {
			// Readers that are ready now add to the same batches: three microseconds a request less on
			// HTTP/2 (datapath.md, pitfall 1).
			runtime.Gosched()
			break
		}
	}
	// A flush can post (a watermark passed), and what that runs can write to further connections.
	for i := 0; i < len(t.dirty); i++ {
		t.dirty[i].Flush(t)
		if len(t.later) > 0 {
			t.runLater()
		}
	}
	clear(t.dirty)
	t.dirty = t.dirty[:0]
}
