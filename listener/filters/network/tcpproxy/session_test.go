package tcpproxy

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sidecar/api/stream"
)

const toUp = `{"stat_prefix":"p","cluster":"up"}`

func TestEcho_HalfClose(t *testing.T) {
	t.Parallel()
	r := newRig(t, toUp, map[string][]string{"up": {upstream(t, echo)}})
	c := r.dial()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	if p, err := io.ReadAll(c); err != nil || string(p) != "hello" {
		t.Fatalf("read %q, %v", p, err)
	}
	l := r.line()
	if l.Flags != 0 || l.BytesReceived != 5 || l.BytesSent != 5 || l.Cluster != "up" || l.Upstream.Host.IsZero() ||
		l.Attempts != 1 || l.LogType != stream.LogTCPConnectionEnd || l.Details != "" || l.DownstreamWire.WireReceived != 5 {
		t.Errorf("record %+v", l)
	}
	r.wants(map[string]uint64{
		"tcp.p.downstream_cx_total": 1, "tcp.p.downstream_cx_rx_bytes_total": 5, "tcp.p.downstream_cx_tx_bytes_total": 5,
		"cluster.up.upstream_cx_total": 1, "cluster.up.upstream_cx_active": 0, "cluster.up.upstream_rq_total": 1,
		"cluster.up.upstream_cx_rx_bytes_total": 5, "cluster.up.upstream_cx_tx_bytes_total": 5,
		"cluster.up.upstream_cx_destroy_remote": 1, "cluster.up.upstream_cx_destroy_local": 0,
	})
}

func TestUpstreamEndsFirst(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	r := newRig(t, toUp, map[string][]string{"up": {upstream(t, func(c *net.TCPConn) {
		_, _ = c.Write([]byte("bye"))
		_ = c.CloseWrite()
		p, _ := io.ReadAll(c)
		got <- string(p)
	})}})
	c := r.dial()
	if p, err := io.ReadAll(c); err != nil || string(p) != "bye" {
		t.Fatalf("read %q, %v", p, err)
	}
	if _, err := c.Write([]byte("after")); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	if p := <-got; p != "after" {
		t.Errorf("the upstream got %q after it had ended its side", p)
	}
	r.line()
	r.wants(map[string]uint64{"cluster.up.upstream_cx_destroy_local": 1, "cluster.up.upstream_cx_destroy_remote": 0})
}

func TestResetIsPassedOn(t *testing.T) {
	t.Parallel()
	seen := make(chan error, 1)
	r := newRig(t, toUp, map[string][]string{"up": {upstream(t, func(c *net.TCPConn) {
		p := make([]byte, 1)
		_, _ = c.Read(p)
		if p[0] == 'r' {
			_ = c.SetLinger(0)
			return
		}
		_, err := c.Read(p)
		seen <- err
	})}})
	c := r.dial()
	_, _ = c.Write([]byte("r"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("client's read = %v, want the upstream's reset", err)
	}
	if l := r.line(); l.Flags != stream.UpstreamRemoteReset {
		t.Errorf("flags %v, want UR", l.Flags)
	}
	c = r.dial()
	_, _ = c.Write([]byte("x"))
	for r.stat("tcp.p.downstream_cx_rx_bytes_total") != 2 { // the byte has arrived before the reset
		<-time.After(time.Millisecond)
	}
	_ = c.SetLinger(0)
	_ = c.Close()
	if err := <-seen; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("upstream's read = %v, want the client's reset", err)
	}
	if l := r.line(); l.Flags != 0 {
		t.Errorf("flags %v, want none", l.Flags)
	}
}

func TestConnectFails(t *testing.T) {
	t.Parallel()
	dead := deadAddr(t)
	for _, c := range []struct {
		name, proxy string
		clusters    map[string][]string
		flags       stream.Flag
		attempts    int
		cluster     string
		stats       map[string]uint64
	}{
		{"refused", toUp, map[string][]string{"up": {dead}}, stream.UpstreamConnectionFailure | stream.UpstreamRetryLimitExceeded, 1, "up", map[string]uint64{"cluster.up.upstream_cx_connect_fail": 1, "cluster.up.upstream_cx_connect_attempts_exceeded": 1}},
		{"refused three times", `{"stat_prefix":"p","cluster":"up","max_connect_attempts":3}`, map[string][]string{"up": {dead}}, stream.UpstreamConnectionFailure | stream.UpstreamRetryLimitExceeded, 3, "up", map[string]uint64{"cluster.up.upstream_cx_connect_fail": 3}},
		{"no cluster", toUp, nil, stream.NoClusterFound, 0, "", map[string]uint64{"tcp.p.downstream_cx_no_route": 1}},
		{"no host", toUp, map[string][]string{"up": nil}, stream.NoHealthyUpstream, 0, "up", map[string]uint64{"cluster.up.upstream_cx_none_healthy": 1, "tcp.p.downstream_cx_no_route": 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, c.proxy, c.clusters)
			conn := r.dial()
			if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read = %v", err)
			}
			l := r.line()
			if l.Flags&stream.UpstreamRetryLimitExceeded != 0 && l.Flags.String() != "UF,URX" {
				t.Errorf("flags are printed as %s", l.Flags)
			}
			if l.Flags&^stream.FailureFirst != c.flags || l.Attempts != c.attempts || l.Cluster != c.cluster {
				t.Errorf("flags %v, %d attempts, cluster %q; want %v, %d, %q",
					l.Flags, l.Attempts, l.Cluster, c.flags, c.attempts, c.cluster)
			}
			r.wants(c.stats)
		})
	}
}

// TestRetry: as in Envoy the flag of an attempt that failed stays when a later one connects.
func TestRetry(t *testing.T) {
	t.Parallel()
	r := newRig(t, `{"stat_prefix":"p","cluster":"up","max_connect_attempts":3}`,
		map[string][]string{"up": {deadAddr(t), upstream(t, echo)}})
	retried := 0
	for range 4 {
		c := r.dial()
		_, _ = c.Write([]byte("x"))
		_ = c.CloseWrite()
		if p, err := io.ReadAll(c); err != nil || string(p) != "x" {
			t.Fatalf("read %q, %v", p, err)
		}
		l := r.line()
		if l.Attempts > 1 {
			retried++
		}
		if want := l.Attempts > 1; (l.Flags == stream.UpstreamConnectionFailure) != want || (l.Upstream.TransportFailure != "") != want {
			t.Errorf("%d attempts: flags %v, failure %q", l.Attempts, l.Flags, l.Upstream.TransportFailure)
		}
	}
	if retried == 0 {
		t.Error("never retried")
	}
}

// slowListener is a host whose queue of connections is full: dialing it hangs.
func slowListener(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*unix.SockaddrInet4).Port}
	for {
		c, err := net.DialTimeout("tcp", addr.String(), 50*time.Millisecond)
		if err != nil {
			return addr.String()
		}
		t.Cleanup(func() { _ = c.Close() })
	}
}

func TestClientResetsWhileConnecting(t *testing.T) {
	t.Parallel()
	r := newRig(t, toUp, map[string][]string{"up": {slowListener(t)}})
	c := r.dial()
	for r.stat("cluster.up.upstream_rq_pending_active") != 1 {
		<-time.After(time.Millisecond)
	}
	start := time.Now()
	_ = c.SetLinger(0)
	_ = c.Close()
	l := r.line()
	if time.Since(start) > 3*time.Second {
		t.Error("the client's reset was seen only when the connect timed out")
	}
	if l.Attempts != 1 || l.Flags != 0 {
		t.Errorf("flags %v, %d attempts", l.Flags, l.Attempts)
	}
	r.wants(map[string]uint64{"cluster.up.upstream_rq_pending_active": 0})
}

func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, `{"stat_prefix":"p","cluster":"up","idle_timeout":"0.5s"}`, map[string][]string{"up": {upstream(t, echo)}})
	c := r.dial()
	_, _ = c.Write([]byte("x"))
	start := time.Now()
	if p, err := io.ReadAll(c); err != nil || string(p) != "x" {
		t.Fatalf("read %q, %v", p, err)
	}
	if d := time.Since(start); d < 400*time.Millisecond {
		t.Errorf("ended after %v", d)
	}
	if l := r.line(); l.Flags != 0 {
		t.Errorf("flags %v", l.Flags)
	}
	r.wants(map[string]uint64{"tcp.p.idle_timeout": 1, "cluster.up.upstream_cx_destroy_local": 1})
}

func TestMaxDuration(t *testing.T) {
	t.Parallel()
	r := newRig(t, `{"stat_prefix":"p","cluster":"up","max_downstream_connection_duration":"0.2s"}`,
		map[string][]string{"up": {upstream(t, echo)}})
	c := r.dial()
	_, _ = c.Write([]byte("x"))
	_, _ = io.ReadAll(c)
	if l := r.line(); l.Flags != stream.DurationTimeout {
		t.Errorf("flags %v", l.Flags)
	}
	r.wants(map[string]uint64{"tcp.p.max_downstream_connection_duration": 1})
}

// TestLogOptions ends the connection once a periodic line was seen: however slow the machine is, the
// lines come in this order.
func TestLogOptions(t *testing.T) {
	t.Parallel()
	r := newRig(t, `{"stat_prefix":"p","cluster":"up","access_log_options":
		{"flush_access_log_on_start":true,"flush_access_log_on_connected":true,"access_log_flush_interval":"0.01s"}}`,
		map[string][]string{"up": {upstream(t, echo)}})
	c := r.dial()
	_, _ = c.Write([]byte("x"))
	_, _ = io.ReadFull(c, make([]byte, 1))
	var types []stream.AccessLogType
	for len(types) == 0 || types[len(types)-1] != stream.LogTCPConnectionEnd {
		l := r.line()
		if len(types) == 0 || types[len(types)-1] != l.LogType {
			types = append(types, l.LogType)
		}
		if l.LogType == stream.LogTCPPeriodic {
			_ = c.Close()
		}
	}
	want := []stream.AccessLogType{
		stream.LogTCPConnectionStart, stream.LogTCPUpstreamConnected, stream.LogTCPPeriodic, stream.LogTCPConnectionEnd,
	}
	if !slices.Equal(types, want) {
		t.Errorf("lines %v, want %v", types, want)
	}
}

// TestHalfClosedClientGetsAll: what the upstream has sent before its end must not be lost on a client
// that had ended its side before, and reads slowly.
func TestHalfClosedClientGetsAll(t *testing.T) {
	t.Parallel()
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	r := newRig(t, toUp, map[string][]string{"up": {upstream(t, func(c *net.TCPConn) {
		_, _ = io.ReadAll(c)
		_, _ = c.Write(want)
	})}})
	c := r.dial()
	_ = c.SetReadBuffer(16 << 10)
	_, _ = c.Write([]byte("request"))
	_ = c.CloseWrite()
	for r.stat("tcp.p.downstream_cx_tx_bytes_total") == 0 {
		<-time.After(time.Millisecond)
	}
	if p, err := io.ReadAll(c); err != nil || !bytes.Equal(p, want) {
		t.Fatalf("read %d bytes, %v; want %d", len(p), err, len(want))
	}
}

// TestBackPressure: a client that reads nothing stops the upstream.
func TestBackPressure(t *testing.T) {
	t.Parallel()
	sent := make(chan int64, 1)
	r := newRig(t, toUp, map[string][]string{"up": {upstream(t, func(c *net.TCPConn) {
		_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := io.Copy(c, zeros{})
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("upstream's write ended with %v", err)
		}
		sent <- n
	})}})
	c := r.dial()
	if n := <-sent; n > 64<<20 {
		t.Errorf("the upstream could send %d bytes to a client that reads nothing", n)
	}
	_ = c.Close()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// TestBothWays moves random sizes both ways at once; large ones are spliced.
func TestBothWays(t *testing.T) {
	t.Parallel()
	r := newRig(t, toUp, map[string][]string{"up": {upstream(t, echo)}})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			c := r.dial()
			rnd := rand.New(rand.NewPCG(uint64(i), 7))
			want := make([]byte, 3<<20)
			for i := range want {
				want[i] = byte(rnd.Uint32())
			}
			go func() {
				for rest := want; len(rest) > 0; {
					n := min(len(rest), 1+rnd.IntN(300<<10))
					if rnd.IntN(3) == 0 {
						n = min(n, 100)
					}
					if _, err := c.Write(rest[:n]); err != nil {
						t.Error(err)
						return
					}
					rest = rest[n:]
				}
				_ = c.CloseWrite()
			}()
			if p, err := io.ReadAll(c); err != nil || !bytes.Equal(p, want) {
				t.Errorf("read %d bytes, %v; want the %d that were sent", len(p), err, len(want))
			}
		})
	}
	wg.Wait()
	for range 4 {
		if l := r.line(); l.BytesReceived != 3<<20 || l.BytesSent != 3<<20 || l.Flags != 0 {
			t.Errorf("received %d, sent %d, flags %v", l.BytesReceived, l.BytesSent, l.Flags)
		}
	}
	r.wants(map[string]uint64{"cluster.up.upstream_cx_rx_bytes_total": 12 << 20, "cluster.up.upstream_cx_tx_bytes_total": 12 << 20})
}

// TestManyConnections: all are open at once, each has moved bulk data before and keeps no pipe.
func TestManyConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("opens 2,000 connections")
	}
	before := openFiles(t)
	r := newRig(t, toUp, map[string][]string{"up": {upstream(t, echo)}})
	const n = 500
	bulk := make([]byte, 512<<10)
	var conns []*net.TCPConn
	for range n {
		c := r.dial()
		go c.Write(bulk) //nolint:errcheck // the reader sees what is missing
		if _, err := io.CopyN(io.Discard, c, int64(len(bulk))); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	// Four sockets each are open in this process; the proxy's pipes come on top.
	if extra := openFiles(t) - before - 4*n; extra > 150 {
		t.Errorf("%d file descriptors besides the sockets", extra)
	}
	for _, c := range conns {
		_ = c.Close()
	}
	for range n {
		r.line()
	}
	r.wants(map[string]uint64{"cluster.up.upstream_cx_active": 0, "tcp.p.downstream_cx_total": n})
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc here")
	}
	return len(list)
}
