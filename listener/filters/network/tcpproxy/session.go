package tcpproxy

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/pool"
	"sidecar/internal/task"
	"sidecar/internal/wire"
)

// session is one proxied connection: two goroutines, each reading one socket and writing the other.
// Neither holds anything but the bytes of one read, since a goroutine that serves one connection may
// wait until the other side takes more.
type session struct {
	// Set by Serve, never changed.
	cfg   *Config
	down  *wire.Conn
	drain filter.Drainer
	room  [2]chan struct{} // the output of down and of the upstream is below the watermark again

	// Owned by the goroutine of Serve.
	info  stream.Info
	up    *pool.TCP
	ready chan stream.Event

	mon       stream.Monitor
	active    atomic.Int64 // unix nanoseconds of the last byte either way
	moved     [2]atomic.Uint64
	closeOnce sync.Once
	timedOut  atomic.Uint32
}

// The directions of a session.
const (
	toUpstream = iota
	toDownstream
)

// Reasons for which a timer ended a session.
const (
	idleTimeout = iota + 1
	durationTimeout
)

// Serve implements filter.NetworkTerminal.
func (c *Config) Serve(t *stream.Turn, down *wire.Conn, info *stream.ConnInfo, d filter.Drainer) {
	s := &session{cfg: c, down: down, drain: d, ready: make(chan stream.Event, 1)}
	s.room[0], s.room[1] = make(chan struct{}, 1), make(chan struct{}, 1)
	s.info.Reset(info.Start, info)
	s.info.Remote, s.info.RemotePort = info.Remote.IP.Addr(), info.Remote.IP.Port()
	c.stats.CxTotal.Inc()
	if s.connect() {
		s.run(t)
	}
	s.finish(t)
}

// Receive takes the pool's answer.
func (s *session) Receive(_ *stream.Turn, e *stream.Event) {
	select {
	case s.ready <- *e:
	default:
	}
}

// connect tries clusters and hosts until one is reached or the attempts are used up.
func (s *session) connect() bool {
	c := s.cfg
	for try := 1; ; try++ {
		name := c.pick()
		s.info.Cluster = name
		cl := c.clusters.Get(name)
		if cl == nil {
			c.stats.CxNoRoute.Inc()
			s.info.Flags |= stream.NoClusterFound
			return false
		}
		s.info.Upstream.Cluster = cl.Config().ObservabilityName()
		s.info.ClusterMetadata = cl.Config().Metadata
		f := s.attempt(cl, uint32(try))
		if f == nil {
			return true
		}
		s.info.Flags |= f.Flag
		s.info.Upstream.TransportFailure = f.Transport
		if f.Flag&stream.UpstreamConnectionFailure == 0 {
			return false // nothing to connect to, or a breaker: no use in trying again
		}
		if try >= c.maxAttempts {
			s.info.Flags |= stream.UpstreamRetryLimitExceeded
			cl.Traffic().CxAttemptsExceeded.Inc()
			return false
		}
		s.info.Flags &^= f.Flag
	}
}

func (s *session) attempt(cl *cluster.Cluster, seq uint32) *stream.Fault {
	s.info.Attempts++
	var a cluster.Attempt
	ctx := cluster.Context{Seq: seq, Local: s.info.Conn.Local, Hint: uint32(s.info.Conn.ID)}
	f := cl.Connect(&ctx, stream.Target{M: &s.mon, To: s, Gen: s.mon.Gen()}, &a)
	a.Describe(&s.info.Upstream)
	if f != nil {
		return f
	}
	e := <-s.ready
	if e.Kind == stream.EventFailed {
		return e.Fault
	}
	up := a.OpenTCP()
	a.Describe(&s.info.Upstream)
	if up == nil {
		return &stream.Fault{Flag: stream.UpstreamConnectionFailure}
	}
	s.up = up
	return nil
}

// run moves bytes both ways until both have ended.
func (s *session) run(t *stream.Turn) {
	s.down.SetDrained(func(*stream.Turn) { signal(s.room[toDownstream]) })
	s.up.SetDrained(func(*stream.Turn) { signal(s.room[toUpstream]) })
	s.active.Store(time.Now().UnixNano())
	stop := s.watch()
	var wg sync.WaitGroup
	wg.Add(1)
	task.Go("tcp proxy upstream", func() {
		defer wg.Done()
		s.pump(stream.NewTurn(), s.up.Conn, s.down, toDownstream)
	}, func(*task.Panic) { s.close() })
	s.pump(t, s.down, s.up.Conn, toUpstream)
	wg.Wait()
	stop()
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
	size, full, splice := 16<<10, 0, true
	for {
		b, n, err := src.Read(size, always)
		if b != nil {
			s.note(dir, n)
			dst.Send(t, b.B[:n])
			b.Put()
			t.End()
			if !s.waitRoom(dst, dir) {
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			dst.CloseWrite()
			return
		default:
			s.abort(dir)
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
			case errors.Is(err, io.EOF):
				dst.CloseWrite()
				return
			case errors.Is(err, wire.ErrNoSplice):
				splice = false
			default:
				s.abort(dir)
				return
			}
		}
	}
}

func (s *session) note(dir, n int) {
	s.moved[dir].Add(uint64(n))
	s.active.Store(time.Now().UnixNano())
}

// waitRoom waits while the destination has more to send than its watermark.
func (s *session) waitRoom(dst *wire.Conn, dir int) bool {
	for dst.Full() {
		if dst.Closed() {
			return false
		}
		<-s.room[dir]
	}
	return true
}

// abort ends both sides after an error on one: the peers see a reset.
func (s *session) abort(dir int) {
	if dir == toUpstream {
		s.info.Details = "" // TCP log lines carry flags only
	}
	s.close()
}

// close ends both sockets; goroutines that wait on them return.
func (s *session) close() {
	s.closeOnce.Do(func() {
		s.down.Close()
		if s.up != nil {
			s.up.Close(true)
		}
		signal(s.room[0])
		signal(s.room[1])
	})
}

// watch arms the timers; the function it returns stops them.
func (s *session) watch() (stop func()) {
	d := s.cfg.idleTimeout
	m := s.cfg.maxDuration
	if d == 0 && m == 0 {
		return func() {}
	}
	start := time.Now()
	var mu sync.Mutex
	var timer *time.Timer
	stopped := false
	next := func() time.Duration {
		w := time.Duration(1<<62 - 1)
		if d > 0 {
			w = d - time.Since(time.Unix(0, s.active.Load()))
		}
		if m > 0 {
			w = min(w, m-time.Since(start))
		}
		return w
	}
	fire := func() {
		mu.Lock()
		defer mu.Unlock()
		if stopped {
			return
		}
		if w := next(); w > 0 {
			timer.Reset(w)
			return
		}
		if m > 0 && time.Since(start) >= m {
			s.timedOut.Store(durationTimeout)
		} else {
			s.timedOut.Store(idleTimeout)
		}
		s.close()
	}
	mu.Lock()
	timer = time.AfterFunc(next(), fire)
	mu.Unlock()
	return func() {
		mu.Lock()
		stopped = true
		timer.Stop()
		mu.Unlock()
	}
}

// finish counts and logs the session.
func (s *session) finish(*stream.Turn) {
	s.close()
	c := s.cfg
	switch s.timedOut.Load() {
	case idleTimeout:
		c.stats.IdleTimeout.Inc()
	case durationTimeout:
		c.stats.MaxDuration.Inc()
		s.info.Flags |= stream.DurationTimeout
	}
	s.info.BytesReceived = s.moved[toUpstream].Load()
	s.info.BytesSent = s.moved[toDownstream].Load()
	c.stats.RxBytes.Add(s.info.BytesReceived)
	c.stats.TxBytes.Add(s.info.BytesSent)
	s.info.Complete = time.Since(s.info.Start)
	s.info.LogType = stream.LogTCPConnectionEnd
	s.mon.Retire()
	for _, l := range c.logs {
		l.Log(&s.info)
	}
}
