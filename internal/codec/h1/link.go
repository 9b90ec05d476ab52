package h1

import (
	"sync"
	"sync/atomic"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/wire"
)

//nolint:gochecknoglobals // free list
var maps = buf.Pool[header.Map]{New: func() *header.Map { return new(header.Map) }}

// giveMap returns a map to the free list; its strings are void.
func giveMap(m *header.Map) {
	if m != nil {
		m.Reset()
		maps.Put(m)
	}
}

// link is what the two ends have in common: a socket, the stream that uses it now, and a reader
// that waits where that stream tells it to.
type link struct {
	// Set by new, never changed.
	w      *wire.Conn
	wantFn func() bool
	wake   chan struct{}

	// Owned by the reader.
	in       buf.Buffer // what was read and not used yet
	needMore bool       // in holds the beginning of something
	size     int        // of the next read

	waiting atomic.Bool // the reader sleeps, or is about to, until wake
	paused  atomic.Bool
	closing atomic.Bool // nothing that is read matters any more
	local   atomic.Bool // we close, not the peer

	sent, received         atomic.Uint64 // of the current stream
	headSent, headReceived atomic.Uint64

	mu     sync.Mutex // guards below; a leaf
	target stream.Target
}

func (l *link) init(w *wire.Conn, want func() bool) {
	l.w, l.wantFn = w, want
	l.wake = make(chan struct{}, 1)
	l.size = buf.Read
	w.SetDrained(l.drained)
}

func (l *link) setTarget(x stream.Target) {
	l.mu.Lock()
	l.target = x
	l.mu.Unlock()
}

func (l *link) currentTarget() stream.Target {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.target
}

// drained is called by whoever flushed the output below the low watermark.
func (l *link) drained(t *stream.Turn) {
	l.awake()
	l.currentTarget().Post(t, stream.Event{Kind: stream.EventDrained})
}

// sleep makes the reader wait while blocked is true. Whoever changes what blocked looks at calls
// awake afterwards.
func (l *link) sleep(blocked func() bool) {
	for blocked() {
		l.waiting.Store(true)
		if blocked() {
			<-l.wake
			continue
		}
		if !l.waiting.Swap(false) {
			<-l.wake // the token is on its way
		}
	}
}

func (l *link) awake() {
	if l.waiting.Swap(false) {
		l.wake <- struct{}{}
	}
}

// Pause implements stream.Encoder.
func (l *link) Pause(_ *stream.Turn, paused bool) {
	l.paused.Store(paused)
	if !paused {
		l.awake()
	}
}

// Full implements stream.Encoder.
func (l *link) Full() bool { return l.w.Full() }

// Traffic implements stream.Encoder.
func (l *link) Traffic() stream.Traffic {
	return stream.Traffic{
		WireSent: l.sent.Load(), WireReceived: l.received.Load(),
		HeaderSent: l.headSent.Load(), HeaderReceived: l.headReceived.Load(),
	}
}

func (l *link) resetTraffic() {
	l.sent.Store(0)
	l.received.Store(0)
	l.headSent.Store(0)
	l.headReceived.Store(0)
}

// input joins what was left with a new block, calls use, which returns how much it took, and keeps
// the rest.
func (l *link) input(t *stream.Turn, p []byte, use func(t *stream.Turn, p []byte) int) {
	if l.in.Len() > 0 {
		l.in.Append(p)
		l.in.Consume(use(t, l.in.Bytes()))
		return
	}
	if n := use(t, p); n < len(p) {
		l.in.Append(p[n:])
	}
}

// grow chooses the size of the next read by how the last one went: a full block means bulk.
func (l *link) grow(n int) {
	if n >= l.size {
		l.size = buf.Bulk
	} else if n < buf.Read {
		l.size = buf.Read
	}
}

// giveRoom waits until the stream's queue has room. What was written so far is sent before, since
// whoever empties the queue may wait for it.
func (l *link) giveRoom(t *stream.Turn, m *stream.Monitor) {
	if m == nil || m.HasRoom() {
		return
	}
	t.End()
	m.WaitRoom()
}
