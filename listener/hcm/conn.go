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
	cert           presentedCert
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
	// counted is the version in whose connection stats this one is; set by the reader with the first
	// stream.
	counted atomic.Uint32

	mu    sync.Mutex // guards below
	timer *time.Timer
	gone  bool
	since time.Time // of the last change to no active stream
	// drainEnd is when a connection that drains is closed, if it has no stream then; HTTP/2 sends its
	// last GOAWAY then.
	drainEnd time.Time

	resets prematureResets
}

// Serve runs the connection until it ends. It is called on the connection's own goroutine.
func (c *Config) Serve(t *stream.Turn, w *wire.Conn, info *stream.ConnInfo, d filter.Drainer) {
	conn := &Conn{cfg: c, wire: w, info: *info, drain: d, stats: c.stats, lstats: c.listenerStats}
	conn.describe()
	conn.stats.CxTotal.Inc()
	conn.stats.CxActive.Inc()
	if info.TLS != nil {
		conn.stats.CxSSLTotal.Inc()
		conn.stats.CxSSLActive.Inc()
	}
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
	c.cert = c.cfg.xfcc.of(c.info.TLS)
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
	n := c.requests.Add(1)
	if n == 1 {
		c.countConnection(enc.Protocol())
	}
	c.countRequest()
	if limit := c.cfg.maxRequestsPerConnection; limit > 0 && n >= limit && c.multiplexed() {
		if c.draining.CompareAndSwap(false, true) {
			c.stats.CxMaxRequests.Inc()
			c.beginDrain(t)
		}
	}
	return begin(t, c, enc)
}

// OnGone implements stream.ServerHandler.
func (c *Conn) OnGone(*stream.Turn) {
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
}

// multiplexed tells that the connection carries many streams at once and ends by GOAWAY, not with a
// response that says so.
func (c *Conn) multiplexed() bool { return stream.Protocol(c.counted.Load()) >= stream.HTTP2 }

func (c *Conn) nextStreamID() uint64 { return c.ids.Add(1) }

func (c *Conn) streamGone(t *stream.Turn) {
	if c.active.Add(-1) == 0 {
		c.mu.Lock()
		c.since = t.Now()
		c.mu.Unlock()
	}
}
