package tcpproxy

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sidecar/api/stream"
	"sidecar/cluster/pool"
	"sidecar/internal/task"
	"sidecar/internal/wire"
)

// session is one proxied connection: two goroutines, each reading one socket and writing the other.
// Neither holds anything but the bytes of one read, since a goroutine that serves one connection may
// wait until the other side takes more.
type session struct {
	// Set by Serve, never changed.
	cfg  *Config
	down *wire.Conn
	room [2]chan struct{} // the output of down and of the upstream is below the watermark again

	// Owned by the goroutine of Serve; nobody writes to info while run lasts.
	info  *stream.Info
	own   stream.Info // what info is, unless the listener brings a record
	up    *pool.TCP
	ready chan stream.Event

	// maxDuration is the configured one with its jitter.
	maxDuration time.Duration
	tunnel      atomic.Pointer[tunnel] // nil: a raw connection

	mon       stream.Monitor
	active    atomic.Int64 // unix nanoseconds of the last byte either way
	moved     [2]atomic.Uint64
	ended     atomic.Int32 // directions that have seen the end of their source
	remote    atomic.Bool  // the upstream was the last to end, or broke
	reset     atomic.Bool  // the upstream reset the connection
	failed    [2]string    // what ended the TLS of a direction's source; of the goroutine that reads it
	closeOnce sync.Once
	timedOut  atomic.Uint32
}

// The directions of a session.
const (
	toUpstream = iota
	toDownstream
)

// run moves bytes both ways until both have ended.
func (s *session) run(t *stream.Turn) {
	s.down.SetDrained(func(*stream.Turn) { signal(s.room[toDownstream]) })
	s.up.SetDrained(func(*stream.Turn) { signal(s.room[toUpstream]) })
	s.active.Store(time.Now().UnixNano())
	defer s.watch()()
	defer s.logPeriodically()()
	var wg sync.WaitGroup
	wg.Add(1)
	task.Go("tcp proxy upstream", func() {
		defer wg.Done()
		s.pump(stream.NewTurn(), s.up.Conn, s.down, toDownstream)
	}, func(*task.Panic) { s.close() })
	s.pump(t, s.down, s.up.Conn, toUpstream)
	wg.Wait()
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func always() bool { return true }

// bulkReads is how many full blocks in a row make a transfer a bulk one, which is spliced.
const bulkReads = 4

// pump moves one direction. The end of the source half-closes the destination; an error ends both.
func (s *session) pump(t *stream.Turn, src, dst *wire.Conn, dir int) {
	size, full, splice := 16<<10, 0, !src.Secured() && !dst.Secured()
	for {
		b, n, err := src.Read(size, always)
		if b != nil {
			s.note(dir, n)
			dst.Send(t, b.B[:n])
			b.Put()
			t.End()
			if !s.waitRoom(dst, dir) {
				s.abort(dir, nil)
				return
			}
		}
		if err != nil {
			s.end(dst, dir, err)
			return
		}
		if n < size {
			full = 0
			continue
		}
		size = wire.Bulk
		if full++; splice && full >= bulkReads && dst.Pending() == 0 {
			full = 0
			err := src.SpliceTo(dst, func(n int) { s.note(dir, n) })
			switch {
			case err == nil:
			case errors.Is(err, wire.ErrNoSplice):
				splice = false
			default:
				s.end(dst, dir, err)
				return
			}
		}
	}
}

// note counts bytes as they are moved: a connection may live for days.
func (s *session) note(dir, n int) {
	s.moved[dir].Add(uint64(n))
	s.active.Store(time.Now().UnixNano())
	if dir == toUpstream {
		s.cfg.stats.RxBytes.Add(uint64(n))
	} else {
		s.cfg.stats.TxBytes.Add(uint64(n))
	}
}

// waitRoom waits while the destination has more to send than its watermark; false means that it
// takes nothing any more.
func (s *session) waitRoom(dst *wire.Conn, dir int) bool {
	paused := false
	for {
		room, err := dst.Room()
		if err != nil || dst.Closed() {
			return false
		}
		if room {
			if paused && dir == toUpstream {
				s.cfg.stats.FlowResumed.Inc()
			}
			return true
		}
		if !paused && dir == toUpstream {
			s.cfg.stats.FlowPaused.Inc()
		}
		paused = true
		<-s.room[dir]
	}
}

// end is called with what a source ended with. After its end the destination is half-closed, and what
// it has not taken yet is waited for: the idle timeout bounds that.
func (s *session) end(dst *wire.Conn, dir int, err error) {
	if !errors.Is(err, io.EOF) {
		if te, ok := errors.AsType[*wire.TLSError](err); ok {
			s.failed[dir] = te.Error()
		}
		s.abort(dir, err)
		return
	}
	if s.ended.Add(1) == 2 {
		s.remote.Store(dir == toDownstream)
	}
	dst.CloseWrite()
	dst.WaitSent()
}

// abort ends both sides after an error on one. A reset is passed on.
func (s *session) abort(dir int, err error) {
	if errors.Is(err, syscall.ECONNRESET) {
		s.closeOnce.Do(func() {
			if dir == toDownstream {
				s.reset.Store(true)
				s.remote.Store(true)
				s.down.Reset()
			} else {
				s.up.Reset()
			}
			s.shut()
		})
		return
	}
	s.close()
}

// close ends both sockets; goroutines that wait on them return.
func (s *session) close() { s.closeOnce.Do(s.shut) }

func (s *session) shut() {
	s.down.Close()
	if s.up != nil {
		s.up.Close(!s.remote.Load())
	}
	signal(s.room[toUpstream])
	signal(s.room[toDownstream])
	if u := s.tunnel.Load(); u != nil {
		u.finish()
	}
}
