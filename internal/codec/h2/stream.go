package h2

import (
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
)

// Stream is one stream of a connection and the Encoder of what we send on it. It is pooled; all fields
// but those set by begin are guarded by the connection's lock.
type Stream struct {
	// Set by begin, never changed while the stream lives.
	c        *conn
	resumeFn func(*stream.Turn) // once for the pooled object

	id     uint32
	target stream.Target
	m      *header.Map // received
	tm     *header.Map // trailers received

	// Receiving.
	inq        []*chunk // data that waits, from inHead on
	inHead     int
	queued     int64   // bytes of it
	inEnd      endKind // what follows it
	left       int64   // of the content-length; -1: not known
	recvWin    int64   // what the peer may still send
	window     int64   // what the peer is granted at most, now
	slow       bool    // something had to wait since it was granted something
	interim    int     // 1xx heads read
	headed     bool    // the final head was read
	readEnd    bool    // END_STREAM was read
	paused     bool
	delivering bool // somebody posts data: others queue theirs
	pending    int  // calls of resume that are to come: the object must not be used again before them
	noRoom     bool // one of them comes when the stream's mailbox has room
	told       bool // EventReset was posted, or the user has reset it

	// Sending.
	outq     buf.Chain
	trailers *header.Map // behind outq
	sendWin  int64
	outLeft  int64 // of the content-length we announced; -1: not known
	outEnd   endKind
	rstAfter bool
	rstCode  code
	flush    time.Duration // how long outq may wait for the peer once nobody holds the stream
	full     bool
	listed   bool // in c.ready
	headSent bool
	whole    bool // the end was encoded or is queued
	sentEnd  bool // the end is in the output
	isHead   bool // the request is HEAD
	connect  bool // the request is CONNECT
	upgrade  string
	timer    *time.Timer

	gone     bool // out of the table
	released bool
	pooled   bool
	next     *Stream // of after.recycle

	traffic stream.Traffic
}

type endKind uint8

const (
	endNone endKind = iota
	endData
	endTrailers
)

// chunk is a piece of received data.
type chunk struct {
	block *buf.Block
	p     []byte
	room  int // behind p, if it is ours alone
	held  int // bytes whose connection window is returned as they are delivered
}

func (k *chunk) free() {
	k.block.Put()
	*k = chunk{}
	chunks.Put(k)
}

const (
	// streamHigh is how much of a stream waits before its source should stop; what comes on top of it
	// still fits into a pooled block.
	streamHigh = 48 << 10
	streamLow  = 16 << 10
)

//nolint:gochecknoglobals // free lists
var (
	streams = buf.Pool[Stream]{New: func() *Stream { return new(Stream) }}
	maps    = buf.Pool[header.Map]{New: func() *header.Map { return new(header.Map) }}
	chunks  = buf.Pool[chunk]{New: func() *chunk { return new(chunk) }}
)

// begin takes a stream from the pool. The caller holds c.mu and puts it into the table.
func (c *conn) begin(id uint32) *Stream {
	s := streams.Get()
	if s.resumeFn == nil {
		s.resumeFn = s.resume // once for the pooled object: it allocates
	}
	s.c, s.id = c, id
	s.left, s.outLeft = -1, -1
	s.recvWin, s.sendWin = c.window, c.peerWin
	s.window, s.flush = s.recvWin, c.opt.FlushTimeout
	if c.streams == nil {
		c.streams = map[uint32]*Stream{}
	}
	c.streams[id] = s
	c.opened++
	c.opt.Stats.StreamsActive.Inc()
	return s
}

func giveMap(m *header.Map) {
	if m != nil {
		m.Reset()
		maps.Put(m)
	}
}

// giveBack returns the stream to the pool: it is out of the table, released, and nobody delivers.
func (s *Stream) giveBack() {
	giveMap(s.m)
	giveMap(s.tm)
	giveMap(s.trailers)
	if s.timer != nil {
		s.timer.Stop()
	}
	*s = Stream{inq: s.inq[:0], resumeFn: s.resumeFn}
	streams.Put(s)
}

func (s *Stream) dropIn(c *conn) {
	for s.waiting() {
		k := s.pop(c)
		c.owed += int64(k.held) // goes back with what is received next
		k.free()
	}
	s.inEnd = endNone
}

func (s *Stream) dropOut(c *conn) {
	if n := s.outq.Len(); n > 0 {
		c.opt.Stats.PendingSendBytes.Add(-int64(n))
	}
	s.outq.Reset()
	giveMap(s.trailers)
	s.trailers, s.outEnd, s.full = nil, endNone, false
	s.unlisted(c)
}

// unlisted takes the stream off the list of those that may send.
func (s *Stream) unlisted(c *conn) {
	if !s.listed {
		return
	}
	s.listed = false
	for i, x := range c.ready {
		if x == s {
			copy(c.ready[i:], c.ready[i+1:])
			c.ready[len(c.ready)-1] = nil
			c.ready = c.ready[:len(c.ready)-1]
			return
		}
	}
}

// Protocol implements stream.Encoder.
func (s *Stream) Protocol() stream.Protocol { return stream.HTTP2 }

// Full implements stream.Encoder.
func (s *Stream) Full() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.full
}

// Traffic implements stream.Encoder.
func (s *Stream) Traffic() stream.Traffic {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.traffic
}
