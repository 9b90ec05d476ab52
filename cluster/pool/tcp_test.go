package pool_test

import (
	"net"
	"os"
	"sync"
	"testing"

	"sidecar/api/stream"
	"sidecar/cluster/load"
)

func (u *user) connect() (f *stream.Fault) {
	u.tcp = true
	u.in(func(*stream.Turn) {
		u.seq++
		f = u.lease.Connect(u.r.pool, u.target(), u.seq, false)
	})
	return f
}

func TestConnectTCP(t *testing.T) {
	t.Parallel()
	s := newServer(t, bang)
	r := newRig(t, s.ln.Addr(), load.DefaultLimits(), nil)
	u := r.user()
	if f := u.connect(); f != nil {
		t.Fatal(f)
	}
	u.expect(stream.EventReady)
	if r.traffic.RqTotal.Value() != 1 || r.traffic.CxActive.Value() != 1 || r.traffic.CxHTTP1Total.Value() != 0 {
		t.Fatal("not counted as a TCP connection")
	}
	if u.raw.Local().IsZero() || u.raw.Remote().String() != s.ln.Addr().String() || u.raw.ID() == 0 {
		t.Fatalf("connection %d from %s to %s", u.raw.ID(), u.raw.Local(), u.raw.Remote())
	}
	u.raw.Close(false)
	if r.traffic.CxDestroyRemoteActive.Value() != 1 {
		t.Fatal("the peer's close was not counted")
	}
}

func TestConnectTCPFails(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	r := newRig(t, ln.Addr(), load.DefaultLimits(), nil)
	u := r.user()
	if f := u.connect(); f != nil {
		t.Fatal(f)
	}
	if f := u.expect(stream.EventFailed).Fault; f.Flag != stream.UpstreamConnectionFailure {
		t.Fatalf("fault %v", f)
	}
}

func TestConnectTCPBreakers(t *testing.T) {
	t.Parallel()
	s := newServer(t, bang)
	limits := load.DefaultLimits()
	limits.Connections = 1
	r := newRig(t, s.ln.Addr(), limits, nil)
	u, v := r.user(), r.user()
	if f := u.connect(); f != nil {
		t.Fatal(f)
	}
	u.expect(stream.EventReady)
	if f := v.connect(); f == nil || f.Flag != stream.UpstreamOverflow {
		t.Fatalf("fault %v", f)
	}
	if r.traffic.CxOverflow.Value() != 1 {
		t.Fatal("upstream_cx_overflow was not counted")
	}
	u.raw.Close(true)
}

// TestConnectTCPClosed ends pools and streams at every moment of connecting.
func TestConnectTCPClosed(t *testing.T) {
	t.Parallel()
	s := newServer(t, bang)
	r := newRig(t, s.ln.Addr(), load.DefaultLimits(), nil)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				u := r.user()
				if f := u.connect(); f != nil {
					t.Error(f)
					return
				}
				if (w+i)%3 != 0 {
					u.expect(stream.EventReady)
				}
				u.in(func(t *stream.Turn) {
					u.lease.Cancel(t)
					if u.raw != nil {
						u.raw.Close(true)
					}
				})
			}
		})
	}
	wg.Wait()
	last := r.user()
	if f := last.connect(); f != nil {
		t.Fatal(f)
	}
	last.expect(stream.EventReady)
	r.pool.Close()
	r.wait("end of the last connection", func() bool { return r.traffic.CxActive.Value() == 0 })
}

// TestFDs returns to as many open files as there were.
func TestFDs(t *testing.T) {
	s := newServer(t, bang)
	r := newRig(t, s.ln.Addr(), load.DefaultLimits(), nil)
	r.user().get()
	r.wait("idle", func() bool { return r.traffic.RqActive.Value() == 0 })
	before := fds(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 10 {
				r.user().get()
				u := r.user()
				if u.connect() == nil {
					u.expect(stream.EventReady)
					u.raw.Close(true)
				}
			}
		})
	}
	wg.Wait()
	r.wait("idle", func() bool { return r.traffic.RqActive.Value() == 0 })
	r.pool.Drain(false)
	r.user().get()
	r.wait("files closed", func() bool { return r.pool.Size() == 1 && fds(t) <= before })
}

func fds(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	return len(names)
}
