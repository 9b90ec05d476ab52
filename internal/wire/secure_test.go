package wire

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"sidecar/api/stats"
	"sidecar/api/stream"
)

// certificate makes a certificate for localhost.
func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"},
		NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(crand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func serverConfig(tb testing.TB, version uint16) *tls.Config {
	tb.Helper()
	return &tls.Config{
		Certificates: []tls.Certificate{certificate(tb)}, NextProtos: []string{"h2"},
		MinVersion: version, MaxVersion: version, DynamicRecordSizingDisabled: true,
	}
}

func server(cfg *tls.Config) func(net.Conn) *tls.Conn {
	return func(nc net.Conn) *tls.Conn { return tls.Server(nc, cfg) }
}

func clientConfig() *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"h2"}, //nolint:gosec // a test peer
		DynamicRecordSizingDisabled: true,
	}
}

func client(nc net.Conn) *tls.Conn { return tls.Client(nc, clientConfig()) }

// secured makes a pair that talks TLS: a Conn that is the server and a crypto/tls client.
func secured(t testing.TB, c *Conn, peer net.Conn, version uint16) *tls.Conn {
	t.Helper()
	done := make(chan error, 1)
	tc := client(peer)
	go func() { done <- tc.Handshake() }()
	state, err := c.Secure(t.Context(), server(serverConfig(t, version)))
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !c.Secured() || state.NegotiatedProtocol != "h2" || !state.HandshakeComplete {
		t.Fatalf("state %+v", state)
	}
	return tc
}

// both runs a test in each version of TLS that differs in what follows the handshake.
func both(t *testing.T, f func(t *testing.T, version uint16)) {
	t.Helper()
	for name, v := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, v)
		})
	}
}

func never() bool  { return false }
func wanted() bool { return true }

// read reads n bytes.
func read(t testing.TB, c *Conn, n int) []byte {
	t.Helper()
	var got []byte
	for len(got) < n {
		b, m, err := c.Read(4<<10, wanted)
		if err != nil {
			t.Fatalf("Read = %v after %d bytes", err, len(got))
		}
		got = append(got, b.B[:m]...)
		b.Put()
	}
	return got
}

func TestSecure(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, version uint16) {
		var rx, tx stats.Counter
		c, peer := pair(t, "tcp", Options{Rx: &rx, Tx: &tx})
		tc := secured(t, c, peer, version)
		want := pattern(300<<10, 7)
		go tc.Write(want) //nolint:errcheck // the other side sees
		if !bytes.Equal(read(t, c, len(want)), want) {
			t.Fatal("read other bytes than were written")
		}
		for name, write := range map[string]func(*stream.Turn, []byte){"Write": c.Write, "Send": c.Send} {
			go func() {
				turn := stream.NewTurn()
				write(turn, want)
				turn.End()
			}()
			got := make([]byte, len(want))
			if _, err := io.ReadFull(tc, got); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: the peer got other bytes (%v)", name, err)
			}
			c.WaitSent()
		}
		if n := uint64(len(want)); rx.Value() != n || tx.Value() != 2*n || c.Pending() != 0 {
			t.Errorf("rx %d, tx %d, pending %d", rx.Value(), tx.Value(), c.Pending())
		}
	})
}

// TestSecure_Preloaded has a Conn on both sides; one has read a part of the handshake before.
func TestSecure_Preloaded(t *testing.T) {
	t.Parallel()
	a, peer := pair(t, "unix", Options{})
	b, err := New(peer, Options{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := a.Secure(t.Context(), client)
		if err == nil {
			stream.Do(func(turn *stream.Turn) { a.Write(turn, []byte("first")) })
		}
		done <- err
	}()
	blk, n, err := b.Read(100, wanted)
	if err != nil {
		t.Fatal(err)
	}
	b.Preload(blk.B[:n])
	blk.Put()
	if _, err := b.Secure(t.Context(), server(serverConfig(t, 0))); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := read(t, b, 5); string(got) != "first" {
		t.Errorf("got %q", got)
	}
}

// TestSecure_WritesBefore: what was written in plaintext comes first (PROXY protocol).
func TestSecure_WritesBefore(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp", Options{})
	c.Write(stream.NewTurn(), []byte("PROXY\n"))
	done := make(chan error)
	go func() {
		_, err := c.Secure(t.Context(), client)
		done <- err
	}()
	head := make([]byte, 6)
	if _, err := io.ReadFull(peer, head); err != nil || string(head) != "PROXY\n" {
		t.Fatalf("head %q, %v", head, err)
	}
	if err := tls.Server(peer, serverConfig(t, 0)).Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestSecure_Fails(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		act  func(c *Conn, peer net.Conn, cancel func())
		want func(error) bool
	}{
		"canceled": {
			func(_ *Conn, _ net.Conn, cancel func()) { cancel() },
			func(err error) bool { return errors.Is(err, context.Canceled) },
		},
		"closed": {
			func(c *Conn, _ net.Conn, _ func()) { c.Close() },
			func(err error) bool { return errors.Is(err, net.ErrClosed) },
		},
		"peer ends": {
			func(_ *Conn, peer net.Conn, _ func()) { _ = peer.Close() },
			func(err error) bool { return errors.Is(err, io.EOF) },
		},
		"plaintext": {
			func(_ *Conn, peer net.Conn, _ func()) { _, _ = io.WriteString(peer, "GET / HTTP/1.1\r\n\r\n") },
			func(err error) bool { return errors.As(err, new(tls.RecordHeaderError)) },
		},
		"truncated": {func(_ *Conn, peer net.Conn, _ func()) {
			_, _ = peer.Write([]byte{22, 3, 1, 0, 200, 1, 0})
			_ = peer.Close()
		}, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, peer := pair(t, "tcp", Options{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			begun := make(chan struct{})
			done := make(chan error)
			go func() {
				_, err := c.Secure(ctx, func(nc net.Conn) *tls.Conn {
					close(begun)
					return tls.Server(nc, serverConfig(t, 0))
				})
				done <- err
			}()
			<-begun
			x.act(c, peer, cancel)
			if err := <-done; !x.want(err) || c.Secured() {
				t.Errorf("Secure = %v (secured %v)", err, c.Secured())
			}
		})
	}
}

func TestSecure_Panic(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp", Options{})
	go client(peer).Handshake() //nolint:errcheck // it fails
	cfg := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { panic("on purpose") }}
	if _, err := c.Secure(t.Context(), server(cfg)); err == nil {
		t.Error("no error")
	}
}

// TestSecure_EndsAreSeen: how a session ends is seen whether or not data is wanted, at once.
func TestSecure_EndsAreSeen(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, version uint16) {
		for name, end := range map[string]func(tc *tls.Conn){
			"close_notify": func(tc *tls.Conn) { _ = tc.CloseWrite() },
			"FIN":          func(tc *tls.Conn) { _ = tc.NetConn().(*net.TCPConn).CloseWrite() },
			"truncated record": func(tc *tls.Conn) {
				_, _ = tc.NetConn().Write([]byte{23, 3, 3, 1, 0, 9})
				_ = tc.NetConn().Close()
			},
		} {
			for _, want := range []func() bool{wanted, never} {
				c, peer := pair(t, "tcp", Options{})
				tc := secured(t, c, peer, version)
				end(tc)
				for range 2 {
					if b, _, err := c.Read(64, want); b != nil || !errors.Is(err, io.EOF) {
						t.Errorf("%s, want %v: Read = %v, %v", name, want(), b, err)
					}
				}
			}
		}
	})
}

// TestSecure_Unwanted: data that is not wanted is told of, kept, and bounded.
func TestSecure_Unwanted(t *testing.T) {
	t.Parallel()
	var rx stats.Counter
	c, peer := pair(t, "tcp", Options{Rx: &rx})
	tc := secured(t, c, peer, tls.VersionTLS13)
	want := pattern(200<<10, 8)
	go func() {
		_, _ = tc.Write(want)
		_ = tc.CloseWrite()
	}()
	for range 10 {
		if b, _, err := c.Read(4<<10, never); b != nil || err != nil {
			t.Fatalf("Read = %v, %v", b, err)
		}
	}
	if rx.Value() > 4<<10 {
		t.Errorf("%d bytes were decrypted though nobody wanted them", rx.Value())
	}
	if !bytes.Equal(read(t, c, len(want)), want) {
		t.Error("read other bytes than were written")
	}
	if _, _, err := c.Read(4<<10, never); !errors.Is(err, io.EOF) {
		t.Errorf("Read at the end = %v", err)
	}
}

func TestSecure_ReadDeadlineAndClose(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp", Options{})
	secured(t, c, peer, tls.VersionTLS13)
	_ = c.SetReadDeadline(time.Unix(1, 0))
	var ne net.Error
	if _, _, err := c.Read(64, wanted); !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("Read = %v, want a timeout", err)
	}
	_ = c.SetReadDeadline(time.Time{})
	var once sync.Once
	parked, done := make(chan struct{}), make(chan error)
	go func() {
		once.Do(func() { close(parked) })
		_, _, err := c.Read(64, wanted)
		done <- err
	}()
	<-parked
	c.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read = %v, want net.ErrClosed", err)
	}
}

func TestSecure_BadRecords(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		record []byte
		text   string
	}{
		"bad MAC":   {append([]byte{23, 3, 3, 0, 32}, make([]byte, 32)...), "local error: tls: bad record MAC"},
		"too long":  {[]byte{23, 3, 3, 0xff, 0xff}, "tls: oversized record received with length 65535"},
		"plaintext": {[]byte("GET / HTTP/1.1\r\n\r\n"), "tls: received record with version 4554 when expecting version 303"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, peer := pair(t, "tcp", Options{})
			tc := secured(t, c, peer, tls.VersionTLS13)
			_, _ = peer.Write(x.record)
			_, _, err := c.Read(64, never)
			var te *TLSError
			if !errors.As(err, &te) || err.Error() != x.text {
				t.Errorf("Read = %v", err)
			}
			if _, err := tc.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("the peer reads %v, not an alert", err)
			}
			c.Close()
		})
	}
}

func TestSecure_PeersAlert(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp", Options{})
	tc := secured(t, c, peer, tls.VersionTLS13)
	// Noise in this direction has the peer answer with an alert.
	_, _ = c.nc.Write(append([]byte{23, 3, 3, 0, 32}, make([]byte, 32)...))
	if _, err := tc.Read(make([]byte, 1)); err == nil {
		t.Fatal("the peer takes noise")
	}
	if _, _, err := c.Read(64, wanted); !errors.As(err, new(*TLSError)) || err.Error() != "remote error: tls: bad record MAC" {
		t.Errorf("Read = %v", err)
	}
}

// TestSecure_Closes: each way to close says close_notify after everything else.
func TestSecure_Closes(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, version uint16) {
		want := pattern(1<<20, 9)
		for name, x := range map[string]func(c *Conn, turn *stream.Turn){
			"CloseWrite":                func(c *Conn, turn *stream.Turn) { turn.End(); c.CloseWrite() },
			"CloseWrite before flush":   func(c *Conn, turn *stream.Turn) { c.CloseWrite(); turn.End() },
			"CloseAfterFlush":           func(c *Conn, turn *stream.Turn) { turn.End(); c.CloseAfterFlush() },
			"CloseAfterFlush unflushed": func(c *Conn, turn *stream.Turn) { c.CloseAfterFlush(); turn.End() },
			"Close": func(c *Conn, turn *stream.Turn) {
				turn.End()
				c.WaitSent()
				c.Close()
			},
		} {
			for _, size := range []int{1, len(want)} {
				c, peer := slowPair(t, Options{})
				fin := &finConn{Conn: peer}
				tc := secured(t, c, fin, version)
				go func() {
					turn := stream.NewTurn()
					c.Write(turn, want[:size])
					x(c, turn)
				}()
				got, err := io.ReadAll(tc)
				if err != nil || fin.seen || !bytes.Equal(got, want[:size]) {
					t.Errorf("%s: the peer read %d bytes of %d, %v", name, len(got), size, err)
				}
			}
		}
	})
}

// finConn notes that the end of the socket was seen, which a close_notify comes before.
type finConn struct {
	net.Conn
	seen bool
}

func (c *finConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.seen = c.seen || errors.Is(err, io.EOF)
	return n, err
}

func TestSecure_CloseDoesNotBlock(t *testing.T) {
	t.Parallel()
	c, peer := slowPair(t, Options{})
	secured(t, c, peer, tls.VersionTLS13)
	stream.Do(func(turn *stream.Turn) { c.Write(turn, make([]byte, 8<<20)) })
	c.Close()
	c.WaitSent()
	if c.Pending() != 0 {
		stream.Do(func(turn *stream.Turn) { c.Write(turn, []byte("x")) })
	}
}

func TestSecure_Reset(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp", Options{})
	tc := secured(t, c, peer, tls.VersionTLS13)
	c.Reset()
	if _, err := tc.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("peer reads %v, want a reset", err)
	}
}

func TestSecure_NoSplice(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp", Options{})
	secured(t, c, peer, tls.VersionTLS13)
	d, _ := pair(t, "tcp", Options{})
	for _, x := range [][2]*Conn{{c, d}, {d, c}} {
		if err := x[0].SpliceTo(x[1], func(int) {}); !errors.Is(err, ErrNoSplice) {
			t.Errorf("SpliceTo = %v", err)
		}
	}
}

// TestSecure_SlowReader is TestWrite_SlowReader with TLS.
func TestSecure_SlowReader(t *testing.T) {
	t.Parallel()
	drained := make(chan struct{}, 1000)
	c, peer := slowPair(t, Options{High: 32 << 10, Drained: func(*stream.Turn) { drained <- struct{}{} }})
	tc := secured(t, c, peer, tls.VersionTLS13)
	want := pattern(256<<10, 1)
	got := make([]byte, len(want))
	turn := stream.NewTurn()
	for i := range 10 {
		if i%2 == 0 {
			c.Write(turn, want)
		} else {
			c.Send(turn, want)
		}
		turn.End()
		if !c.Full() {
			t.Fatal("not full, though the peer has read nothing")
		}
		if _, err := io.ReadFull(tc, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("the peer got other bytes than were written (%v)", err)
		}
		<-drained
		c.WaitSent()
		if len(drained) != 0 || c.Full() {
			t.Fatal("drained twice for one crossing, or still full")
		}
	}
}

// TestSecure_BothWays is for the race detector: two Conns write random sizes at each other in both
// ways, slowly, while each wants data only at times.
func TestSecure_BothWays(t *testing.T) {
	t.Parallel()
	a, peer := slowPair(t, Options{High: 16 << 10, Drained: func(*stream.Turn) {}})
	b, err := New(peer, Options{High: 16 << 10, Drained: func(*stream.Turn) {}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := a.Secure(t.Context(), client); err != nil {
			t.Error(err)
		}
	})
	if _, err := b.Secure(t.Context(), server(serverConfig(t, 0))); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	want := pattern(1<<20, 10)
	for i, c := range []*Conn{a, b} {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			turn := stream.NewTurn()
			for rest := want; len(rest) > 0; {
				n := min(len(rest), 1+r.IntN(20<<10))
				if r.IntN(2) == 0 {
					c.Write(turn, rest[:n])
				} else {
					c.Send(turn, rest[:n])
				}
				turn.End()
				if r.IntN(4) == 0 {
					c.WaitSent()
				}
				rest = rest[n:]
			}
			c.CloseWrite()
		})
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 2))
			var got []byte
			for {
				b, n, err := c.Read(1+r.IntN(40<<10), func() bool { return r.IntN(3) > 0 })
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Error(err)
					break
				}
				if b != nil {
					got = append(got, b.B[:n]...)
					b.Put()
				}
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, not the %d that were written", len(got), len(want))
			}
		})
	}
	wg.Wait()
}

// TestSecure_AnswersAreBounded: a peer that has much answered and reads nothing is given up.
func TestSecure_AnswersAreBounded(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp", Options{})
	secured(t, c, peer, tls.VersionTLS13)
	s := c.sec.Load()
	c.mu.Lock()
	c.writing = true // as if a writer waited for the peer
	c.mu.Unlock()
	answer := make([]byte, 27)
	for range 2 * maxSealed / len(answer) {
		_, _ = s.Write(answer)
	}
	c.mu.Lock()
	left := c.sealed.Len()
	c.writing = false
	c.mu.Unlock()
	if left > maxSealed+len(answer) {
		t.Errorf("%d bytes of answers are kept", left)
	}
	s.answer()
	if _, _, err := c.Read(64, wanted); !errors.Is(err, errFlood) {
		t.Errorf("Read = %v, want the peer's end", err)
	}
}

// TestNetConn carries crypto/tls inside of the facade, which uses everything of a net.Conn.
func TestNetConn(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp", Options{})
	tc := secured(t, c, peer, tls.VersionTLS13)
	want := pattern(1<<20, 11)
	inner := make(chan error, 1)
	go func() {
		x := tls.Server(tc, serverConfig(t, 0))
		_, err := io.Copy(x, io.LimitReader(x, int64(len(want))))
		inner <- err
	}()
	y := client(c.NetConn())
	go y.Write(want) //nolint:errcheck // the other side sees
	got := make([]byte, len(want))
	if _, err := io.ReadFull(y, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got other bytes (%v)", err)
	}
	if err := <-inner; err != nil {
		t.Fatal(err)
	}
	_ = y.Close()
	if _, err := c.NetConn().Write([]byte("x")); err == nil {
		t.Error("a closed connection takes bytes")
	}
}

// TestSecure_OpenSSL has another implementation as the peer, with key updates in both directions.
func TestSecure_OpenSSL(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl here")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cmd := exec.CommandContext(t.Context(), openssl, "s_client", "-connect", ln.Addr().String(), "-tls1_3", "-alpn", "h2")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(nc, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Secure(t.Context(), server(serverConfig(t, 0))); err != nil {
		t.Fatal(err)
	}
	turn := stream.NewTurn()
	for i, line := range []string{"one\n", "K\n", "two\n", "k\n", "three\n"} {
		if _, err := io.WriteString(in, line); err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 {
			// Commands of s_client: a key update, with and without one asked for in return. It takes one
			// read for one command.
			await(t, said, "KEYUPDATE")
			continue
		}
		if got := read(t, c, len(line)); string(got) != line {
			t.Fatalf("read %q, want %q", got, line)
		}
		c.Write(turn, []byte(line))
		turn.End()
	}
	go io.Copy(io.Discard, said) //nolint:errcheck // ends with the process
	_, _ = io.WriteString(in, "Q\n")
	if _, _, err := c.Read(64, never); !errors.Is(err, io.EOF) {
		t.Errorf("Read after Q = %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// await reads until a text has come.
func await(t testing.TB, r io.Reader, text string) {
	t.Helper()
	var got []byte
	for one := make([]byte, 1); !bytes.HasSuffix(got, []byte(text)); got = append(got, one[0]) {
		if _, err := io.ReadFull(r, one); err != nil {
			t.Fatalf("%v after %q", err, got)
		}
	}
}

// TestSecure_Preload holds that plaintext which was read to choose a codec by is read again.
func TestSecure_Preload(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, "tcp", Options{})
	tc := secured(t, c, peer, tls.VersionTLS13)
	if _, err := tc.Write([]byte("GET /")); err != nil {
		t.Fatal(err)
	}
	c.Preload(read(t, c, 5))
	if _, err := tc.Write([]byte(" more")); err != nil {
		t.Fatal(err)
	}
	if got := string(read(t, c, 10)); got != "GET / more" {
		t.Errorf("read %q", got)
	}
}
