package pool_test

import (
	"net"
	"sync"
	"testing"
	"time"

	"sidecar/api/stream"
	"sidecar/cluster/load"
	"sidecar/cluster/pool"
)

func TestReuse(t *testing.T) {
	t.Parallel()
	s := newServer(t, bang)
	r := newRig(t, s.ln.Addr(), load.DefaultLimits(), nil)
	u := r.user()
	for range 5 {
		u.get()
		r.wait("idle", func() bool { return r.traffic.RqActive.Value() == 0 })
	}
	if n := s.total.Load(); n != 1 {
		t.Fatalf("%d connections, want 1", n)
	}
	if got := r.traffic.RqTotal.Value(); got != 5 {
		t.Fatalf("upstream_rq_total %d, want 5", got)
	}
	if got := r.traffic.RqPendingTotal.Value(); got != 1 {
		t.Fatalf("upstream_rq_pending_total %d, want 1", got)
	}
	if ready, f := u.start(); !ready || f != nil {
		t.Fatal("an idle connection was not given at once")
	}
	u.expect(stream.EventHeaders)
}

func TestMaxRequestsPerConnection(t *testing.T) {
	t.Parallel()
	s := newServer(t, bang)
	r := newRig(t, s.ln.Addr(), load.DefaultLimits(), func(c *pool.Config) { c.MaxRequests = 2 })
	u := r.user()
	for range 6 {
		u.get()
		r.wait("idle", func() bool { return r.traffic.RqActive.Value() == 0 })
	}
	r.wait("closes", func() bool { return r.traffic.CxDestroyLocal.Value() == 3 })
	if n := s.total.Load(); n != 3 {
		t.Fatalf("%d connections, want 3", n)
	}
	if n := r.traffic.CxMaxRequests.Value(); n != 3 {
		t.Fatalf("upstream_cx_max_requests %d, want 3", n)
	}
}

func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	s := newServer(t, bang)
	r := newRig(t, s.ln.Addr(), load.DefaultLimits(), func(c *pool.Config) { c.IdleTimeout = 20 * time.Millisecond })
	r.user().get()
	r.wait("idle timeout", func() bool { return r.traffic.CxIdleTimeout.Value() == 1 && r.pool.Size() == 0 })
	r.user().get()
	if n := s.total.Load(); n != 2 {
		t.Fatalf("%d connections, want 2", n)
	}
}

func TestMaxConnectionDuration(t *testing.T) {
	t.Parallel()
	s := newServer(t, bang)
	r := newRig(t, s.ln.Addr(), load.DefaultLimits(), func(c *pool.Config) { c.MaxDuration = 20 * time.Millisecond })
	r.user().get()
	r.wait("end of the connection", func() bool { return r.traffic.CxMaxDuration.Value() == 1 && r.pool.Size() == 0 })
}

func TestBreakers(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	s := newServer(t, func(int) []byte { <-hold; return []byte("!") })
	limits := load.DefaultLimits()
	limits.Connections, limits.Pending = 1, 1
	r := newRig(t, s.ln.Addr(), limits, nil)
	first, second, third := r.user(), r.user(), r.user()
	if _, f := first.start(); f != nil {
		t.Fatal(f)
	}
	first.expect(stream.EventReady)
	if _, f := second.start(); f != nil {
		t.Fatal(f)
	}
	if r.traffic.CxOverflow.Value() != 1 {
		t.Fatal("upstream_cx_overflow was not counted")
	}
	_, f := third.start()
	if f == nil || f.Flag != stream.UpstreamOverflow || f.Reason != stream.ReasonOverflow {
		t.Fatalf("fault %v, want overflow", f)
	}
	if r.traffic.Default.Pending.Value() != 1 || r.traffic.Default.Cx.Value() != 1 {
		t.Fatal("the breakers' gauges are not open")
	}
	close(hold)
	first.expect(stream.EventHeaders)
	second.expect(stream.EventReady)
	second.expect(stream.EventHeaders)
	if n := s.total.Load(); n != 1 {
		t.Fatalf("%d connections, want 1", n)
	}
	if r.traffic.Default.Pending.Value() != 0 {
		t.Fatal("rq_pending_open did not close")
	}
}

func TestMaxRequestsBreaker(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	s := newServer(t, func(int) []byte { <-hold; return []byte("!") })
	limits := load.DefaultLimits()
	limits.Requests = 1
	r := newRig(t, s.ln.Addr(), limits, nil)
	first, second := r.user(), r.user()
	if _, f := first.start(); f != nil {
		t.Fatal(f)
	}
	first.expect(stream.EventReady)
	if _, f := second.start(); f != nil {
		t.Fatal(f)
	}
	second.expect(stream.EventReady)
	var fault *stream.Fault
	second.in(func(*stream.Turn) { fault = second.fault })
	if fault == nil || fault.Reason != stream.ReasonOverflow {
		t.Fatalf("fault %v, want overflow", fault)
	}
	if r.traffic.RqActiveOverflow.Value() != 1 || r.traffic.Default.Rq.Value() != 1 {
		t.Fatal("the overflow was not counted")
	}
	close(hold)
	first.expect(stream.EventHeaders)
}

func TestConnectFailure(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr()
	_ = ln.Close()
	r := newRig(t, addr, load.DefaultLimits(), nil)
	u := r.user()
	if _, f := u.start(); f != nil {
		t.Fatal(f)
	}
	f := u.expect(stream.EventFailed).Fault
	if f.Flag != stream.UpstreamConnectionFailure || f.Reason != stream.ReasonRemoteConnectionFailure ||
		f.Transport != "delayed_connect_error:_Connection_refused" {
		t.Fatalf("fault %+v", f)
	}
	if r.traffic.CxConnectFail.Value() != 1 || r.traffic.RqPendingFailureEject.Value() != 1 {
		t.Fatal("not counted")
	}
}

func TestCancelWaiting(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	s := newServer(t, func(int) []byte { <-hold; return []byte("!") })
	limits := load.DefaultLimits()
	limits.Connections = 1
	r := newRig(t, s.ln.Addr(), limits, nil)
	first, second, third := r.user(), r.user(), r.user()
	for _, u := range []*user{first, second, third} {
		if _, f := u.start(); f != nil {
			t.Fatal(f)
		}
		if u == first {
			u.expect(stream.EventReady)
		}
	}
	second.in(second.lease.Cancel)
	close(hold)
	first.expect(stream.EventHeaders)
	third.expect(stream.EventReady)
	third.expect(stream.EventHeaders)
	if len(second.events) != 0 {
		t.Fatal("a cancelled stream was told something")
	}
	if r.traffic.RqCancelled.Value() != 1 {
		t.Fatal("upstream_rq_cancelled was not counted")
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	s := newServer(t, bang)
	r := newRig(t, s.ln.Addr(), load.DefaultLimits(), nil)
	r.user().get()
	r.pool.Drain(false)
	r.wait("idle connection closed", func() bool { return r.pool.Size() == 0 })
	r.user().get()
	r.wait("idle", func() bool { return r.traffic.RqActive.Value() == 0 })
	if r.pool.Size() != 1 {
		t.Fatal("a connection made after the drain was not kept")
	}
	r.pool.Drain(true)
	r.user().get()
	r.wait("nothing kept", func() bool { return r.pool.Size() == 0 })
}

func TestPeerCloses(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(n int) []byte {
		if n == 1 {
			return nil
		}
		return []byte("!")
	})
	r := newRig(t, s.ln.Addr(), load.DefaultLimits(), nil)
	u := r.user()
	u.get()
	r.wait("idle", func() bool { return r.traffic.RqActive.Value() == 0 })
	if ready, _ := u.start(); !ready {
		t.Fatal("no idle connection")
	}
	u.expect(stream.EventReset)
	r.wait("accounts", func() bool { return r.traffic.CxDestroyRemoteActive.Value() == 1 })
	if r.traffic.CxDestroyRemote.Value() != 1 || r.traffic.CxDestroyActive.Value() != 1 {
		t.Fatal("not counted as closed by the peer")
	}
}

// TestHammer lets many streams fight for few connections while they cancel, drain and reset.
func TestHammer(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(n int) []byte {
		if n%17 == 16 {
			return []byte(".")
		}
		return []byte("!")
	})
	limits := load.DefaultLimits()
	limits.Connections = 4
	r := newRig(t, s.ln.Addr(), limits, func(c *pool.Config) { c.MaxRequests = 50 })
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			u := r.user()
			for i := range 200 {
				ready, f := u.start()
				if f != nil {
					continue
				}
				if !ready && (w+i)%7 == 0 {
					u.in(u.lease.Cancel)
					var begun bool
					u.in(func(*stream.Turn) { begun = u.enc != nil })
					if !begun {
						drop(u)
						continue
					}
				}
				if w == 0 && i%50 == 49 {
					r.pool.Drain(false)
				}
				if !u.finish() {
					return
				}
			}
		})
	}
	wg.Wait()
}

func drop(u *user) {
	for len(u.events) > 0 {
		<-u.events
	}
}

// finish waits for the end of a stream, whatever it is.
func (u *user) finish() bool {
	for {
		select {
		case e := <-u.events:
			switch {
			case e.Kind == stream.EventReady && u.failed(), e.Kind == stream.EventHeaders,
				e.Kind == stream.EventReset, e.Kind == stream.EventFailed:
				return true
			}
		case <-time.After(10 * time.Second):
			u.r.t.Error("a stream hangs")
			return false
		}
	}
}

func (u *user) failed() (yes bool) {
	u.in(func(*stream.Turn) { yes = u.enc == nil })
	return yes
}

func TestAllocsPooled(t *testing.T) {
	s := newServer(t, bang)
	r := newRig(t, s.ln.Addr(), load.DefaultLimits(), nil)
	u := r.user()
	u.get()
	r.wait("idle", func() bool { return r.traffic.RqActive.Value() == 0 })
	turn := stream.NewTurn()
	u.auto = false
	n := testing.AllocsPerRun(1000, func() {
		enc, f := u.lease.Get(turn, r.pool, u.target(), 0, 1)
		if enc == nil || f != nil {
			t.Error("no idle connection")
			return
		}
		u.lease.Conn().OnIdle(turn)
		turn.End()
	})
	if n != 0 {
		t.Fatalf("%v allocations for an idle connection", n)
	}
	// The codec of this test believes that a request is under way.
	u.enc = nil
}
