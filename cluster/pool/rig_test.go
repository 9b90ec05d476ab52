package pool_test

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster/dial"
	"sidecar/cluster/host"
	"sidecar/cluster/load"
	"sidecar/cluster/pool"
	"sidecar/internal/wire"
)

// lineCodec is a client codec of the simplest protocol there is: a request is the byte '?', the
// response a byte: '!' leaves the connection open, '.' says that it will be closed.
type lineCodec struct {
	conn *wire.Conn
	h    pool.Handler

	mu     sync.Mutex
	gone   bool
	local  bool
	target stream.Target
	busy   bool
}

func (c *lineCodec) NewStream(_ *stream.Turn, target stream.Target) stream.Encoder {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return nil
	}
	c.target, c.busy = target, true
	return c
}

func (c *lineCodec) Close(*stream.Turn) {
	c.mu.Lock()
	c.local = true
	c.mu.Unlock()
	c.conn.Close()
}

func (c *lineCodec) Serve() {
	t := stream.NewTurn()
	for {
		b, n, err := c.conn.Read(64, func() bool { return true })
		if err != nil {
			c.end(t, pool.Gone{})
			return
		}
		for _, x := range b.B[:n] {
			c.answer(t, x)
		}
		b.Put()
		t.End()
	}
}

func (c *lineCodec) answer(t *stream.Turn, x byte) {
	c.mu.Lock()
	target := c.target
	c.busy = false
	c.mu.Unlock()
	target.Post(t, stream.Event{Kind: stream.EventHeaders, End: true})
	if x == '.' {
		c.conn.Close()
		return
	}
	c.h.OnIdle(t)
}

func (c *lineCodec) end(t *stream.Turn, g pool.Gone) {
	c.conn.Close()
	c.mu.Lock()
	c.gone = true
	g.Local, g.Active = c.local, c.busy
	target := c.target
	c.mu.Unlock()
	if g.Active {
		target.Post(t, stream.Event{Kind: stream.EventReset, Fault: &stream.Fault{}})
	}
	c.h.OnGone(t, g)
	t.End()
}

func (c *lineCodec) EncodeInterim(*stream.Turn, *header.Map) {}
func (c *lineCodec) EncodeHeaders(t *stream.Turn, _ *header.Map, _ bool) {
	c.conn.Write(t, []byte("?"))
}
func (c *lineCodec) EncodeData(*stream.Turn, []byte, bool)    {}
func (c *lineCodec) EncodeTrailers(*stream.Turn, *header.Map) {}
func (c *lineCodec) Full() bool                               { return false }
func (c *lineCodec) Pause(*stream.Turn, bool)                 {}
func (c *lineCodec) Reset(t *stream.Turn, _ *stream.Fault)    { c.Close(t) }
func (c *lineCodec) Protocol() stream.Protocol                { return stream.HTTP11 }
func (c *lineCodec) Release(*stream.Turn)                     {}
func (c *lineCodec) Traffic() stream.Traffic                  { return stream.Traffic{} }

// server answers each '?' as told.
type server struct {
	ln     net.Listener
	answer atomic.Pointer[func(n int) []byte]
	mu     sync.Mutex
	conns  []net.Conn
	wg     sync.WaitGroup
	total  atomic.Int64
}

func newServer(t *testing.T, answer func(n int) []byte) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{ln: ln}
	s.answer.Store(&answer)
	s.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.total.Add(1)
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			s.wg.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		s.closeConns()
		s.wg.Wait()
	})
	return s
}

func (s *server) closeConns() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
}

func (s *server) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	b := make([]byte, 1)
	for n := 0; ; n++ {
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		out := (*s.answer.Load())(n)
		if out == nil {
			return
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

func bang(int) []byte { return []byte("!") }

// rig is a pool with everything around it.
type rig struct {
	t       *testing.T
	conf    *pool.Config
	traffic *load.Traffic
	host    *host.Host
	pool    *pool.Pool
	cancel  context.CancelFunc
}

func newRig(t *testing.T, addr net.Addr, limits load.Limits, change func(*pool.Config)) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &rig{t: t, traffic: &load.Traffic{}, cancel: cancel}
	var ids atomic.Uint64
	both := [2]load.Limits{limits, limits}
	a, ok := addr.(*net.TCPAddr)
	if !ok {
		t.Fatal("not a TCP address")
	}
	r.host = host.New(stream.IPAddr(a.AddrPort()), "", nil, &host.Attributes{Weight: 1})
	r.conf = &pool.Config{
		Ctx:         ctx,
		Dial:        &dial.Options{Timeout: 5 * time.Second},
		NextID:      func() uint64 { return ids.Add(1) },
		IdleTimeout: time.Hour,
		Stripes:     2,
		Traffic:     r.traffic,
		Breakers:    load.NewBreakers(&both, r.traffic, [2]*load.Remaining{}),
		NewCodec:    func(conn *wire.Conn, h pool.Handler) pool.Codec { return &lineCodec{conn: conn, h: h} },
	}
	if change != nil {
		change(r.conf)
	}
	r.pool = pool.New(r.conf, r.host, load.Default)
	t.Cleanup(func() {
		cancel()
		r.pool.Close()
		r.wait("every connection gone", func() bool {
			return r.traffic.CxActive.Value() == 0 && r.traffic.CxTotal.Value() == r.traffic.CxDestroy.Value()
		})
		for name, v := range map[string]int64{
			"rq_active": r.traffic.RqActive.Value(), "pending": r.traffic.RqPendingActive.Value(),
			"host rq_active": r.host.Active(), "host cx_active": r.host.Counters().CxActive.Value(),
			"host pending": r.host.Counters().RqPendingActive.Value(),
		} {
			if v != 0 {
				t.Errorf("%s is %d at the end", name, v)
			}
		}
	})
	return r
}

// wait polls a condition that other goroutines bring about.
func (r *rig) wait(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			r.t.Fatalf("no %s in time", what)
		}
		time.Sleep(100 * time.Microsecond) // polled: counters have no event
	}
}

// user is a stream.
type user struct {
	r      *rig
	m      stream.Monitor
	lease  pool.Lease
	events chan stream.Event
	enc    stream.Encoder
	fault  *stream.Fault
	auto   bool // send the request as soon as the stream is ready
	seq    uint32
	raw    *pool.TCP
	tcp    bool
}

func (r *rig) user() *user {
	return &user{r: r, events: make(chan stream.Event, 16), auto: true}
}

func (u *user) Receive(t *stream.Turn, e *stream.Event) {
	if e.Kind == stream.EventCall {
		if f, ok := e.Ref.(func(*stream.Turn)); ok {
			f(t)
		}
		return
	}
	if e.Kind == stream.EventReady && e.Seq == u.seq {
		if u.tcp {
			u.raw = u.lease.OpenTCP()
		} else {
			u.enc, u.fault = u.lease.Open(t)
			u.send(t)
		}
	}
	if e.Kind == stream.EventFailed {
		u.fault = e.Fault
	}
	u.events <- stream.Event{Kind: e.Kind, Fault: e.Fault, Seq: e.Seq, End: e.End}
}

func (u *user) send(t *stream.Turn) {
	if u.enc != nil && u.auto {
		u.enc.EncodeHeaders(t, nil, true)
	}
}

func (u *user) target() stream.Target { return stream.Target{M: &u.m, To: u, Gen: u.m.Gen()} }

// in runs f inside the stream and waits for it.
func (u *user) in(f func(t *stream.Turn)) {
	done := make(chan struct{})
	stream.Do(func(t *stream.Turn) {
		u.target().Post(t, stream.Event{Kind: stream.EventCall, Ref: func(t *stream.Turn) {
			f(t)
			close(done)
		}})
	})
	<-done
}

// start asks the pool; ready tells that a connection was there.
func (u *user) start() (ready bool, f *stream.Fault) {
	u.in(func(t *stream.Turn) {
		u.seq++
		u.enc, u.fault = u.lease.Get(t, u.r.pool, u.target(), 0, u.seq)
		ready, f = u.enc != nil, u.fault
		u.send(t)
	})
	return ready, f
}

func (u *user) expect(kind stream.EventKind) stream.Event {
	u.r.t.Helper()
	select {
	case e := <-u.events:
		if e.Kind != kind {
			u.r.t.Fatalf("event %d (fault %v), want %d", e.Kind, e.Fault, kind)
		}
		return e
	case <-time.After(10 * time.Second):
		u.r.t.Fatalf("no event, want %d", kind)
	}
	return stream.Event{}
}

// get makes one request from start to end.
func (u *user) get() {
	u.r.t.Helper()
	ready, f := u.start()
	if f != nil {
		u.r.t.Fatalf("refused: %v", f)
	}
	if !ready {
		u.expect(stream.EventReady)
	}
	u.expect(stream.EventHeaders)
}
