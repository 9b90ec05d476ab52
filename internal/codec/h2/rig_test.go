package h2

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sidecar/api/stream"
	"sidecar/internal/config/protocol"
	"sidecar/internal/wire"
)

const wait = 10 * time.Second

// client is a ClientConn that is served by a goroutine of its own.
type client struct {
	*ClientConn
	gone  chan Gone
	limit chan uint32
	away  chan struct{}
	mu    sync.Mutex
	ends  int
}

func (c *client) OnStreamEnd(*stream.Turn) { c.mu.Lock(); c.ends++; c.mu.Unlock() }
func (c *client) OnLimit(_ *stream.Turn, n uint32) {
	select {
	case c.limit <- n:
	default:
	}
}
func (c *client) OnGoAway(*stream.Turn)         { close(c.away) }
func (c *client) OnGone(_ *stream.Turn, g Gone) { c.gone <- g }

func (c *client) ended() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ends
}

func testOptions() Options {
	return Options{HTTP2: protocol.DefaultHTTP2(), Stats: new(Stats)}
}

// dialClient connects a ClientConn to addr.
func dialClient(t testing.TB, addr string, o *ClientOptions) *client {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	w, err := wire.New(nc, wire.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := &client{gone: make(chan Gone, 1), limit: make(chan uint32, 8), away: make(chan struct{})}
	c.ClientConn = NewClientConn(w, c, o)
	done := make(chan struct{})
	go func() { defer close(done); c.Serve() }()
	t.Cleanup(func() { stream.Do(c.Close); <-done })
	return c
}

// proxy forwards every request of its clients to one ClientConn, as the connection manager and the
// router do, with back-pressure both ways.
type proxy struct {
	up *client
	t  testing.TB
}

type exchange struct {
	mon      stream.Monitor
	down, up stream.Encoder
	p        *proxy
	finished bool
	reqDone  bool
	respDone bool
}

type fromUpstream struct{ x *exchange }

func (p *proxy) NewStream(_ *stream.Turn, enc stream.Encoder) stream.Target {
	x := &exchange{p: p, down: enc}
	return stream.Target{M: &x.mon, To: x, Gen: x.mon.Gen()}
}

func (p *proxy) OnGone(*stream.Turn) {}

func (x *exchange) Receive(t *stream.Turn, e *stream.Event) {
	if x.finished {
		return
	}
	switch e.Kind {
	case stream.EventHeaders:
		x.reqDone = e.End
		x.up = x.p.up.NewStream(t, stream.Target{M: &x.mon, To: fromUpstream{x}, Gen: x.mon.Gen()})
		if x.up == nil {
			x.finish(t, true)
			return
		}
		x.up.EncodeHeaders(t, e.Map, e.End)
	case stream.EventData:
		x.reqDone = e.End
		x.up.EncodeData(t, e.Data, e.End)
		if x.up.Full() {
			x.down.Pause(t, true)
		}
	case stream.EventTrailers:
		x.reqDone = true
		x.up.EncodeTrailers(t, e.Map)
	case stream.EventDrained:
		if x.up != nil {
			x.up.Pause(t, false)
		}
	case stream.EventReset:
		x.finish(t, true)
	}
}

func (u fromUpstream) Receive(t *stream.Turn, e *stream.Event) {
	x := u.x
	if x.finished {
		return
	}
	switch e.Kind {
	case stream.EventInterim:
		x.down.EncodeInterim(t, e.Map)
	case stream.EventHeaders:
		x.down.EncodeHeaders(t, e.Map, e.End)
		x.respDone = e.End
	case stream.EventData:
		x.down.EncodeData(t, e.Data, e.End)
		x.respDone = e.End
		if !e.End && x.down.Full() {
			x.up.Pause(t, true)
		}
	case stream.EventTrailers:
		x.down.EncodeTrailers(t, e.Map)
		x.respDone = true
	case stream.EventDrained:
		x.down.Pause(t, false)
	case stream.EventReset:
		x.finish(t, true)
		return
	}
	if x.respDone {
		x.finish(t, false)
	}
}

func (x *exchange) finish(t *stream.Turn, reset bool) {
	x.finished = true
	x.mon.Retire()
	if reset {
		x.down.Reset(t, nil)
	}
	if x.up != nil {
		if !x.reqDone || !x.respDone {
			x.up.Reset(t, nil)
		}
		x.up.Release(t)
	}
	x.down.Release(t)
}

// serveConns accepts connections and serves them with ServerConns for h.
func serveConns(t testing.TB, h func() stream.ServerHandler, o *ServerOptions) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []*ServerConn
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			w, err := wire.New(nc, wire.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			c := NewServerConn(w, h(), o)
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() { c.Serve(stream.NewTurn()) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range conns {
			stream.Do(c.Close)
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

// backend is x/net's server.
func backend(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	// Its own default lets one handler that reads nothing use up the connection's window.
	//nolint:staticcheck // another implementation than net/http's is the point
	srv := &http2.Server{MaxUploadBufferPerConnection: 1 << 30}
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, nc)
			mu.Unlock()
			//nolint:staticcheck // as above
			wg.Go(func() { srv.ServeConn(nc, &http2.ServeConnOpts{Handler: h}) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, nc := range conns {
			_ = nc.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().String()
}

// transport is x/net's client.
func transport(t testing.TB) *http.Client {
	t.Helper()
	//nolint:staticcheck // another implementation than net/http's is the point
	tr := &http2.Transport{
		AllowHTTP: true,
		DialTLS:   func(network, addr string, _ *tls.Config) (net.Conn, error) { return net.Dial(network, addr) },
	}
	t.Cleanup(tr.CloseIdleConnections) //nolint:staticcheck // as above
	return &http.Client{Transport: tr, Timeout: 60 * time.Second}
}

// chain is x/net's client, ServerConn, ClientConn and x/net's server in a row.
func chain(t testing.TB, h http.HandlerFunc) (string, *client) {
	t.Helper()
	o := testOptions()
	up := dialClient(t, backend(t, h), &ClientOptions{o})
	p := &proxy{up: up, t: t}
	addr := serveConns(t, func() stream.ServerHandler { return p },
		&ServerOptions{Options: testOptions(), DelayedCloseTimeout: time.Second})
	return "http://" + addr, up
}
