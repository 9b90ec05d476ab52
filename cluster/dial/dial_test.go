package dial_test

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sidecar/api/stream"
	"sidecar/cluster/dial"
	"sidecar/cluster/host"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func at(a stream.Addr, more ...stream.Addr) *host.Host {
	return host.New(a, "", more, &host.Attributes{})
}

// listen returns the address of a listener, and of a port where nobody listens.
func listen(t *testing.T) (open, shut stream.Addr) {
	t.Helper()
	for _, a := range []*stream.Addr{&open, &shut} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*a = stream.IPAddr(netip.MustParseAddrPort(ln.Addr().String()))
		if a == &shut {
			_ = ln.Close()
			continue
		}
		t.Cleanup(func() { _ = ln.Close() })
	}
	return open, shut
}

// full returns the address of a listener whose backlog takes no more.
func full(t *testing.T) stream.Addr {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	sa, ok := name.(*syscall.SockaddrInet4)
	if !ok {
		t.Fatal("no IPv4 address")
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	for range 3 {
		c, err := net.DialTimeout("tcp", addr.String(), 50*time.Millisecond)
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
		}
	}
	return stream.IPAddr(addr)
}

// The texts were read from Envoy 1.40.
func TestFailures(t *testing.T) {
	t.Parallel()
	_, shut := listen(t)
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	tests := []struct {
		name      string
		opt       dial.Options
		to        stream.Addr
		reason    stream.Reason
		transport string
		bind      bool
	}{
		{
			"refused",
			dial.Options{},
			shut, stream.ReasonRemoteConnectionFailure,
			"delayed_connect_error:_Connection_refused", false,
		},
		{
			"no such socket",
			dial.Options{},
			stream.PipeAddr(nowhere), stream.ReasonRemoteConnectionFailure,
			"immediate_connect_error:_No_such_file_or_directory|remote_address:" + nowhere, false,
		},
		{
			"foreign source address",
			dial.Options{Sources: []netip.AddrPort{netip.MustParseAddrPort("10.9.9.9:0")}},
			shut,
			stream.ReasonLocalConnectionFailure,
			"failed_to_bind_to_10.9.9.9:0:_Cannot_assign_requested_address", true,
		},
		{"timeout", dial.Options{Timeout: 50 * time.Millisecond}, full(t), stream.ReasonConnectionTimeout, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.opt.Timeout == 0 {
				tt.opt.Timeout = 5 * time.Second
			}
			nc, err := tt.opt.Dial(t.Context(), at(tt.to))
			if err == nil {
				_ = nc.Close()
				t.Fatal("connected")
			}
			if err.Reason != tt.reason || err.Transport != tt.transport || err.Bind != tt.bind {
				t.Fatalf("got %v, %q, %v", err.Reason, err.Transport, err.Bind)
			}
		})
	}
}

func TestSourceAddress(t *testing.T) {
	t.Parallel()
	open, _ := listen(t)
	o := dial.Options{Timeout: time.Second, Sources: []netip.AddrPort{
		netip.MustParseAddrPort("[::1]:0"), netip.MustParseAddrPort("127.0.0.6:0"),
	}}
	nc, err := o.Dial(t.Context(), at(open))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	if got := netip.MustParseAddrPort(nc.LocalAddr().String()).Addr().String(); got != "127.0.0.6" {
		t.Fatalf("connected from %s", got)
	}
}

func TestKeepAlive(t *testing.T) {
	t.Parallel()
	open, _ := listen(t)
	for _, on := range []bool{false, true} {
		o := dial.Options{Timeout: time.Second}
		if on {
			o.KeepAlive = net.KeepAliveConfig{Enable: true, Idle: 7 * time.Second, Interval: -1, Count: -1}
		}
		nc, err := o.Dial(t.Context(), at(open))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = nc.Close() }()
		set, idle, nodelay := options(t, nc)
		if (set != 0) != on || on && idle != 7 || nodelay == 0 {
			t.Fatalf("keepalive %d, idle %d, nodelay %d; want on: %v", set, idle, nodelay, on)
		}
	}
}

func options(t *testing.T, nc net.Conn) (keepalive, idle, nodelay int) {
	t.Helper()
	sc, ok := nc.(syscall.Conn)
	if !ok {
		t.Fatal("no socket")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		keepalive, _ = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
		idle, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE)
		nodelay, _ = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_NODELAY)
	})
	if err != nil {
		t.Fatal(err)
	}
	return keepalive, idle, nodelay
}

func TestRace(t *testing.T) {
	t.Parallel()
	open, shut := listen(t)
	stuck := full(t)
	for name, h := range map[string]*host.Host{
		"the first answers":           at(open, stuck),
		"the first refuses":           at(shut, open),
		"the first doesn't answer":    at(stuck, open),
		"only the last one can serve": at(shut, stuck, open),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := dial.Options{Timeout: 5 * time.Second}
			nc, err := o.Dial(t.Context(), h)
			if err != nil {
				t.Fatal(err)
			}
			if nc.RemoteAddr().String() != open.String() {
				t.Errorf("connected to %s", nc.RemoteAddr())
			}
			_ = nc.Close()
		})
	}
	o := dial.Options{Timeout: 5 * time.Second}
	if _, err := o.Dial(t.Context(), at(shut, shut)); err == nil || err.Reason != stream.ReasonRemoteConnectionFailure {
		t.Fatalf("error %v", err)
	}
	o.Timeout = 50 * time.Millisecond
	if _, err := o.Dial(t.Context(), at(stuck, stuck)); err == nil || err.Reason != stream.ReasonConnectionTimeout {
		t.Fatalf("error %v", err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	stuck := full(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := dial.Options{Timeout: 5 * time.Second}
	for _, h := range []*host.Host{at(stuck), at(stuck, stuck)} {
		if _, err := o.Dial(ctx, h); err == nil || err.Reason != stream.ReasonLocalConnectionFailure {
			t.Fatalf("error %v", err)
		}
	}
}
