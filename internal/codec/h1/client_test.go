package h1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/wire"
)

// caller is a stream that makes one request at a time over a client connection.
type caller struct {
	mon  stream.Monitor
	enc  stream.Encoder
	log  strings.Builder
	body strings.Builder
	done chan string // a stream has ended
	hold bool        // do not release at the end
}

func (s *caller) Receive(t *stream.Turn, e *stream.Event) {
	switch e.Kind {
	case stream.EventCall:
		if f, ok := e.Ref.(func(*stream.Turn)); ok {
			f(t)
		}
	case stream.EventInterim:
		fmt.Fprintf(&s.log, "interim %s\n", e.Map.Value(header.Status))
	case stream.EventHeaders:
		fmt.Fprintf(&s.log, "headers %s\n", e.Map.Value(header.Status))
	case stream.EventData:
		s.body.Write(e.Data)
	case stream.EventTrailers:
		fmt.Fprintf(&s.log, "trailers %d\n", e.Map.Len())
		s.end(t)
		return
	case stream.EventReset:
		fmt.Fprintf(&s.log, "reset %s reused=%v\n", e.Fault.Reason, e.Fault.Reused)
		s.end(t)
		return
	}
	if e.End {
		s.end(t)
	}
}

func (s *caller) end(t *stream.Turn) {
	if s.hold {
		return
	}
	if s.body.Len() > 0 {
		fmt.Fprintf(&s.log, "body %s\n", s.body.String())
	}
	out := s.log.String()
	s.log.Reset()
	s.body.Reset()
	enc := s.enc
	s.enc = nil
	if enc != nil {
		enc.Release(t)
	}
	s.done <- out
}

// do runs f inside the stream.
func (s *caller) do(f func(t *stream.Turn)) {
	stream.Do(func(t *stream.Turn) {
		s.mon.Post(t, s.mon.Gen(), stream.Event{To: s, Kind: stream.EventCall, Ref: f})
	})
}

type poolStub struct {
	idle chan struct{}
	gone chan Gone
}

func (p *poolStub) OnIdle(*stream.Turn)           { p.idle <- struct{}{} }
func (p *poolStub) OnGone(_ *stream.Turn, g Gone) { p.gone <- g }

type clientRig struct {
	conn *ClientConn
	peer *net.TCPConn
	s    *caller
	pool *poolStub
	r    *bufio.Reader
}

func dialRig(t *testing.T, o *ClientOptions) *clientRig {
	t.Helper()
	client, server := tcpPair(t)
	w, err := wire.New(client, wire.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &clientRig{peer: server, s: &caller{done: make(chan string, 10)}, pool: &poolStub{make(chan struct{}, 100), make(chan Gone, 1)}}
	r.conn = NewClientConn(w, r.pool, o)
	done := make(chan struct{})
	go func() { defer close(done); r.conn.Serve() }()
	_ = server.SetDeadline(time.Now().Add(limit))
	r.r = bufio.NewReader(server)
	t.Cleanup(func() {
		server.Close()
		stream.Do(r.conn.Close)
		<-done
	})
	return r
}

// request sends a request; body "" is none.
func (r *clientRig) request(method, body string, kv ...string) {
	r.s.do(func(t *stream.Turn) {
		r.s.enc = r.conn.NewStream(t, stream.Target{M: &r.s.mon, To: r.s, Gen: r.s.mon.Gen()})
		if r.s.enc == nil {
			r.s.done <- "no stream"
			return
		}
		m := new(header.Map)
		m.Add(":authority", "a")
		m.Add(":path", "/")
		m.Add(":method", method)
		for i := 0; i < len(kv); i += 2 {
			m.Add(kv[i], kv[i+1])
		}
		r.s.enc.EncodeHeaders(t, m, body == "")
		if body != "" {
			r.s.enc.EncodeData(t, []byte(body), true)
		}
	})
}

// readHead reads up to the empty line.
func (r *clientRig) readHead(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for {
		l, err := r.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if b.WriteString(l); l == "\r\n" {
			return b.String()
		}
	}
}

func wait[T any](t *testing.T, c chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(limit):
		t.Fatal("nothing happens")
	}
	return v
}

func TestClientResponses(t *testing.T) {
	t.Parallel()
	type want struct {
		log  string
		idle bool
		gone Gone
	}
	for _, c := range []struct {
		name, method, answer string
		fin                  bool
		want                 want
		kv                   []string
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", false, want{"headers 200\nbody ok\n", true, Gone{}}, nil},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", false, want{"headers 200\nbody ok\n", true, Gone{}}, nil},
		{"trailers", "GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n\r\n", false, want{"headers 200\ntrailers 1\n", true, Gone{}}, nil},
		{"until close", "GET", "HTTP/1.1 200 OK\r\n\r\nok", true, want{"headers 200\nbody ok\n", false, Gone{}}, nil},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", false, want{"headers 200\n", true, Gone{}}, nil},
		{"204", "GET", "HTTP/1.1 204 OK\r\n\r\n", false, want{"headers 204\n", true, Gone{}}, nil},
		{"interim", "GET", "HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false, want{"interim 103\nheaders 200\n", true, Gone{}}, nil},
		{"close", "GET", "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", false, want{"headers 200\n", false, Gone{Local: true, CloseNotify: true}}, nil},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", false, want{"headers 200\n", false, Gone{Local: true, CloseNotify: true}}, nil},
		{"bytes behind the response", "GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nX", false, want{"headers 200\n", false, Gone{Local: true, ProtocolError: true}}, nil},
		{"garbage", "GET", "garbage", false, want{"reset protocol error reused=false\n", false, Gone{Local: true, Active: true, ProtocolError: true}}, nil},
		{"bad chunk", "GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx", false, want{"headers 200\nreset protocol error reused=false\n", false, Gone{Local: true, Active: true, ProtocolError: true}}, nil},
		{"end before the head", "GET", "", true, want{"reset connection termination reused=false\n", false, Gone{Active: true}}, nil},
		{"end within the head", "GET", "HTTP/1.1 2", true, want{"reset protocol error reused=false\n", false, Gone{Active: true, ProtocolError: true}}, nil},
		{"end within the body", "GET", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", true, want{"headers 200\nreset protocol error reused=false\nbody ok\n", false, Gone{Active: true, ProtocolError: true}}, nil},
		{"end within chunks", "GET", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", true, want{"headers 200\nreset protocol error reused=false\nbody ok\n", false, Gone{Active: true, ProtocolError: true}}, nil},
		{"end of a tunnel", "GET", "HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nok", true, want{"headers 101\nreset connection termination reused=false\nbody ok\n", false, Gone{Active: true}}, []string{"connection", "upgrade", "upgrade", "x"}},
		{"flood of interim heads", "GET", strings.Repeat("HTTP/1.1 100 C\r\n\r\n", 101), false, want{strings.Repeat("interim 100\n", 100) + "reset protocol error reused=false\n", false, Gone{Local: true, Active: true, ProtocolError: true}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := dialRig(t, &ClientOptions{Options{EnableTrailers: true}})
			r.request(c.method, "", c.kv...)
			r.readHead(t)
			send(t, r.peer, c.answer)
			if c.fin {
				_ = r.peer.CloseWrite()
			}
			if got := wait(t, r.s.done); got != c.want.log {
				t.Errorf("got %q, want %q", got, c.want.log)
			}
			if c.want.idle {
				wait(t, r.pool.idle)
				return
			}
			if g := wait(t, r.pool.gone); g != c.want.gone {
				t.Errorf("got %+v, want %+v", g, c.want.gone)
			}
		})
	}
}

func TestClientReuse(t *testing.T) {
	t.Parallel()
	r := dialRig(t, &ClientOptions{})
	for range 3 {
		r.request("POST", "hello")
		if got, want := r.readHead(t), "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"; got != want {
			t.Fatalf("got %q", got)
		}
		b := make([]byte, len("5\r\nhello\r\n0\r\n\r\n"))
		if _, err := io.ReadFull(r.r, b); err != nil || string(b) != "5\r\nhello\r\n0\r\n\r\n" {
			t.Fatalf("%q %v", b, err)
		}
		send(t, r.peer, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
		if got := wait(t, r.s.done); got != "headers 200\nbody ok\n" {
			t.Fatal(got)
		}
		wait(t, r.pool.idle)
	}
	r.request("GET", "")
	r.readHead(t)
	r.peer.Close()
	if got := wait(t, r.s.done); got != "reset connection termination reused=true\n" {
		t.Error(got)
	}
	wait(t, r.pool.gone)
	r.request("GET", "")
	if got := wait(t, r.s.done); got != "no stream" {
		t.Error(got)
	}
}

// What comes while no request is under way ends the connection: it must not be taken for the answer
// to the next one.
func TestClientIdleBytes(t *testing.T) {
	t.Parallel()
	r := dialRig(t, &ClientOptions{})
	send(t, r.peer, "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
	if g := wait(t, r.pool.gone); g != (Gone{Local: true, ProtocolError: true}) {
		t.Errorf("%+v", g)
	}
	r = dialRig(t, &ClientOptions{})
	_ = r.peer.CloseWrite()
	if g := wait(t, r.pool.gone); g != (Gone{}) {
		t.Errorf("%+v", g)
	}
}

// A response that is whole before the request ends the connection with the stream.
func TestClientEarlyResponse(t *testing.T) {
	t.Parallel()
	r := dialRig(t, &ClientOptions{})
	r.s.do(func(t *stream.Turn) {
		r.s.enc = r.conn.NewStream(t, stream.Target{M: &r.s.mon, To: r.s, Gen: r.s.mon.Gen()})
		m := new(header.Map)
		m.Add(":method", "POST")
		m.Add(":path", "/")
		m.Add("content-length", "10")
		r.s.enc.EncodeHeaders(t, m, false)
		r.s.enc.EncodeData(t, []byte("abc"), false)
	})
	r.readHead(t)
	send(t, r.peer, "HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
	if got := wait(t, r.s.done); got != "headers 413\n" {
		t.Error(got)
	}
	if g := wait(t, r.pool.gone); !g.Local {
		t.Errorf("%+v", g)
	}
}

// A body that does not match its Content-Length never desynchronises the connection.
func TestClientKeepsToLength(t *testing.T) {
	t.Parallel()
	r := dialRig(t, &ClientOptions{})
	r.request("POST", "hello", "content-length", "3")
	r.readHead(t)
	b := make([]byte, 3)
	if _, err := io.ReadFull(r.r, b); err != nil || string(b) != "hel" {
		t.Fatalf("%q %v", b, err)
	}
	send(t, r.peer, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
	wait(t, r.s.done)
	wait(t, r.pool.gone)
	if rest, _ := io.ReadAll(r.r); len(rest) > 0 {
		t.Errorf("%q was sent, too", rest)
	}

	r = dialRig(t, &ClientOptions{})
	r.request("POST", "he", "content-length", "3")
	if rest, _ := io.ReadAll(r.r); !bytes.HasSuffix(rest, []byte("\r\n\r\nhe")) {
		t.Errorf("%q", rest)
	}
	if got := wait(t, r.s.done); got != "reset connection termination reused=false\n" {
		t.Error(got)
	}
	wait(t, r.pool.gone)
}

// A head without what the request line needs is not sent.
func TestClientIncompleteHead(t *testing.T) {
	t.Parallel()
	r := dialRig(t, &ClientOptions{})
	r.s.do(func(t *stream.Turn) {
		r.s.enc = r.conn.NewStream(t, stream.Target{M: &r.s.mon, To: r.s, Gen: r.s.mon.Gen()})
		m := new(header.Map)
		m.Add(":method", "GET")
		r.s.enc.EncodeHeaders(t, m, false)
		r.s.enc.EncodeData(t, []byte("x"), true)
	})
	if got := wait(t, r.s.done); got != "reset local reset reused=false\n" {
		t.Error(got)
	}
	if b, err := io.ReadAll(r.r); len(b) > 0 || err != nil {
		t.Errorf("%q was sent, %v", b, err)
	}
	wait(t, r.pool.gone)
}

func TestClientTunnel(t *testing.T) {
	t.Parallel()
	r := dialRig(t, &ClientOptions{})
	r.s.do(func(t *stream.Turn) {
		r.s.enc = r.conn.NewStream(t, stream.Target{M: &r.s.mon, To: r.s, Gen: r.s.mon.Gen()})
		m := new(header.Map)
		m.Add(":authority", "b:80")
		m.Add(":method", "CONNECT")
		r.s.enc.EncodeHeaders(t, m, false)
		r.s.enc.EncodeData(t, []byte("early"), false)
	})
	if got := r.readHead(t); got != "CONNECT b:80 HTTP/1.1\r\nhost: b:80\r\n\r\n" {
		t.Errorf("%q", got)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(r.r, b); err != nil || string(b) != "early" {
		t.Fatalf("%q %v", b, err)
	}
	send(t, r.peer, "HTTP/1.1 200 OK\r\n\r\nraw")
	r.s.do(func(t *stream.Turn) { r.s.enc.EncodeData(t, []byte("more"), true) })
	if rest, err := io.ReadAll(r.r); err != nil || string(rest) != "more" {
		t.Errorf("%q %v", rest, err)
	}
	_ = r.peer.CloseWrite()
	if got := wait(t, r.s.done); got != "headers 200\nreset connection termination reused=false\nbody raw\n" {
		t.Errorf("%q", got)
	}
	wait(t, r.pool.gone)
}
