// Package wire is one socket as the data path uses it: read by one goroutine into memory that is
// borrowed only while there is something to read, written by anybody into one output buffer that is
// flushed without ever blocking.
//
// A flush makes one write that does not wait; what the kernel does not take goes to a writer
// goroutine that lives until the buffer is empty (datapath.md, rule 1). Nothing is called, posted or
// written while the connection's lock is held.
//
// A connection that was made Secure goes on in the same way: crypto/tls works between the socket and
// those memories, decrypting on the reader's goroutine and encrypting on that of whoever flushes.
package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/task"
)

// HighWatermark is how many bytes may wait to be sent before the sources should stop; they go on
// below half of it.
const HighWatermark = 128 << 10

// DefaultLinger is how long a peer that reads nothing may keep a connection that was closed with
// output left.
const DefaultLinger = 30 * time.Second

// Options are what a connection is made with. The zero value is valid.
type Options struct {
	// Rx and Tx count bytes read and written, if not nil.
	Rx, Tx *stats.Counter
	// High is the high watermark in bytes; 0 is HighWatermark.
	High int
	// Drained is called when a connection that was Full is below the low watermark again: by the
	// goroutine that flushed, outside streams and locks.
	Drained func(t *stream.Turn)
	// Shared says that several streams write to it.
	Shared bool
	// Linger is how long a connection that is to be closed waits for a peer that takes nothing of what
	// is left to send; 0 is DefaultLinger.
	Linger time.Duration
}

// Conn is one connected TCP or unix socket, with or without TLS.
type Conn struct {
	// Set by New, never changed.
	nc       net.Conn
	raw      syscall.RawConn
	opt      Options
	rx, tx   *stats.Counter // of Count
	readFn   func(fd uintptr) bool
	tryFn    func(fd uintptr) bool
	writeFn  func(fd uintptr) bool
	directFn func(fd uintptr) bool

	sec atomic.Pointer[secure] // set once, by Secure

	// Owned by the reader.
	want    func() bool
	block   *buf.Block
	size    int
	n       int
	rest    *buf.Buffer // goes in front of what is read; nil: nothing
	readErr error
	early   buf.Buffer

	// Owned by whoever set writing.
	chunk    buf.Chain
	records  buf.Chain // what goes to the socket before the rest of chunk; TLS only
	farewell bool      // a close_notify follows chunk
	writeErr error
	direct   []byte
	low      bool // stopped writing to tell the sources that the low watermark is reached

	taps   *taps        // set by Tap, nil without
	tapped atomic.Int32 // how many of them still look

	closed atomic.Bool
	// lingering is set once what remains is only sent to be rid of it: the peer has to go on reading.
	lingering atomic.Bool

	takes atomic.Uint64

	mu      sync.Mutex // guards below; a leaf
	out     buf.Chain
	sealed  buf.Chain // records that crypto/tls has made, in order; TLS only
	sending int       // bytes in chunk and records
	writing bool
	dirty   bool
	full    bool
	shut    bool // half-close once everything is sent
	isShut  bool
	closeWr bool // close once everything is sent
	broken  bool
	parted  bool          // nothing follows in TLS: a close_notify or an alert was made, or none is to be
	sent    chan struct{} // closed when everything is sent; nil while nobody waits for that
}

type rawConner interface {
	SyscallConn() (syscall.RawConn, error)
}

// ErrNotSocket is returned by New for a net.Conn that has no file descriptor.
var ErrNotSocket = errors.New("connection has no socket")

// New takes over nc, which must be a TCP or unix stream socket.
func New(nc net.Conn, opt Options) (*Conn, error) {
	rc, ok := nc.(rawConner)
	if !ok {
		return nil, ErrNotSocket
	}
	raw, err := rc.SyscallConn()
	if err != nil {
		return nil, err
	}
	if opt.High == 0 {
		opt.High = HighWatermark
	}
	if opt.Linger == 0 {
		opt.Linger = DefaultLinger
	}
	c := &Conn{nc: nc, raw: raw, opt: opt}
	c.readFn, c.tryFn, c.writeFn = c.readReady, c.writeOnce, c.writeReady
	c.directFn = c.writeDirect
	return c, nil
}

// SetDrained replaces Options.Drained. Call it before anything is written.
func (c *Conn) SetDrained(f func(t *stream.Turn)) { c.opt.Drained = f }

// Count has bytes read and written counted, besides what Options say. Call it before the connection
// is used.
func (c *Conn) Count(rx, tx *stats.Counter) { c.rx, c.tx = rx, tx }

func (c *Conn) countRx(n int) {
	if c.opt.Rx != nil {
		c.opt.Rx.Add(uint64(n))
	}
	if c.rx != nil {
		c.rx.Add(uint64(n))
	}
}

func (c *Conn) countTx(n int) {
	if c.opt.Tx != nil {
		c.opt.Tx.Add(uint64(n))
	}
	if c.tx != nil {
		c.tx.Add(uint64(n))
	}
}

// Net returns the socket for options and addresses; it must not be read or written.
func (c *Conn) Net() net.Conn { return c.nc }

// Raw returns the raw socket, for those who move bytes by themselves (splice). Nothing may be
// buffered in the connection then.
func (c *Conn) Raw() syscall.RawConn { return c.raw }

// Preload puts bytes that were already read in front of what the socket has. Call it before Read.
func (c *Conn) Preload(p []byte) { c.early.Append(p) }

// Read waits until there is something to do for the reader, and only its goroutine calls it. While
// want returns true it reads up to size bytes into a pooled block, which the caller puts back; while
// want returns false it only waits until the socket is readable and returns a nil block without an
// error. The end of the peer's data is io.EOF in both cases. want is asked again at each wake-up,
// since the connection's state may have changed while the reader was parked.
func (c *Conn) Read(size int, want func() bool) (*buf.Block, int, error) {
	return c.ReadBehind(nil, size, want)
}

// ReadBehind is Read with rest, if it is not nil, in front of what is read: the beginning of something
// whose end had not come. Once there is more, its bytes are moved to the block and count in n.
func (c *Conn) ReadBehind(rest *buf.Buffer, size int, want func() bool) (*buf.Block, int, error) {
	if rest != nil && rest.Len() > 0 {
		size = max(min(rest.Len()+buf.Read, buf.Bulk), rest.Len()+buf.Small, size)
	} else {
		rest = nil
	}
	if c.taps == nil {
		c.rest = rest
		return c.readPlain(size, want)
	}
	b, n, err := c.readTapped(size, want)
	if b == nil || rest == nil {
		return b, n, err
	}
	rest.Append(b.B[:n])
	b.Put()
	b = buf.GetBlock(rest.Len())
	n = copy(b.B, rest.Bytes())
	rest.Reset()
	return b, n, err
}

// readPlain is ReadBehind without taps.
func (c *Conn) readPlain(size int, want func() bool) (*buf.Block, int, error) {
	if c.early.Len() > 0 { // with TLS plaintext: Secure has taken what was there before
		if !want() {
			return nil, 0, nil
		}
		left := c.front()
		b := buf.GetBlock(max(size, left+c.early.Len()))
		n := c.moveRest(b)
		n += copy(b.B[n:], c.early.Bytes())
		c.early.Reset()
		return b, n, nil
	}
	if s := c.sec.Load(); s != nil {
		return c.readSecure(s, size, want)
	}
	c.want, c.size, c.n, c.block, c.readErr = want, size, 0, nil, nil
	err := c.raw.Read(c.readFn)
	if c.readErr != nil {
		err = c.readErr
	}
	b := c.block
	c.block, c.want = nil, nil
	return b, c.n, err
}

// readReady is called by the poller's loop: false parks the goroutine until the socket is readable.
// The block is given back before parking, so that an idle connection holds no memory for reading.
func (c *Conn) readReady(fd uintptr) bool {
	if !c.want() {
		return c.peek(int(fd))
	}
	b := buf.GetBlock(c.size)
	front := c.front()
	for {
		n, err := buf.ReadFD(int(fd), b.B[front:])
		switch {
		case n > 0:
			c.block, c.n = b, n+c.moveRest(b)
			c.countRx(n)
			return true
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			b.Put()
			return false
		case err != 0:
			c.readErr = err
		default:
			c.readErr = io.EOF
		}
		b.Put()
		return true
	}
}

// front is how much room what is put in front of the next block takes.
func (c *Conn) front() int {
	if c.rest == nil {
		return 0
	}
	return c.rest.Len()
}

// moveRest puts it there.
func (c *Conn) moveRest(b *buf.Block) int {
	if c.rest == nil {
		return 0
	}
	n := copy(b.B, c.rest.Bytes())
	c.rest.Reset()
	return n
}

func (c *Conn) peek(fd int) bool {
	var one [1]byte
	for {
		n, err := buf.PeekFD(fd, one[:])
		switch {
		case n > 0:
			return true
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return false
		case err != 0:
			c.readErr = err
		default:
			c.readErr = io.EOF
		}
		return true
	}
}

// Begin locks the output and returns it for appending; End must follow at once. Nothing else may be
// called between the two.
func (c *Conn) Begin() *buf.Chain {
	c.mu.Lock()
	return &c.out
}

// End unlocks the output and has it flushed at the end of the Turn.
func (c *Conn) End(t *stream.Turn) {
	if c.broken {
		c.out.Reset()
		c.mu.Unlock()
		return
	}
	note := !c.dirty && c.out.Len() > 0
	c.dirty = c.dirty || note
	if c.out.Len()+c.sending > c.opt.High {
		c.full = true
	}
	c.mu.Unlock()
	if note {
		t.Dirty(c)
	}
}

// Write appends p to the output.
func (c *Conn) Write(t *stream.Turn, p []byte) {
	c.Begin().Append(p)
	c.End(t)
}

// Full tells that the high watermark was passed and the low one not yet reached again.
func (c *Conn) Full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.full
}

// Room tells whether a source may go on to write: false above the watermark, and an error once
// nothing that is written arrives any more.
func (c *Conn) Room() (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return false, net.ErrClosed
	}
	return !c.full, nil
}

// AwaitReset parks the reader until the peer resets the connection or it is closed (true), or until
// SetReadDeadline wakes it (false). Data and the end of the peer's data stay in the socket.
func (c *Conn) AwaitReset() bool {
	err := c.raw.Read(c.failed)
	return err == nil || !errors.Is(err, os.ErrDeadlineExceeded)
}

// failed tells whether the socket has an error pending.
func (c *Conn) failed(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLERR != 0
}

// Pending returns the bytes that the kernel has not taken yet.
func (c *Conn) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Len() + c.sealed.Len() + c.sending
}

// Takes counts how often the output was taken to be sent: what was in it then has left when it is
// taken the next time.
func (c *Conn) Takes() uint64 { return c.takes.Load() }

// Shared implements stream.Flusher.
func (c *Conn) Shared() bool { return c.opt.Shared }

// Flush sends what the kernel takes now. It implements stream.Flusher.
func (c *Conn) Flush(t *stream.Turn) {
	c.mu.Lock()
	c.dirty = false
	for {
		if c.writing || !c.waits() {
			c.mu.Unlock()
			return
		}
		c.take()
		c.mu.Unlock()
		c.passWrite()
		if err := c.raw.Write(c.tryFn); err != nil && c.writeErr == nil {
			c.writeErr = err
		}
		if c.writeErr == nil && c.unsent() > 0 {
			task.Go("connection writer", c.writeLoop, func(*task.Panic) { c.Close() })
			return
		}
		if c.settle(t) {
			return
		}
		c.mu.Lock()
	}
}

// waits tells whether there is something to send. The caller holds the lock.
func (c *Conn) waits() bool { return c.out.Len() > 0 || c.sealed.Len() > 0 || c.parting() }

// take moves the output to the chunk being written. The caller holds the lock.
func (c *Conn) take() {
	c.writing = true
	c.takes.Add(1)
	c.chunk.Swap(&c.out)
	c.records.Swap(&c.sealed)
	c.sending = c.chunk.Len() + c.records.Len()
	if c.parting() {
		c.parted, c.farewell = true, true
	}
}

// unsent is what the writer has left of what it took.
func (c *Conn) unsent() int {
	n := c.chunk.Len() + c.records.Len() + len(c.direct)
	if c.farewell {
		n++
	}
	return n
}

// settle is called by the writer with an empty chunk or an error; it tells whether writing ended.
func (c *Conn) settle(t *stream.Turn) bool {
	err := c.writeErr
	c.mu.Lock()
	c.sending = c.chunk.Len() + c.records.Len()
	if err != nil {
		c.drop()
	}
	drained := c.full && c.out.Len()+c.sending <= c.opt.High/2
	if drained {
		c.full = false
	}
	done := !c.waits()
	c.writing = false
	var act func() error
	var sent chan struct{}
	if done {
		act = c.ending()
		sent, c.sent = c.sent, nil
	}
	c.mu.Unlock()
	if act != nil {
		_ = act() // the peer may have gone already
	}
	if sent != nil {
		close(sent)
	}
	if drained && c.opt.Drained != nil {
		c.opt.Drained(t)
	}
	return done
}

// drop makes what waits, and what is still to be written, nothing. The caller is the writer and holds
// the lock.
func (c *Conn) drop() {
	c.broken, c.farewell, c.sending = true, false, 0
	c.chunk.Reset()
	c.records.Reset()
	c.out.Reset()
	c.sealed.Reset()
}

// ending returns what was put off until everything is sent. The caller holds the lock.
func (c *Conn) ending() func() error {
	switch {
	case c.closeWr:
		return c.closeNow
	case c.shut && !c.isShut:
		c.isShut = true
		return c.closeWrite
	}
	return nil
}

// writeLoop sends the chunk, and what is appended meanwhile, waiting for the peer.
func (c *Conn) writeLoop() {
	for {
		c.low = false
		if err := c.raw.Write(c.writeFn); err != nil && c.writeErr == nil {
			c.writeErr = err
		}
		if c.low && c.writeErr == nil {
			// Outside raw.Write: whoever is told may close the connection, which waits for that to end.
			if c.opt.Drained != nil {
				stream.Do(c.opt.Drained)
			}
			if c.unsent() > 0 {
				continue
			}
		}
		done := true
		stream.Do(func(t *stream.Turn) { done = c.settle(t) })
		if done {
			return
		}
		c.mu.Lock()
		if c.writing || !c.waits() { // another flush took it, or it is empty
			c.mu.Unlock()
			return
		}
		c.take()
		c.mu.Unlock()
		c.passWrite()
	}
}

func (c *Conn) writeOnce(fd uintptr) bool {
	more := c.send(int(fd))
	// What is sealed at a time is less than what there may be.
	for c.sec.Load() != nil && more && c.writeErr == nil && c.unsent() > 0 {
		more = c.send(int(fd))
	}
	return true
}

func (c *Conn) writeReady(fd uintptr) bool {
	progress := false
	for c.unsent() > 0 {
		if !c.send(int(fd)) {
			if progress && c.lingering.Load() {
				c.extend()
			}
			return false
		}
		progress = true
		if c.writeErr != nil {
			return true
		}
		if c.lowered() {
			c.low = true
			return true
		}
	}
	return true
}

// extend gives a peer that still reads another while to take the rest of a closed connection.
func (c *Conn) extend() { _ = c.nc.SetWriteDeadline(time.Now().Add(c.opt.Linger)) }

// lowered tells, once, that a full connection has come below its low watermark.
func (c *Conn) lowered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sending = c.chunk.Len() + c.records.Len()
	if !c.full || c.out.Len()+c.sending > c.opt.High/2 {
		return false
	}
	c.full = false
	return true
}

// send makes one write; false means that the kernel takes nothing now.
func (c *Conn) send(fd int) bool {
	q, secure := &c.chunk, c.sec.Load()
	if secure != nil {
		q = &c.records
		if q.Len() == 0 {
			c.seal(secure)
		}
		if q.Len() == 0 {
			return true
		}
	}
	for {
		n, err := q.WriteTo(fd)
		if n > 0 {
			q.Consume(n)
			if secure == nil {
				c.countTx(n)
			}
			return true
		}
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return false
		case err != 0:
			c.writeErr = err
		}
		return true
	}
}

// CloseWrite half-closes the connection once everything is sent.
func (c *Conn) CloseWrite() {
	c.mu.Lock()
	c.shut = true
	c.endSoon()
}

// CloseAfterFlush closes the connection once everything is sent, or when the peer has taken nothing
// of it for Options.Linger.
func (c *Conn) CloseAfterFlush() {
	c.mu.Lock()
	c.closeWr = true
	left := c.writing || c.waits()
	c.endSoon()
	if left && !c.lingering.Swap(true) {
		c.extend()
	}
}

// WaitSent waits until nothing is left to send, or the connection has failed or was closed. Whoever
// calls it sees to it that something closes the connection of a peer that never reads.
func (c *Conn) WaitSent() {
	c.mu.Lock()
	if c.broken || (!c.writing && !c.waits()) {
		c.mu.Unlock()
		return
	}
	if c.sent == nil {
		c.sent = make(chan struct{})
	}
	sent := c.sent
	c.mu.Unlock()
	<-sent
}

// endSoon does what was put off, if nothing waits to be sent. The caller holds the lock, and loses
// it.
func (c *Conn) endSoon() {
	var act func() error
	idle := !c.writing && c.out.Len() == 0
	part := idle && c.waits()
	if idle && !part {
		act = c.ending()
	}
	c.mu.Unlock()
	if part {
		stream.Do(c.Flush) // a close_notify
	}
	if act != nil {
		_ = act()
	}
}

func (c *Conn) closeWrite() error {
	if w, ok := c.nc.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return c.closeNow()
}

// Close closes the socket at once, from any goroutine; what was not sent is lost. The reader wakes
// with an error and ends the connection's life.
func (c *Conn) Close() { _ = c.closeNow() }

func (c *Conn) closeNow() error {
	if !c.closed.CompareAndSwap(false, true) {
		return nil
	}
	c.part()
	return c.nc.Close()
}

// Reset closes the socket so that the peer sees a RST (SO_LINGER 0).
func (c *Conn) Reset() {
	if l, ok := c.nc.(interface{ SetLinger(sec int) error }); ok {
		_ = l.SetLinger(0)
	}
	c.mu.Lock()
	c.parted = true
	c.mu.Unlock()
	c.Close()
}

// Closed tells whether Close was called.
func (c *Conn) Closed() bool { return c.closed.Load() }

// Release gives back what the reader holds; it is called as the reader ends.
func (c *Conn) Release() {
	c.early.Reset()
	if c.taps != nil {
		c.taps.in.Reset()
	}
	if s := c.sec.Load(); s != nil {
		s.release()
	}
}

// SetReadDeadline makes a parked reader wake with os.ErrDeadlineExceeded; the zero time clears it.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.nc.SetReadDeadline(t) }

// Send writes p at once if nothing waits before it, without copying what the kernel takes; the rest
// is appended to the output and sent by a writer goroutine. It is for goroutines that own a
// direction of the connection, as a TCP proxy does; codecs use Begin and End.
func (c *Conn) Send(t *stream.Turn, p []byte) {
	c.mu.Lock()
	if c.writing || c.broken || c.Tapped() || c.waits() {
		c.out.Append(p)
		c.End(t)
		return
	}
	c.writing = true
	c.mu.Unlock()
	c.direct = p
	if err := c.raw.Write(c.directFn); err != nil && c.writeErr == nil {
		c.writeErr = err
	}
	rest := c.direct
	c.direct = nil
	c.chunk.Append(rest)
	if c.writeErr == nil && c.unsent() > 0 {
		c.mu.Lock()
		c.sending = c.chunk.Len() + c.records.Len()
		c.full = c.full || c.sending > c.opt.High
		c.mu.Unlock()
		task.Go("connection writer", c.writeLoop, func(*task.Panic) { c.Close() })
		return
	}
	if !c.settle(t) {
		c.Flush(t)
	}
}

// writeDirect makes writes of direct until it is gone or the kernel takes no more.
func (c *Conn) writeDirect(fd uintptr) bool {
	for c.sec.Load() != nil && c.unsent() > 0 {
		if !c.send(int(fd)) || c.writeErr != nil {
			return true
		}
	}
	for len(c.direct) > 0 {
		n, err := buf.WriteFD(int(fd), c.direct)
		switch {
		case n > 0:
			c.direct = c.direct[n:]
			c.countTx(n)
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return true
		default:
			c.writeErr = err
			return true
		}
	}
	return true
}
