package stream

import (
	"sync"
	"time"

	"sidecar/api/header"
	"sidecar/internal/buf"
	"sidecar/internal/task"
)

// EventKind says what an Event tells.
type EventKind uint8

// The events of a stream. Codecs post Headers to Drained, the pool Ready and Failed; the others come
// from timers, filters and call-outs.
const (
	EventNone     EventKind = iota
	EventHeaders            // Map: the head; End
	EventInterim            // Map: a 1xx head
	EventData               // Data; End
	EventTrailers           // Map
	EventReset              // Fault: the peer or the connection ended the stream
	EventRejected           // Fault: the codec refuses what it read; a local reply is due
	EventDrained            // what was sent is below the low watermark again
	EventReady              // Ref: the upstream stream that the pool hands over
	EventFailed             // Fault: no upstream stream is to be had
	EventTimer              // a deadline may have passed
	EventResume             // a filter that waited goes on; Seq is its token
	EventCall               // Ref is a func(*Turn)
	EventFinish             // both directions are over: the stream posts it to itself
)

// Event is one thing that happened to a stream. It is passed by value; Data and Map belong to the
// poster and hold only during Receive, except that a queued event owns a copy of Data.
type Event struct {
	To   Receiver
	Map  *header.Map
	Data []byte
	// Block, if not nil, is what Data is a part of, and which the poster holds: what keeps Data may hold
	// it too instead of copying (Turn.Holder). Data is the receiver's then, to be written to in place.
	Block *buf.Block
	Fault *Fault
	Ref   any
	Seq   uint32
	Kind  EventKind
	End   bool
	owned *buf.Block
}

// Receiver handles events of a stream. Receive runs inside the stream: never twice at a time, and
// it must not block.
type Receiver interface {
	Receive(t *Turn, e *Event)
}

// Target is where a codec or a pool posts the events of one stream. The zero Target drops them.
type Target struct {
	M   *Monitor
	To  Receiver
	Gen uint32
	// Seq is put into every event that has none: the receiver's number of the attempt that the target
	// was made for, so that it can drop what an earlier one still had under way.
	Seq uint32
}

// Post hands e to the target's stream.
func (x Target) Post(t *Turn, e Event) {
	if x.M == nil {
		return
	}
	e.To = x.To
	if e.Seq == 0 {
		e.Seq = x.Seq
	}
	x.M.post(t, x.Gen, &e)
}

// Monitor makes everything that happens to one stream happen one at a time, without ever making a
// poster wait: an event runs at once when nobody runs the stream, else it is queued for the
// goroutine that does. A pooled stream keeps its Monitor; events for an earlier use of it (another
// generation) are dropped.
type Monitor struct {
	// OnPanic, if not nil, is called inside the stream when a receiver has panicked: it ends the stream,
	// and whoever ran it goes on. It is set before the monitor is shared. Without it the panic ends the
	// goroutine.
	OnPanic func(t *Turn, value any)

	mu      sync.Mutex // guards below; a leaf: nothing is called while it is held
	gen     uint32
	running bool
	queue   []Event
	queued  int
	waiting chan struct{}
	rooms   []func(*Turn) // of NotifyRoom
}

// runLimit bounds what one goroutine does for a stream in one go, in events and in time; what is
// left goes to a fresh goroutine, since a reader that is away from its socket stalls its other
// streams.
const (
	runLimit     = 64
	runLimitTime = time.Millisecond
)

// Gen returns the current generation. Call it inside the stream, or before it is shared.
func (m *Monitor) Gen() uint32 { return m.gen }

// Retire ends the current generation: every event posted for it, queued ones too, is dropped. It is
// called inside the stream, as the last thing of its life.
func (m *Monitor) Retire() {
	m.mu.Lock()
	m.gen++
	for i := range m.queue {
		m.queue[i].release()
	}
	clear(m.queue)
	m.queue, m.queued = m.queue[:0], 0
	m.mu.Unlock()
}

// Post runs e inside the stream, now or when the goroutine that runs it gets there. Data is copied
// if it has to wait.
func (m *Monitor) Post(t *Turn, gen uint32, e Event) { m.post(t, gen, &e) }

// post takes e by reference: an event is larger than a cache line, and on the plain path it is copied
// once, into the Turn.
func (m *Monitor) post(t *Turn, gen uint32, e *Event) {
	if t.current != nil {
		e.own()
		if t.current == m {
			m.enqueue(gen, e)
			return
		}
		t.later = append(t.later, deferred{m: m, gen: gen, e: *e})
		return
	}
	m.enter(t, gen, e)
	if len(t.later) > 0 {
		t.runLater()
	}
}

func (m *Monitor) enqueue(gen uint32, e *Event) {
	m.mu.Lock()
	if m.gen != gen {
		m.mu.Unlock()
		e.release()
		return
	}
	m.queue = append(m.queue, *e)
	m.queued += len(e.Data)
	m.mu.Unlock()
}

// enter runs e and whatever is queued behind it, if nobody runs the stream.
func (m *Monitor) enter(t *Turn, gen uint32, e *Event) {
	m.mu.Lock()
	if m.gen != gen {
		m.mu.Unlock()
		e.release()
		return
	}
	if m.running {
		m.mu.Unlock()
		// The runner may leave meanwhile; handing over looks again under the lock.
		m.handOver(t, gen, e)
		return
	}
	m.running = true
	m.mu.Unlock()
	t.current = m
	t.slot = *e
	t.handle()
	m.drain(t)
	t.current = nil
}

func (m *Monitor) handOver(t *Turn, gen uint32, e *Event) {
	e.own()
	m.mu.Lock()
	if m.gen != gen {
		m.mu.Unlock()
		e.release()
		return
	}
	m.queue = append(m.queue, *e)
	m.queued += len(e.Data)
	if m.running {
		m.mu.Unlock()
		return
	}
	m.running = true
	m.mu.Unlock()
	t.current = m
	m.drain(t)
	t.current = nil
}

// handle runs the event in the Turn's slot; the caller is inside the stream.
func (t *Turn) handle() {
	t.receive()
	t.slot.release()
}

// receive is the root of all that a stream does: with OnPanic, a panic goes no further up.
func (t *Turn) receive() {
	defer t.rescue()
	t.slot.To.Receive(t, &t.slot)
}

func (t *Turn) rescue() {
	m := t.current
	if m.OnPanic == nil {
		return
	}
	if v := recover(); v != nil {
		m.OnPanic(t, v)
	}
}

// drain runs queued events until there are none and leaves the stream. Emptiness is tested and the
// stream left under one hold of the lock, so that no event is stranded.
func (m *Monitor) drain(t *Turn) {
	var start time.Time
	for n := 0; ; n++ {
		m.mu.Lock()
		if len(m.queue) == 0 {
			m.running = false
			m.wake()
			m.tellRoom(t)
			m.mu.Unlock()
			return
		}
		if n == 1 {
			start = time.Now()
		}
		if n >= runLimit || (n > 1 && time.Since(start) > runLimitTime) {
			m.mu.Unlock()
			task.Go("stream", func() { Do(m.adopt) }, nil)
			return
		}
		t.slot = m.queue[0]
		copy(m.queue, m.queue[1:])
		m.queue[len(m.queue)-1] = Event{}
		m.queue = m.queue[:len(m.queue)-1]
		m.queued -= len(t.slot.Data)
		m.wake()
		m.tellRoom(t)
		m.mu.Unlock()
		t.handle()
	}
}

// adopt goes on running a stream that another goroutine has left running.
func (m *Monitor) adopt(t *Turn) {
	t.current = m
	m.drain(t)
	t.current = nil
	t.runLater()
}

func (m *Monitor) wake() {
	if m.waiting != nil {
		close(m.waiting)
		m.waiting = nil
	}
}

// queueLimit is how much data may wait for a busy stream before its source must stop.
const queueLimit = 64 << 10

// HasRoom tells whether WaitRoom would return at once.
func (m *Monitor) HasRoom() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.queued <= queueLimit
}

// WaitRoom blocks while more than queueLimit bytes wait for a busy stream. Only the reader of a
// connection that serves this one stream may call it, outside every stream.
func (m *Monitor) WaitRoom() {
	for {
		m.mu.Lock()
		if m.queued <= queueLimit {
			m.mu.Unlock()
			return
		}
		if m.waiting == nil {
			m.waiting = make(chan struct{})
		}
		c := m.waiting
		m.mu.Unlock()
		<-c
	}
}

// NotifyRoom has f called, once, when there is room for more data (HasRoom), by the goroutine that runs
// the stream, once it has left it. It returns false, and f is not called, if there is room already. It
// never blocks, so that the reader of a connection with many streams may use it. f is called even if the
// generation has ended meanwhile.
func (m *Monitor) NotifyRoom(f func(*Turn)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.queued <= queueLimit {
		return false
	}
	m.rooms = append(m.rooms, f)
	return true
}

// tellRoom puts what waits for room on the Turn's list. The caller runs the stream and holds the lock.
func (m *Monitor) tellRoom(t *Turn) {
	if len(m.rooms) == 0 || m.queued > queueLimit {
		return
	}
	for i, f := range m.rooms {
		t.later = append(t.later, deferred{run: f})
		m.rooms[i] = nil
	}
	m.rooms = m.rooms[:0]
}

// own gives the event its own copy of Data.
func (e *Event) own() {
	if len(e.Data) == 0 || e.owned != nil {
		return
	}
	if e.Block != nil && len(e.Data) >= buf.MinShare {
		e.owned = e.Block.Share()
		return
	}
	e.owned = buf.GetBlock(len(e.Data))
	e.Data = e.owned.B[:copy(e.owned.B, e.Data)]
	e.Block = e.owned
}

func (e *Event) release() {
	e.Block = nil
	if e.owned != nil {
		e.owned.Put()
		e.owned, e.Data = nil, nil
	}
}
