package h1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tcpPair returns two ends of a connection over the loopback.
func tcpPair(tb testing.TB) (client, server *net.TCPConn) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// eventually waits for what no event tells of.
func eventually(t *testing.T, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(limit)
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it does not come")
		}
	}
}

// limit is how long a test waits for what must happen.
const limit = 10 * time.Second

// app is a ServerHandler whose streams answer by a function.
type app struct {
	conn   *ServerConn
	answer func(t *stream.Turn, s *appStream, e *stream.Event)
	gone   chan struct{}

	mu     sync.Mutex
	events []string
	live   int
}

// appStream is one stream of an app. It copies what it is told.
type appStream struct {
	mon      stream.Monitor
	app      *app
	enc      stream.Encoder
	released bool
	path     string
	body     []byte
	head     *header.Map
}

func (a *app) NewStream(_ *stream.Turn, enc stream.Encoder) stream.Target {
	s := &appStream{app: a, enc: enc}
	a.mu.Lock()
	a.live++
	a.mu.Unlock()
	return stream.Target{M: &s.mon, To: s, Gen: s.mon.Gen()}
}

func (a *app) OnGone(*stream.Turn) { close(a.gone) }

func (a *app) note(format string, args ...any) {
	a.mu.Lock()
	a.events = append(a.events, fmt.Sprintf(format, args...))
	a.mu.Unlock()
}

func (a *app) log() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.events, "\n")
}

func (s *appStream) Receive(t *stream.Turn, e *stream.Event) {
	switch e.Kind {
	case stream.EventHeaders:
		s.head = e.Map
		s.path = strings.Clone(e.Map.Value(header.Path))
		s.app.note("headers %s %s end=%v", e.Map.Value(header.Method), s.path, e.End)
	case stream.EventData:
		s.body = append(s.body, e.Data...)
		if e.End {
			s.app.note("body %d", len(s.body))
		}
	case stream.EventTrailers:
		s.app.note("trailers %d", e.Map.Len())
	case stream.EventReset:
		s.app.note("reset %s", e.Fault.Details)
	case stream.EventRejected:
		s.app.note("rejected %d %s", e.Fault.Status, e.Fault.Details)
	case stream.EventDrained:
		s.app.note("drained")
	}
	s.app.answer(t, s, e)
}

func (s *appStream) release(t *stream.Turn) {
	if s.released {
		return
	}
	s.released = true
	s.mon.Retire()
	s.app.mu.Lock()
	s.app.live--
	s.app.mu.Unlock()
	s.enc.Release(t)
}

func responseMap(status string, kv ...string) *header.Map {
	m := new(header.Map)
	m.Add(":status", status)
	for i := 0; i < len(kv); i += 2 {
		m.Add(kv[i], kv[i+1])
	}
	return m
}

// reply sends a whole response.
func (s *appStream) reply(t *stream.Turn, status, body string) {
	s.enc.EncodeHeaders(t, responseMap(status, "content-length", fmt.Sprint(len(body))), body == "")
	if body != "" {
		s.enc.EncodeData(t, []byte(body), true)
	}
	s.release(t)
}

// echo answers a whole request with its path and the length of its body, and whatever else with
// what an HTTP connection manager would.
func echo(t *stream.Turn, s *appStream, e *stream.Event) {
	switch e.Kind {
	case stream.EventRejected:
		s.enc.EncodeHeaders(t, responseMap(fmt.Sprint(e.Fault.Status), "content-length", fmt.Sprint(len(e.Fault.Body)), "connection", "close"), false)
		s.enc.EncodeData(t, []byte(e.Fault.Body), true)
		s.release(t)
	case stream.EventReset:
		s.release(t)
	case stream.EventHeaders, stream.EventData, stream.EventTrailers:
		if e.End || e.Kind == stream.EventTrailers {
			s.reply(t, "200", fmt.Sprintf("%s %d", s.path, len(s.body)))
		}
	}
}

// serve runs a server connection; it returns the client's end.
func serve(t *testing.T, o *ServerOptions, answer func(*stream.Turn, *appStream, *stream.Event)) (*net.TCPConn, *app) {
	t.Helper()
	client, server := tcpPair(t)
	w, err := wire.New(server, wire.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := &app{answer: answer, gone: make(chan struct{})}
	a.conn = NewServerConn(w, a, o)
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.conn.Serve(stream.NewTurn())
	}()
	t.Cleanup(func() {
		client.Close()
		select {
		case <-done:
		case <-time.After(limit):
			t.Error("the connection does not end")
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.live != 0 {
			t.Errorf("%d streams were not told of the end", a.live)
		}
	})
	_ = client.SetDeadline(time.Now().Add(limit))
	return client, a
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func readAll(t *testing.T, c net.Conn) string {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("%v after %q", err, b)
	}
	return string(b)
}

// readResponse reads one response with a content-length and returns status and body.
func readResponse(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("%v after %q", err, line)
	}
	status := strings.Fields(line)[1]
	n := 0
	for {
		h, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if h == "\r\n" {
			break
		}
		if v, ok := strings.CutPrefix(h, "content-length: "); ok {
			fmt.Sscan(v, &n)
		}
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	return status + " " + string(b)
}

func TestKeepAliveAndPipelining(t *testing.T) {
	t.Parallel()
	c, a := serve(t, DefaultServerOptions(), echo)
	r := bufio.NewReader(c)
	send(t, c, "GET /1 HTTP/1.1\r\nhost: a\r\n\r\n")
	if got := readResponse(t, r); got != "200 /1 0" {
		t.Error(got)
	}
	var all bytes.Buffer
	for i := range 20 {
		fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s", i, i, strings.Repeat("x", i))
	}
	send(t, c, all.String())
	for i := range 20 {
		if got, want := readResponse(t, r), fmt.Sprintf("200 /%d %d", i, i); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	c.Close()
	<-a.gone
}

func TestServerEndings(t *testing.T) {
	t.Parallel()
	slow := func(t *stream.Turn, s *appStream, e *stream.Event) {
		if e.Kind == stream.EventReset {
			s.release(t)
		}
	}
	early := func(t *stream.Turn, s *appStream, e *stream.Event) {
		switch e.Kind {
		case stream.EventHeaders:
			s.reply(t, "413", "no")
		case stream.EventReset:
			s.release(t)
		}
	}
	fast := DefaultServerOptions()
	fast.DelayedCloseTimeout = 50 * time.Millisecond
	for _, c := range []struct {
		name, in, want, events string
		halfClose              bool
		answer                 func(*stream.Turn, *appStream, *stream.Event)
		opt                    *ServerOptions
	}{
		{"close", "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\n/ 0", "headers GET / end=true", false, echo, nil},
		{"bad request", "BAD\r\n\r\n", "HTTP/1.1 400 Bad Request\r\ncontent-length: 11\r\nconnection: close\r\n\r\nBad Request", "rejected 400 http1.codec_error", false, echo, fast},
		{"bad second request", "GET /1 HTTP/1.1\r\nhost: a\r\n\r\nXAD\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n/1 0HTTP/1.1 400 Bad Request\r\ncontent-length: 11\r\nconnection: close\r\n\r\nBad Request", "headers GET /1 end=true\nrejected 400 http1.codec_error", false, echo, fast},
		{"bad chunk", "POST /1 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nx", "HTTP/1.1 400 Bad Request\r\ncontent-length: 11\r\nconnection: close\r\n\r\nBad Request", "headers POST /1 end=false\nrejected 400 http1.codec_error", false, echo, fast},
		{"answer before the request is whole", "POST /1 HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc", "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno", "headers POST /1 end=false", false, early, fast},
		{"half-close is a disconnect", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", "", "headers GET / end=true\nreset downstream_remote_disconnect", true, slow, nil},
		{"end within a body", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc", "", "headers POST / end=false\nreset downstream_remote_disconnect", true, slow, nil},
		{"end within a head", "GET / HTTP/1.1\r\nho", "", "reset downstream_remote_disconnect", true, slow, nil},
		{"end before a request", "\r\n", "", "", true, slow, nil},
		{"expect", "POST /1 HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1\r\nconnection: close\r\n\r\na", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\n/1 1", "headers POST /1 end=false\nbody 1", false, echo, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := c.opt
			if o == nil {
				o = DefaultServerOptions()
			}
			conn, a := serve(t, o, c.answer)
			send(t, conn, c.in)
			if c.halfClose {
				_ = conn.CloseWrite()
			}
			if got := readAll(t, conn); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
			conn.Close()
			<-a.gone
			if got := a.log(); got != c.events {
				t.Errorf("events %q, want %q", got, c.events)
			}
		})
	}
}

// A client that does not close is cut off after the delayed close timeout.
func TestDelayedCloseExpires(t *testing.T) {
	t.Parallel()
	o := DefaultServerOptions()
	o.DelayedCloseTimeout = 20 * time.Millisecond
	c, a := serve(t, o, echo)
	send(t, c, "XAD\r\n")
	<-a.gone
	c.Close()
}

// More than the socket buffers hold waits in our memory, and no more than that: the stream is told
// to stop, and goes on when there is room.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	const total = 32 << 20
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	left := total
	pump := func(t *stream.Turn, s *appStream) {
		for left > 0 && !s.enc.Full() {
			n := min(left, len(chunk))
			left -= n
			s.enc.EncodeData(t, chunk[:n], left == 0)
			if left == 0 {
				s.release(t)
				return
			}
		}
	}
	c, a := serve(t, DefaultServerOptions(), func(t *stream.Turn, s *appStream, e *stream.Event) {
		switch e.Kind {
		case stream.EventHeaders:
			s.enc.EncodeHeaders(t, responseMap("200"), false)
			pump(t, s)
		case stream.EventDrained:
			pump(t, s)
		case stream.EventReset:
			s.release(t)
		}
	})
	send(t, c, "GET / HTTP/1.1\r\nhost: a\r\n\r\n")
	d := newDecoder(DefaultServerOptions(), true)
	b := make([]byte, 32<<10)
	for !strings.HasPrefix(d.log.String(), ":status") || d.inBody || d.log.Len() == 0 {
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		d.feed(b[:n])
		if p := a.conn.w.Pending(); p > wire.HighWatermark+2*len(chunk) {
			t.Fatalf("%d bytes wait", p)
		}
		if len(d.sent) > 1<<20 { // only the length of the stream matters here
			d.sent = d.sent[:0]
		}
	}
	c.Close()
	<-a.gone
	if !strings.Contains(a.log(), "drained") {
		t.Error("never full")
	}
}

// Who pipelines and never reads is not served any more once his answers fill the buffers.
func TestPipeliningWithoutReading(t *testing.T) {
	t.Parallel()
	answer := strings.Repeat("x", 16<<10)
	var served atomic.Int64
	c, a := serve(t, DefaultServerOptions(), func(t *stream.Turn, s *appStream, e *stream.Event) {
		switch e.Kind {
		case stream.EventHeaders:
			served.Add(1)
			s.reply(t, "200", answer)
		case stream.EventReset:
			s.release(t)
		}
	})
	const n = 2000
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		req := strings.Repeat("GET / HTTP/1.1\r\nhost: a\r\n\r\n", 100)
		for range n / 100 {
			if _, err := io.WriteString(c, req); err != nil {
				return
			}
		}
	}()
	// The reader sleeps once the output is full, which it is when the kernel's buffers are.
	eventually(t, a.conn.waiting.Load)
	if p := a.conn.w.Pending(); p > wire.HighWatermark+2*len(answer) || p == 0 || served.Load() == n {
		t.Fatalf("%d bytes wait after %d of %d responses", p, served.Load(), n)
	}
	r := bufio.NewReader(c)
	for range n {
		if got := readResponse(t, r); got != "200 "+answer {
			t.Fatalf("%.100q", got)
		}
	}
	<-sent
	c.Close()
	<-a.gone
}

// A paused stream takes no more of an upload than one read; the rest stays with the client.
func TestPausedUpload(t *testing.T) {
	t.Parallel()
	enc := make(chan *appStream, 1)
	got := make(chan int, 1)
	total := 0
	c, a := serve(t, DefaultServerOptions(), func(t *stream.Turn, s *appStream, e *stream.Event) {
		switch e.Kind {
		case stream.EventHeaders:
			s.enc.Pause(t, true)
			enc <- s
		case stream.EventData:
			total += len(e.Data)
			if e.End {
				got <- total
				s.reply(t, "200", "ok")
			}
		case stream.EventReset:
			s.release(t)
		}
	})
	const size = 8 << 20
	go func() {
		_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n", size)
		_, _ = c.Write(make([]byte, size))
	}()
	s := <-enc
	select {
	case <-got:
		t.Fatal("a paused stream was given the body")
	case <-time.After(50 * time.Millisecond):
	}
	stream.Do(func(t *stream.Turn) {
		s.mon.Post(t, s.mon.Gen(), stream.Event{To: pauser{s}, Kind: stream.EventResume})
	})
	if n := <-got; n != size {
		t.Errorf("%d bytes", n)
	}
	if r := readResponse(t, bufio.NewReader(c)); r != "200 ok" {
		t.Error(r)
	}
	c.Close()
	<-a.gone
}

type pauser struct{ s *appStream }

func (p pauser) Receive(t *stream.Turn, _ *stream.Event) { p.s.enc.Pause(t, false) }

func TestServerTunnel(t *testing.T) {
	t.Parallel()
	c, a := serve(t, DefaultServerOptions(), func(t *stream.Turn, s *appStream, e *stream.Event) {
		switch e.Kind {
		case stream.EventHeaders:
			s.enc.EncodeHeaders(t, responseMap("101", "connection", "upgrade", "upgrade", "x"), false)
		case stream.EventData:
			s.enc.EncodeData(t, bytes.ToUpper(e.Data), bytes.HasSuffix(e.Data, []byte(".")))
			if bytes.HasSuffix(e.Data, []byte(".")) {
				s.release(t)
			}
		case stream.EventReset:
			s.release(t)
		}
	})
	send(t, c, "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: x\r\n\r\nab")
	want := "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nAB"
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("%q %v", b, err)
	}
	send(t, c, "cd.")
	if got := readAll(t, c); got != "CD." {
		t.Error(got)
	}
	c.Close()
	<-a.gone
}

func TestServerDrainAndClose(t *testing.T) {
	t.Parallel()
	c, a := serve(t, DefaultServerOptions(), echo)
	r := bufio.NewReader(c)
	send(t, c, "GET /1 HTTP/1.1\r\nhost: a\r\n\r\n")
	readResponse(t, r)
	a.conn.SetDrain()
	send(t, c, "GET /2 HTTP/1.1\r\nhost: a\r\n\r\n")
	b, err := io.ReadAll(r)
	if want := "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\n/2 0"; err != nil || string(b) != want {
		t.Errorf("%q %v", b, err)
	}
	<-a.gone

	c, a = serve(t, DefaultServerOptions(), func(t *stream.Turn, s *appStream, e *stream.Event) {
		if e.Kind == stream.EventHeaders {
			s.app.conn.Close(t)
		}
		if e.Kind == stream.EventReset {
			s.release(t)
		}
	})
	send(t, c, "GET /1 HTTP/1.1\r\nhost: a\r\n\r\n")
	<-a.gone
	if got := a.log(); got != "headers GET /1 end=true\nreset downstream_local_disconnect" {
		t.Error(got)
	}
}
