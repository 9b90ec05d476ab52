package wire

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sidecar/api/stats"
	"sidecar/api/stream"
)

// pair returns a Conn and the peer of its socket.
func pair(t testing.TB, network string, opt Options) (*Conn, net.Conn) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(nc, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		_ = peer.Close()
	})
	return c, peer
}

// slowPair is a pair whose kernel takes little at a time: a unix socket, since TCP with tiny windows
// waits for timers.
func slowPair(t testing.TB, opt Options) (*Conn, net.Conn) {
	t.Helper()
	c, peer := pair(t, "unix", opt)
	if u, ok := c.Net().(*net.UnixConn); ok {
		_ = u.SetWriteBuffer(4 << 10)
	}
	return c, peer
}

func pattern(n int, seed uint64) []byte {
	p := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func TestNew_NoSocket(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := New(a, Options{}); !errors.Is(err, ErrNotSocket) {
		t.Fatalf("New(pipe) = %v, want ErrNotSocket", err)
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			var rx stats.Counter
			c, peer := pair(t, network, Options{Rx: &rx})
			c.Preload([]byte("early"))
			b, n, err := c.Read(4, func() bool { return true })
			if err != nil || string(b.B[:n]) != "early" {
				t.Fatalf("first Read = %q, %v", b.B[:n], err)
			}
			b.Put()
			if _, err := peer.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if b, _, err := c.Read(64, func() bool { return false }); b != nil || err != nil {
				t.Fatalf("Read without want = %v, %v; the bytes must stay in the socket", b, err)
			}
			b, n, err = c.Read(64, func() bool { return true })
			if err != nil || string(b.B[:n]) != "hello" {
				t.Fatalf("Read = %q, %v", b.B[:n], err)
			}
			b.Put()
			if rx.Value() != 5 {
				t.Errorf("rx = %d, want 5", rx.Value())
			}
			_ = peer.Close()
			for _, want := range []bool{false, true} {
				if b, _, err := c.Read(64, func() bool { return want }); b != nil || !errors.Is(err, io.EOF) {
					t.Fatalf("Read(want %v) at the end = %v, %v; want EOF", want, b, err)
				}
			}
		})
	}
}

func TestRead_ClosedWhileParked(t *testing.T) {
	t.Parallel()
	c, _ := pair(t, "tcp", Options{})
	parked := make(chan struct{})
	var once sync.Once
	done := make(chan error)
	go func() {
		_, _, err := c.Read(64, func() bool { once.Do(func() { close(parked) }); return true })
		done <- err
	}()
	<-parked
	c.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("Read = %v, want net.ErrClosed", err)
	}
	if !c.Closed() {
		t.Error("Closed() = false")
	}
}

// TestWrite_SlowReader writes far more than the kernel takes, again and again: everything arrives,
// once and in order, and each time the output was full it is told exactly once that it no longer is.
func TestWrite_SlowReader(t *testing.T) {
	t.Parallel()
	drained := make(chan int, 1000)
	var tx stats.Counter
	var c *Conn
	c, peer := slowPair(t, Options{
		High: 32 << 10, Tx: &tx, Drained: func(*stream.Turn) { drained <- c.Pending() },
	})
	const rounds = 20
	want := pattern(256<<10, 1)
	got := make([]byte, len(want))
	turn := stream.NewTurn()
	for range rounds {
		c.Write(turn, want)
		turn.End()
		if !c.Full() {
			t.Fatal("not full, though the peer has read nothing")
		}
		if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("the peer got other bytes than were written (%v)", err)
		}
		if n := <-drained; n > 16<<10 {
			t.Errorf("drained with %d bytes pending", n)
		}
		c.WaitSent()
		if len(drained) != 0 || c.Full() {
			t.Fatal("drained twice for one crossing, or still full")
		}
	}
	if want := uint64(rounds * len(want)); tx.Value() != want {
		t.Errorf("tx = %d, want %d", tx.Value(), want)
	}
}

func TestDrained_MayClose(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	var c *Conn
	c, peer := slowPair(t, Options{High: 1 << 10, Drained: func(*stream.Turn) {
		c.Close()
		close(closed)
	}})
	stream.Do(func(turn *stream.Turn) { c.Write(turn, make([]byte, 8<<20)) })
	if !c.Full() {
		t.Fatal("not full")
	}
	go io.Copy(io.Discard, peer) //nolint:errcheck // ends with the connection
	<-closed
}

// TestSend_KeepsOrder mixes the two ways to write from one goroutine.
func TestSend_KeepsOrder(t *testing.T) {
	t.Parallel()
	c, peer := slowPair(t, Options{High: 1 << 30})
	want := pattern(1<<20, 2)
	got := make(chan []byte)
	go func() {
		p, _ := io.ReadAll(peer)
		got <- p
	}()
	r := rand.New(rand.NewPCG(3, 3))
	turn := stream.NewTurn()
	for rest := want; len(rest) > 0; {
		n := min(len(rest), 1+r.IntN(5000))
		if r.IntN(2) == 0 {
			c.Send(turn, rest[:n])
		} else {
			c.Write(turn, rest[:n])
			if r.IntN(3) == 0 {
				turn.End()
			}
		}
		rest = rest[n:]
	}
	turn.End()
	c.CloseAfterFlush()
	if p := <-got; !bytes.Equal(p, want) {
		t.Errorf("the peer got %d bytes, not the %d that were written", len(p), len(want))
	}
}

// TestWrite_ManyGoroutines is for the race detector: whole records must arrive.
func TestWrite_ManyGoroutines(t *testing.T) {
	t.Parallel()
	c, peer := slowPair(t, Options{High: 8 << 10, Shared: true, Drained: func(*stream.Turn) {}})
	const writers, records, size = 8, 200, 100
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			turn := stream.NewTurn()
			for range records {
				c.Write(turn, bytes.Repeat([]byte{byte('a' + i)}, size))
				turn.End()
			}
		})
	}
	buf := make([]byte, size)
	for range writers * records {
		if _, err := io.ReadFull(peer, buf); err != nil {
			t.Fatal(err)
		}
		if bytes.Count(buf, buf[:1]) != size {
			t.Fatalf("a torn record: %q", buf)
		}
	}
	wg.Wait()
}

func TestCloseWrite_StillReads(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp", Options{})
	stream.Do(func(turn *stream.Turn) { c.Write(turn, []byte("bye")) })
	c.CloseWrite()
	c.CloseWrite()
	if p, err := io.ReadAll(peer); err != nil || string(p) != "bye" {
		t.Fatalf("peer read %q, %v", p, err)
	}
	if _, err := peer.Write([]byte("still")); err != nil {
		t.Fatal(err)
	}
	b, n, err := c.Read(64, func() bool { return true })
	if err != nil || string(b.B[:n]) != "still" {
		t.Fatalf("Read after CloseWrite = %d, %v", n, err)
	}
	b.Put()
}

func TestCloseAfterFlush_SendsAll(t *testing.T) {
	t.Parallel()
	c, peer := slowPair(t, Options{})
	want := pattern(1<<20, 4)
	stream.Do(func(turn *stream.Turn) {
		c.Write(turn, want)
		c.CloseAfterFlush()
	})
	if p, err := io.ReadAll(peer); err != nil || !bytes.Equal(p, want) {
		t.Fatalf("peer read %d bytes, %v; want %d", len(p), err, len(want))
	}
}

func TestCloseAfterFlush_PeerReadsNothing(t *testing.T) {
	t.Parallel()
	c, _ := slowPair(t, Options{Linger: 50 * time.Millisecond})
	stream.Do(func(turn *stream.Turn) { c.Write(turn, make([]byte, 8<<20)) })
	c.CloseAfterFlush()
	c.WaitSent()
	if !c.Closed() {
		t.Error("a peer that reads nothing keeps the connection open")
	}
}

func TestCloseAfterFlush_SlowReaderIsWaitedFor(t *testing.T) {
	t.Parallel()
	c, peer := slowPair(t, Options{Linger: 200 * time.Millisecond})
	const size = 400 << 10
	stream.Do(func(turn *stream.Turn) { c.Write(turn, make([]byte, size)) })
	c.CloseAfterFlush()
	got, buf := 0, make([]byte, 4<<10)
	tick := time.NewTicker(2 * time.Millisecond) // 400 KB at 2 KB a millisecond: longer than Linger
	defer tick.Stop()
	for {
		n, err := peer.Read(buf)
		got += n
		if err != nil {
			break
		}
		<-tick.C
	}
	if got != size {
		t.Errorf("got %d bytes of %d: a peer that reads on was cut off", got, size)
	}
}

func TestWaitSent_ReturnsOnClose(t *testing.T) {
	t.Parallel()
	c, _ := slowPair(t, Options{})
	stream.Do(func(turn *stream.Turn) { c.Write(turn, make([]byte, 8<<20)) })
	done := make(chan struct{})
	go func() {
		c.WaitSent()
		close(done)
	}()
	c.Close()
	<-done
	c.WaitSent() // again, on the broken connection
}

func TestReset(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp", Options{})
	c.Reset()
	if _, err := peer.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("peer read = %v, want a reset", err)
	}
}

func TestWrite_AfterPeerIsGone(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp", Options{High: 1 << 10})
	_ = peer.(*net.TCPConn).SetLinger(0)
	_ = peer.Close()
	if _, _, err := c.Read(1, func() bool { return true }); err == nil {
		t.Fatal("no error from the reset")
	}
	turn := stream.NewTurn()
	for range 10 {
		c.Write(turn, make([]byte, 2<<10))
		turn.End()
	}
	if _, err := c.Room(); err == nil {
		t.Error("there is room on a broken connection")
	}
	if c.Pending() != 0 || c.Full() {
		t.Errorf("pending %d, full %v after the peer is gone", c.Pending(), c.Full())
	}
}

func TestAwaitReset(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		act  func(c *Conn, peer net.Conn)
		want bool
	}{
		"reset": {func(_ *Conn, peer net.Conn) {
			_ = peer.(*net.TCPConn).SetLinger(0)
			_ = peer.Close()
		}, true},
		"closed": {func(c *Conn, _ net.Conn) { c.Close() }, true},
		"woken":  {func(c *Conn, _ net.Conn) { _ = c.SetReadDeadline(time.Unix(1, 0)) }, false},
		"data and end are no reset": {func(c *Conn, peer net.Conn) {
			_, _ = peer.Write([]byte("x"))
			_ = peer.Close()
			_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, peer := pair(t, "tcp", Options{})
			done := make(chan bool)
			go func() { done <- w.AwaitReset() }()
			c.act(w, peer)
			if got := <-done; got != c.want {
				t.Errorf("AwaitReset = %v, want %v", got, c.want)
			}
		})
	}
}

// TestSplice moves bursts of every size between two connections, by the rules of a TCP proxy.
func TestSplice(t *testing.T) {
	t.Parallel()
	var rx, tx stats.Counter
	src, in := pair(t, "tcp", Options{Rx: &rx})
	dst, out := pair(t, "tcp", Options{Tx: &tx})
	want := pattern(6<<20, 5)
	go func() {
		r := rand.New(rand.NewPCG(6, 6))
		for rest := want; len(rest) > 0; {
			n := min(len(rest), 1+r.IntN(200<<10))
			if _, err := in.Write(rest[:n]); err != nil {
				t.Error(err)
				return
			}
			rest = rest[n:]
		}
		_ = in.(*net.TCPConn).CloseWrite()
	}()
	var moved atomic.Int64
	go func() {
		turn := stream.NewTurn()
		for {
			err := src.SpliceTo(dst, func(n int) { moved.Add(int64(n)) })
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				dst.CloseWrite()
				return
			}
			b, n, err := src.Read(4<<10, func() bool { return true })
			if b != nil {
				dst.Send(turn, b.B[:n])
				b.Put()
				moved.Add(int64(n))
				dst.WaitSent()
			}
			if err != nil {
				dst.CloseWrite()
				return
			}
		}
	}()
	got, err := io.ReadAll(out)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v; want %d", len(got), err, len(want))
	}
	for name, n := range map[string]uint64{"rx": rx.Value(), "tx": tx.Value(), "moved": uint64(moved.Load())} {
		if n != uint64(len(want)) {
			t.Errorf("%s = %d, want %d", name, n, len(want))
		}
	}
}

func TestSplice_EndsWhenEitherSideGoes(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(src, dst *Conn, in, out net.Conn){
		"source closed here":      func(src, _ *Conn, _, _ net.Conn) { src.Close() },
		"source's peer gone":      func(_, _ *Conn, in, _ net.Conn) { _ = in.Close() },
		"destination closed here": func(_, dst *Conn, in, _ net.Conn) { dst.Close(); _, _ = in.Write([]byte("x")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, in := pair(t, "tcp", Options{})
			dst, out := pair(t, "tcp", Options{})
			done := make(chan error)
			go func() { done <- src.SpliceTo(dst, func(int) {}) }()
			end(src, dst, in, out)
			if err := <-done; err == nil {
				t.Error("SpliceTo = nil")
			}
		})
	}
}
