package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"syscall"
	"time"

	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/task"
)

// TLSError is what ended a session, other than its proper end: a record that can't be decrypted, an
// alert of the peer, a message that must not come. Its text is that of crypto/tls.
type TLSError struct{ Err error }

// Error describes the failure.
func (e *TLSError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *TLSError) Unwrap() error { return e.Err }

// errFlood ends a peer that has many messages answered (key updates) and reads none of the answers.
var errFlood = errors.New("tls: peer reads none of many answers")

const (
	// sealSize is how much plaintext is encrypted at a time: with its overhead it fits a pooled block.
	sealSize = 3 << 14
	// maxSealed bounds what crypto/tls may have made that no writer has taken yet. A writer takes what
	// it makes at once, so the rest are answers that the reader caused.
	maxSealed = 128 << 10
	// maxAnswers is when the reader gives up, below maxSealed by more than a writer adds.
	maxAnswers = 64 << 10
)

// secure is the socket as crypto/tls sees it. During the handshake it reads and writes the socket and
// blocks; afterwards it is memory: reads get what the reader has fed, or errWouldBlock, and writes
// are appended to the connection's sealed records.
//
// Reads get no byte beyond the record that they are in, so that crypto/tls never holds more than the
// record it is working on, and the reader knows by what it has fed whether there can be more.
type secure struct {
	c   *Conn
	tls *tls.Conn

	// Set as the handshake ends, before it is stored in Conn.sec.
	ready bool

	// Owned by the reader.
	in    buf.Buffer // ciphertext that crypto/tls has not taken
	rec   framing
	ended bool       // the socket has nothing more
	more  bool       // crypto/tls may have plaintext left
	held  *buf.Block // n bytes of plaintext that nobody wanted
	n     int
	err   error // what ended the session; nothing is read after it
	size  int
	fill  func(fd uintptr) bool
}

// wouldBlock is a temporary net.Error, which crypto/tls passes on without remembering it.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "tls: no record" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// Secure makes the connection a TLS one: from its return on everything read and written is
// plaintext to the caller. It blocks until the handshake, which start begins over the given
// connection (tls.Client, tls.Server), is complete, has failed, ctx ends (its error is returned then)
// or the connection is closed. What was written before is sent first; what was preloaded is part of
// the handshake. It is called once, before anybody reads, and nobody may write until it returns.
// After an error the connection is only good for Close.
//
// The configuration of TLS should have dynamic record sizes disabled, since output comes in batches.
func (c *Conn) Secure(ctx context.Context, start func(nc net.Conn) *tls.Conn) (tls.ConnectionState, error) {
	if c.Pending() > 0 {
		stop := context.AfterFunc(ctx, c.Close)
		stream.Do(c.Flush)
		c.WaitSent()
		stop()
	}
	s := &secure{c: c}
	s.fill = s.fillReady
	s.in.Swap(&c.early)
	s.tls = start(s)
	// On its own goroutine, since it needs a deep stack: that of the connection stays small.
	done := make(chan error, 1)
	task.Go("tls handshake", func() {
		deepen()
		done <- s.handshake(ctx)
	}, func(p *task.Panic) { done <- p })
	if err := <-done; err != nil {
		s.release()
		return tls.ConnectionState{}, err
	}
	s.ready = true
	c.sec.Store(s)
	return s.tls.ConnectionState(), nil
}

// handshake is HandshakeContext without the goroutine that it starts to watch a context. When ctx ends
// first, Close may still be at work, so nothing may come after its error but the connection's end.
func (s *secure) handshake(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	err := s.tls.Handshake() //nolint:noctx // that is the point
	if !stop() {
		return ctx.Err()
	}
	return err
}

// deepStack is about what a handshake needs of its goroutine's stack.
const deepStack = 12 << 10

// deepen grows the stack of its goroutine to a handshake's needs at once: growing by and by means
// copying the stack four times, with the frames of crypto/tls on it.
//
//go:noinline
func deepen() {
	var room [deepStack]byte
	runtime.KeepAlive(&room)
}

// Secured tells whether Secure has succeeded.
func (c *Conn) Secured() bool { return c.sec.Load() != nil }

// framing finds the ends of records in a stream of bytes.
type framing struct {
	header [5]byte
	have   int // bytes of header
	left   int // bytes of the record that follow
}

// take tells how many bytes of p are of the current record, and goes on behind them.
func (f *framing) take(p []byte) int {
	n := copy(f.header[f.have:], p)
	f.have += n
	if f.have < len(f.header) {
		return n
	}
	if n > 0 {
		f.left = int(f.header[3])<<8 | int(f.header[4])
	}
	m := min(f.left, len(p)-n)
	if f.left -= m; f.left == 0 {
		f.have = 0
	}
	return n + m
}

// Read implements net.Conn for crypto/tls.
func (s *secure) Read(p []byte) (int, error) {
	for s.in.Len() == 0 {
		switch {
		case s.ended:
			return 0, io.EOF
		case s.ready:
			return 0, wouldBlock{}
		}
		n, err := s.c.nc.Read(s.in.Tail(buf.Small))
		s.in.Extend(n)
		if n == 0 {
			s.in.Reset()
			return 0, err
		}
	}
	q := s.in.Bytes()
	n := s.rec.take(q[:min(len(q), len(p))])
	copy(p, q[:n])
	s.in.Consume(n)
	return n, nil
}

// Write implements net.Conn for crypto/tls, which calls it in the order of records.
func (s *secure) Write(p []byte) (int, error) {
	if !s.ready {
		return s.c.nc.Write(p)
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken || c.sealed.Len() > maxSealed {
		return 0, net.ErrClosed
	}
	c.sealed.Append(p)
	return len(p), nil
}

// Close implements net.Conn for crypto/tls, which calls it when the handshake's context ends: that is
// interrupted, and the owner closes the socket.
func (s *secure) Close() error {
	if s.ready {
		return nil
	}
	return s.c.nc.SetDeadline(time.Unix(1, 0))
}

func (s *secure) LocalAddr() net.Addr  { return s.c.nc.LocalAddr() }
func (s *secure) RemoteAddr() net.Addr { return s.c.nc.RemoteAddr() }

// Deadlines of crypto/tls are for writes of a close_notify, which never block here.

func (s *secure) SetDeadline(time.Time) error      { return nil }
func (s *secure) SetReadDeadline(time.Time) error  { return nil }
func (s *secure) SetWriteDeadline(time.Time) error { return nil }

// release gives back what the reader holds.
func (s *secure) release() {
	s.in.Reset()
	if s.held != nil {
		s.held.Put()
		s.held = nil
	}
}

// readSecure is Read with TLS. Ciphertext is taken from the socket even while nothing is wanted, as it
// may be the end of the session, a ticket or a key update; plaintext that comes with it is held, one
// block at most, and nothing more is taken until that is wanted.
func (c *Conn) readSecure(s *secure, size int, want func() bool) (*buf.Block, int, error) {
	for {
		switch {
		case s.held != nil:
			if !want() {
				return nil, 0, nil
			}
			b := s.held
			s.held = nil
			return b, s.n, nil
		case s.err != nil:
			return nil, 0, s.err
		case s.more || s.ended || s.in.Len() > 0:
			s.decrypt(size)
			s.answer()
			continue
		}
		// The rest of a record is read in one piece, up to the size of a block.
		s.size = max(size, min(s.rec.left, buf.Read))
		err := c.raw.Read(s.fill)
		if c.readErr != nil {
			err, c.readErr = c.readErr, nil
		}
		if err != nil {
			return nil, 0, err
		}
	}
}

// fillReady is called by the poller's loop: false parks the goroutine until the socket is readable,
// holding no memory.
func (s *secure) fillReady(fd uintptr) bool {
	b := s.in.Tail(s.size)
	for {
		n, err := buf.ReadFD(int(fd), b)
		switch {
		case n > 0:
			s.in.Extend(n)
			return true
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			s.in.Reset()
			return false
		case err != 0:
			s.c.readErr = err
		default:
			s.ended = true
		}
		s.in.Reset()
		return true
	}
}

// decrypt turns what was fed into at most one block of plaintext.
func (s *secure) decrypt(size int) {
	b, front := buf.GetBlock(size), s.c.front()
	n := front
	for n < len(b.B) && (s.more || s.ended || s.in.Len() > 0) {
		m, err := s.tls.Read(b.B[n:])
		n += m
		s.more = n == len(b.B)
		if err != nil {
			s.fail(err)
			break
		}
	}
	if n == front {
		b.Put()
		return
	}
	s.c.countRx(n - front)
	s.c.moveRest(b)
	s.held, s.n = b, n
}

// fail keeps an error of crypto/tls, unless it only waits for the next record. A socket that ends
// within a session is taken for the end of the peer's data, as in Envoy.
func (s *secure) fail(err error) {
	if err == error(wouldBlock{}) { //nolint:errorlint // ours, and never wrapped
		return
	}
	if errors.Is(err, io.EOF) || (s.ended && errors.Is(err, io.ErrUnexpectedEOF)) {
		s.err = io.EOF
		return
	}
	s.err = &TLSError{err}
}

// answer sees to it that records which reading has caused are sent.
func (s *secure) answer() {
	c := s.c
	c.mu.Lock()
	left, writing := c.sealed.Len(), c.writing
	if s.err != nil && s.err != io.EOF { //nolint:errorlint // set by fail
		c.parted = true // the alert is the last record
	}
	c.mu.Unlock()
	if left > maxAnswers && s.err == nil {
		s.err = &TLSError{errFlood}
	}
	if left > 0 && !writing {
		stream.Do(c.Flush)
	}
}

// parting tells whether a close_notify is still to be made. The caller holds the lock.
func (c *Conn) parting() bool {
	return (c.shut || c.closeWr) && !c.parted && !c.broken && c.sec.Load() != nil
}

// seal encrypts the next piece of what is to be written. The writer calls it when it has no records.
func (c *Conn) seal(s *secure) {
	p := c.direct
	var joined *buf.Block
	if len(p) == 0 {
		p = c.chunk.First()
		if n := min(c.chunk.Len(), sealSize); len(p) < n {
			// A record for each piece would cost more than the copy.
			joined = buf.GetBlock(n)
			p = joined.B[:n]
			c.chunk.Peek(p)
		}
	}
	p = p[:min(len(p), sealSize)]
	var err error
	if len(p) > 0 {
		_, err = s.tls.Write(p)
		c.countTx(len(p))
		if len(c.direct) > 0 {
			c.direct = c.direct[len(p):]
		} else {
			c.chunk.Consume(len(p))
		}
	}
	if joined != nil {
		joined.Put()
	}
	if c.farewell && err == nil && c.chunk.Len() == 0 && len(c.direct) == 0 {
		c.farewell = false
		err = s.tls.CloseWrite()
	}
	if err != nil {
		c.writeErr = err
	}
	c.mu.Lock()
	c.records.Swap(&c.sealed)
	c.mu.Unlock()
}

// part says close_notify as the connection is closed, if that comes after everything else and the
// kernel takes it at once.
func (c *Conn) part() {
	if c.sec.Load() == nil {
		return
	}
	c.mu.Lock()
	if c.writing || c.broken || c.parted || c.out.Len() > 0 {
		c.mu.Unlock()
		return
	}
	c.shut = true
	c.take()
	c.mu.Unlock()
	_ = c.raw.Write(c.tryFn) // the peer may have gone already
	c.mu.Lock()
	c.drop()
	c.writing = false
	sent := c.sent
	c.sent = nil
	c.mu.Unlock()
	if sent != nil {
		close(sent)
	}
}
