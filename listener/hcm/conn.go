package hcm

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/internal/wire"
)

// Codec is the HTTP side of one downstream connection, of whatever version.
type Codec interface {
	// Serve reads the connection until it ends, on the calling goroutine.
	Serve(t *stream.Turn)
	// Close closes the connection; streams that run are told.
	Close(t *stream.Turn)
	// Local tells, once Serve has returned, that we and not the client ended the connection.
	Local() bool
	// Drain tells the client that the connection will end soon, where its protocol can (HTTP/2: a GOAWAY
	// that still takes streams); GoAway that no further stream is taken: the connection ends with its
	// last stream. Both may be called from any goroutine, inside streams too, and more than once.
	// HTTP/1 says it with the next response (connection: close), so there they do nothing.
	Drain(t *stream.Turn)
	GoAway(t *stream.Turn)
}

// Conn is one downstream connection that the manager serves.
type Conn struct {
	// Set by Serve, never changed.
	cfg            *Config
	codec          Codec
	wire           *wire.Conn
	info           stream.ConnInfo
	scheme         string
	remoteText     string
	localPortText  string
	localPort      uint16
	remoteLoopback bool
	drain          filter.Drainer
	stats          *Stats
	lstats         *ListenerStats

	active   atomic.Int32
	requests atomic.Uint32
	ids      atomic.Uint64
	// draining makes the next response the last one.
	draining atomic.Bool
	// endedActive says that a stream was cut off by the end of the connection.
	endedActive atomic.Bool
	counted1    bool // in the HTTP/1 connection stats; the reader's

	mu    sync.Mutex // guards below
	timer *time.Timer
	gone  bool
	since time.Time // of the last change to no active stream
	// drainEnd is when a connection that the timer drains is closed, if it has no stream then.
	drainEnd time.Time
}

// Serve runs the connection until it ends. It is called on the connection's own goroutine.
func (c *Config) Serve(t *stream.Turn, w *wire.Conn, info *stream.ConnInfo, d filter.Drainer) {
	conn := &Conn{cfg: c, wire: w, info: *info, drain: d, stats: c.stats, lstats: c.listenerStats}
	conn.describe()
	conn.stats.CxTotal.Inc()
	conn.stats.CxActive.Inc()
	w.Count(&conn.stats.CxRxBytes, &conn.stats.CxTxBytes)
	conn.codec = c.newCodec(w, conn, &conn.info)
	conn.startIdle()
	conn.codec.Serve(t)
	conn.stopIdle()
	conn.countGone()
}

// describe keeps the texts that every request of the connection needs.
func (c *Conn) describe() {
	c.scheme = "http"
	if c.info.TLS != nil {
		c.scheme = "https"
	}
	if ip := c.info.Remote.IP; ip.IsValid() {
		c.remoteText = ip.Addr().String()
		c.remoteLoopback = ip.Addr().IsLoopback()
	}
	c.localPort = c.info.Local.IP.Port()
	c.localPortText = strconv.Itoa(int(c.localPort))
}

// NewStream implements stream.ServerHandler.
func (c *Conn) NewStream(t *stream.Turn, enc stream.Encoder) stream.Target {
	c.active.Add(1)
	if c.requests.Add(1) == 1 {
		c.counted1 = true
		c.stats.CxHTTP1Total.Inc()
		c.stats.CxHTTP1Active.Inc()
	}
	c.countRequest()
	return begin(t, c, enc)
}

// OnGone implements stream.ServerHandler.
func (c *Conn) OnGone(*stream.Turn) {
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
}

func (c *Conn) nextStreamID() uint64 { return c.ids.Add(1) }

// shouldClose tells whether the response of s is to be the last of its connection.
func (c *Conn) shouldClose(s *Stream) bool {
	if c.draining.Load() {
		return true
	}
	if limit := c.cfg.maxRequestsPerConnection; limit > 0 && c.requests.Load() >= limit {
		if c.draining.CompareAndSwap(false, true) {
			c.stats.CxMaxRequests.Inc()
		}
		return true
	}
	if c.drain != nil && c.drain.Draining(s.random) {
		if c.draining.CompareAndSwap(false, true) {
			c.stats.CxDrainClose.Inc()
		}
		return true
	}
	return c.cfg.overload != nil && c.cfg.overload.DisableKeepAlive()
}

func (c *Conn) streamGone(t *stream.Turn) {
	if c.active.Add(-1) == 0 {
		c.mu.Lock()
		c.since = t.Now()
		c.mu.Unlock()
	}
}

// startIdle arms the idle timeout and the maximum duration of the connection: one timer that looks
// at what has happened when it fires, and sets itself for the rest.
func (c *Conn) startIdle() {
	c.since = c.info.Start
	d := c.cfg.idleTimeout
	if m := c.cfg.maxConnectionDuration; m > 0 && (d == 0 || m < d) {
		d = m
	}
	if d == 0 {
		return
	}
	c.mu.Lock()
	c.timer = time.AfterFunc(d, c.onIdleTimer)
	c.mu.Unlock()
}

func (c *Conn) stopIdle() {
	c.mu.Lock()
	c.gone = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
}

func (c *Conn) onIdleTimer() {
	now := time.Now()
	c.mu.Lock()
	if c.gone {
		c.mu.Unlock()
		return
	}
	next := c.look(now)
	if next > 0 {
		c.timer.Reset(next)
	}
	c.mu.Unlock()
	if next <= 0 {
		stream.Do(c.codec.Close)
	}
}

// look begins the drain sequence when the connection has been idle, or has lasted, for too long, as
// Envoy does: a request that comes within drain_timeout is served, with connection: close; after it
// an idle connection is closed. It returns when to look again, 0 to close now. The caller holds mu.
func (c *Conn) look(now time.Time) time.Duration {
	active := c.active.Load() > 0
	if !c.drainEnd.IsZero() {
		if left := c.drainEnd.Sub(now); left > 0 {
			return left
		}
		if !active {
			return 0
		}
		return c.cfg.drainTimeout + time.Millisecond // its last response ends it
	}
	next := time.Hour
	if m := c.cfg.maxConnectionDuration; m > 0 {
		left := m - now.Sub(c.info.Start)
		if left <= 0 {
			c.stats.CxMaxDuration.Inc()
			return c.startDrain(now)
		}
		next = min(next, left)
	}
	if d := c.cfg.idleTimeout; d > 0 {
		left := d
		if !active {
			left = d - now.Sub(c.since)
		}
		if left <= 0 {
			c.stats.CxIdleTimeout.Inc()
			return c.startDrain(now)
		}
		next = min(next, left)
	}
	return next
}

// startDrain returns when the connection is to be closed; one that never had a request has no client
// that could be about to send another.
func (c *Conn) startDrain(now time.Time) time.Duration {
	c.draining.Store(true)
	if c.requests.Load() == 0 {
		return 0
	}
	d := c.cfg.drainTimeout
	if j := c.cfg.drainJitter; j > 0 {
		d += time.Duration(float64(d) * j * float64(c.cfg.random()>>11) / (1 << 53))
	}
	c.drainEnd = now.Add(d)
	return d
}
