package h1

import (
	"bufio"
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/task"
	"sidecar/internal/wire"
)

// proxy is the smallest HTTP proxy on both ends of the codec: it has a pool and back-pressure.
type proxy struct {
	upstream string
	copt     ClientOptions

	mu    sync.Mutex
	idle  []*upstream
	wg    sync.WaitGroup
	conns atomic.Int64 // upstream connections made
}

type upstream struct {
	p    *proxy
	conn *ClientConn
}

func (u *upstream) OnIdle(*stream.Turn) {
	u.p.mu.Lock()
	u.p.idle = append(u.p.idle, u)
	u.p.mu.Unlock()
}

func (u *upstream) OnGone(*stream.Turn, Gone) {
	u.p.mu.Lock()
	defer u.p.mu.Unlock()
	for i, x := range u.p.idle {
		if x == u {
			u.p.idle = append(u.p.idle[:i], u.p.idle[i+1:]...)
			return
		}
	}
}

func (p *proxy) take() *upstream {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		u := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return u
	}
	p.mu.Unlock()
	nc, err := net.Dial("tcp", p.upstream)
	if err != nil {
		return nil
	}
	w, _ := wire.New(nc, wire.Options{})
	u := &upstream{p: p}
	u.conn = NewClientConn(w, u, &p.copt)
	p.conns.Add(1)
	p.wg.Go(u.conn.Serve)
	return u
}

func (p *proxy) close() {
	p.mu.Lock()
	idle := append([]*upstream(nil), p.idle...)
	p.mu.Unlock()
	for _, u := range idle {
		stream.Do(u.conn.Close)
	}
	p.wg.Wait()
}

// proxied is one stream, with both codecs' ends.
type proxied struct {
	p          *proxy
	mon        stream.Monitor
	down, up   stream.Encoder
	upTo       upSide
	sent       bool
	reqOver    bool
	respOver   bool
	downPaused bool
	upPaused   bool
	over       bool
	recycleFn  func(*stream.Turn)
}

// recycle runs after the stream was left.
func (s *proxied) recycle(*stream.Turn) {
	s.sent, s.reqOver, s.respOver, s.downPaused, s.upPaused, s.over = false, false, false, false, false, false
	proxieds.Put(s)
}

type upSide struct{ s *proxied }

var proxieds = buf.Pool[proxied]{New: func() *proxied { return new(proxied) }}

func (p *proxy) NewStream(_ *stream.Turn, enc stream.Encoder) stream.Target {
	s := proxieds.Get()
	s.p, s.down = p, enc
	s.upTo.s = s
	if s.recycleFn == nil {
		s.recycleFn = s.recycle
	}
	return stream.Target{M: &s.mon, To: s, Gen: s.mon.Gen()}
}

func (p *proxy) OnGone(*stream.Turn) {}

func (s *proxied) Receive(t *stream.Turn, e *stream.Event) {
	switch e.Kind {
	case stream.EventHeaders:
		u := s.p.take()
		if u == nil {
			s.fail(t)
			return
		}
		s.up = u.conn.NewStream(t, stream.Target{M: &s.mon, To: &s.upTo, Gen: s.mon.Gen()})
		if s.up == nil {
			s.fail(t)
			return
		}
		e.Map.RemoveID(header.TransferEncoding)
		s.up.EncodeHeaders(t, e.Map, e.End)
		s.reqOver = e.End
	case stream.EventData:
		if s.up == nil {
			return
		}
		s.up.EncodeData(t, e.Data, e.End)
		s.reqOver = e.End
		if !e.End && s.up.Full() && !s.downPaused {
			s.downPaused = true
			s.down.Pause(t, true)
		}
	case stream.EventTrailers:
		s.up.EncodeTrailers(t, e.Map)
		s.reqOver = true
	case stream.EventReset, stream.EventRejected:
		s.finish(t, true)
		return
	case stream.EventDrained:
		if s.upPaused && s.up != nil {
			s.upPaused = false
			s.up.Pause(t, false)
		}
	}
	s.maybe(t)
}

func (u *upSide) Receive(t *stream.Turn, e *stream.Event) {
	s := u.s
	switch e.Kind {
	case stream.EventHeaders:
		s.sent = true
		e.Map.RemoveID(header.TransferEncoding)
		s.down.EncodeHeaders(t, e.Map, e.End)
		s.respOver = e.End
	case stream.EventData:
		s.down.EncodeData(t, e.Data, e.End)
		s.respOver = e.End
		if !e.End && s.down.Full() && !s.upPaused {
			s.upPaused = true
			s.up.Pause(t, true)
		}
	case stream.EventTrailers:
		s.down.EncodeTrailers(t, e.Map)
		s.respOver = true
	case stream.EventReset:
		s.fail(t)
		return
	case stream.EventDrained:
		if s.downPaused {
			s.downPaused = false
			s.down.Pause(t, false)
		}
	}
	s.maybe(t)
}

func (s *proxied) maybe(t *stream.Turn) {
	if s.respOver {
		s.finish(t, false)
	}
}

func (s *proxied) fail(t *stream.Turn) {
	if !s.sent && !s.over {
		s.down.EncodeHeaders(t, responseMap("503"), true)
	}
	s.finish(t, true)
}

func (s *proxied) finish(t *stream.Turn, reset bool) {
	if s.over {
		return
	}
	s.over = true
	s.mon.Retire()
	up, down := s.up, s.down
	s.up, s.down = nil, nil
	if up != nil {
		if reset {
			up.Reset(t, nil)
		}
		up.Release(t)
	}
	down.Release(t)
	t.Later(s.recycleFn)
}

// origin answers each request with a body of the length that its path names, after the request's
// own body, whose checksum is in a header.
func origin(tb testing.TB) (addr string, stop func()) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); originConn(c) })
		}
	})
	return l.Addr().String(), func() { l.Close(); wg.Wait() }
}

func originConn(c net.Conn) {
	d := newDecoder(DefaultServerOptions(), false)
	b := make([]byte, 16<<10)
	w := bufio.NewWriter(c)
	for {
		for d.inBody || d.log.Len() == 0 {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			d.feed(b[:n])
		}
		log := d.log.String()
		d.log.Reset()
		var size int
		var chunks bool
		_, path, _ := strings.Cut(log, ":path=")
		fmt.Sscanf(path, "/%d/%t", &size, &chunks)
		body := pattern(size)
		sum := crc32.ChecksumIEEE([]byte(bodyOf(log)))
		if chunks {
			fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nx-sum: %d\r\ntransfer-encoding: chunked\r\n\r\n", sum)
			for len(body) > 0 {
				n := min(len(body), 1+rand.IntN(40000))
				fmt.Fprintf(w, "%x\r\n%s\r\n", n, body[:n])
				body = body[n:]
			}
			io.WriteString(w, "0\r\n\r\n")
		} else {
			fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nx-sum: %d\r\ncontent-length: %d\r\n\r\n", sum, size)
			w.Write(body)
		}
		if w.Flush() != nil {
			return
		}
	}
}

// bodyOf finds the line of the body in a decoder's log.
func bodyOf(log string) string {
	if i := strings.Index(log, "body "); i >= 0 {
		return log[i:]
	}
	return ""
}

// expected is bodyOf of a body.
func expected(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return bodyLine(b)
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(i%23)
	}
	return b
}

func startProxy(tb testing.TB) (addr string, p *proxy, stop func()) {
	tb.Helper()
	up, stopOrigin := origin(tb)
	addr, p, stopProxy := startProxyTo(tb, up)
	return addr, p, func() { stopProxy(); stopOrigin() }
}

func startProxyTo(tb testing.TB, up string) (addr string, p *proxy, stop func()) {
	tb.Helper()
	p = &proxy{upstream: up}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	opt := DefaultServerOptions()
	opt.DelayedCloseTimeout = 100 * time.Millisecond
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			w, _ := wire.New(nc, wire.Options{})
			c := NewServerConn(w, p, opt)
			wg.Go(func() { c.Serve(stream.NewTurn()) })
		}
	})
	return l.Addr().String(), p, func() { l.Close(); wg.Wait(); p.close() }
}

// Clients of all habits at once: slow and stopped readers, slow writers, pipelining, leaving early.
// What is answered must be whole and right, and nothing may be left over.
func TestProxyRandom(t *testing.T) {
	t.Parallel()
	addr, p, stop := startProxy(t)
	var wg sync.WaitGroup
	seconds := time.Second
	if testing.Short() {
		seconds = 300 * time.Millisecond
	}
	until := time.Now().Add(seconds)
	var whole atomic.Int64
	for i := range 12 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			for time.Now().Before(until) {
				whole.Add(int64(randomClient(t, addr, r)))
			}
		})
	}
	wg.Wait()
	stop()
	if whole.Load() == 0 {
		t.Error("no request was answered")
	}
	t.Logf("%d answers, %d upstream connections", whole.Load(), p.conns.Load())
	eventually(t, func() bool { return task.Live() == 0 })
}

// randomClient makes a few requests on one connection and returns how many answers were whole.
func randomClient(t *testing.T, addr string, r *rand.Rand) (whole int) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	n := 1 + r.IntN(5)
	leave := r.IntN(6) == 0
	type exchange struct {
		size int
		sum  uint32
	}
	var todo []exchange
	var all bytes.Buffer
	for range n {
		x := exchange{size: r.IntN(3000)}
		if r.IntN(6) == 0 {
			x.size = r.IntN(1 << 20)
		}
		body := pattern(r.IntN(3000))
		if r.IntN(6) == 0 {
			body = pattern(r.IntN(600 << 10))
		}
		x.sum = crc32.ChecksumIEEE([]byte(expected(body)))
		if r.IntN(2) == 0 {
			fmt.Fprintf(&all, "POST /%d/%t HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%s", x.size, r.IntN(2) == 0, len(body), body)
		} else {
			fmt.Fprintf(&all, "POST /%d/%t HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", x.size, r.IntN(2) == 0)
			for rest := body; len(rest) > 0; {
				k := min(len(rest), 1+r.IntN(9000))
				fmt.Fprintf(&all, "%x\r\n%s\r\n", k, rest[:k])
				rest = rest[k:]
			}
			all.WriteString("0\r\n\r\n")
		}
		todo = append(todo, x)
	}
	send := make(chan struct{})
	pieces := r.IntN(3)
	seed := r.Uint64()
	go func() {
		defer close(send)
		w := rand.New(rand.NewPCG(seed, 1))
		for all.Len() > 0 {
			k := all.Len()
			if pieces == 1 {
				k = min(k, 1+w.IntN(20000))
			}
			if _, err := c.Write(all.Next(k)); err != nil {
				return
			}
		}
	}()
	d := newDecoder(DefaultServerOptions(), true)
	b := make([]byte, 2000+r.IntN(20000))
	slow := r.IntN(4) == 0
	for _, x := range todo {
		for d.inBody || d.log.Len() == 0 {
			if leave && r.IntN(4) == 0 {
				c.Close()
				<-send
				return whole
			}
			if slow {
				time.Sleep(time.Duration(r.IntN(300)) * time.Microsecond)
			}
			k, err := c.Read(b)
			if err != nil {
				t.Errorf("read: %v", err)
				<-send
				return whole
			}
			// One response at a time, since the decoder goes on by itself.
			d.feed(b[:k])
		}
		log := d.log.String()
		i := strings.Index(log[1:], ":status")
		if i >= 0 {
			d.log.Reset()
			d.log.WriteString(log[i+1:])
			log = log[:i+1]
		} else {
			d.log.Reset()
		}
		if want := fmt.Sprintf("x-sum=%d\n", x.sum); !strings.Contains(log, want) || bodyOf(log) != expected(pattern(x.size)) {
			t.Errorf("wrong answer: size %d, %.200q", x.size, log)
		}
		whole++
	}
	<-send
	return whole
}
