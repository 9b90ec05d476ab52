package wire

import (
	"crypto/tls"
	"io"
	"net"
	"testing"

	"sidecar/api/stream"
)

// BenchmarkSecure compares a direction of bulk data, and an echo of small messages, with crypto/tls
// on the socket. The peer is crypto/tls in all cases, so its work is in each of the figures.
func BenchmarkSecure(b *testing.B) {
	bare := func(b *testing.B) (s, c net.Conn) {
		b.Helper()
		w, peer := pair(b, "tcp", Options{})
		x, y := tls.Server(w.Net(), serverConfig(b, 0)), tls.Client(peer, clientConfig())
		go y.Handshake() //nolint:errcheck // the other side sees
		if err := x.Handshake(); err != nil {
			b.Fatal(err)
		}
		return x, y
	}
	p := make([]byte, Bulk)
	b.Run("read/wire", func(b *testing.B) {
		w, peer := pair(b, "tcp", Options{})
		tc := secured(b, w, peer, tls.VersionTLS13)
		go io.Copy(tc, zeros{}) //nolint:errcheck // ends with the connection
		b.SetBytes(Bulk)
		for b.Loop() {
			for left := Bulk; left > 0; {
				blk, n, err := w.Read(Bulk, wanted)
				if err != nil {
					b.Fatal(err)
				}
				blk.Put()
				left -= n
			}
		}
	})
	b.Run("read/bare", func(b *testing.B) {
		x, y := bare(b)
		go io.Copy(y, zeros{}) //nolint:errcheck // ends with the connection
		b.SetBytes(Bulk)
		for b.Loop() {
			_, _ = io.ReadFull(x, p)
		}
	})
	b.Run("write/wire", func(b *testing.B) {
		w, peer := pair(b, "tcp", Options{})
		tc := secured(b, w, peer, tls.VersionTLS13)
		go io.Copy(io.Discard, tc) //nolint:errcheck // ends with the connection
		turn := stream.NewTurn()
		b.SetBytes(Bulk)
		for b.Loop() {
			w.Send(turn, p)
			w.WaitSent()
		}
	})
	b.Run("write/bare", func(b *testing.B) {
		x, y := bare(b)
		go io.Copy(io.Discard, y) //nolint:errcheck // ends with the connection
		b.SetBytes(Bulk)
		for b.Loop() {
			_, _ = x.Write(p)
		}
	})
	msg := make([]byte, 200)
	b.Run("echo/wire", func(b *testing.B) {
		w, peer := pair(b, "tcp", Options{})
		tc := secured(b, w, peer, tls.VersionTLS13)
		turn := stream.NewTurn()
		b.ReportAllocs()
		for b.Loop() {
			_, _ = tc.Write(msg)
			blk, n, err := w.Read(4<<10, wanted)
			if err != nil {
				b.Fatal(err)
			}
			w.Write(turn, blk.B[:n])
			blk.Put()
			turn.End()
			_, _ = io.ReadFull(tc, msg)
		}
	})
	b.Run("echo/bare", func(b *testing.B) {
		x, y := bare(b)
		b.ReportAllocs()
		for b.Loop() {
			_, _ = y.Write(msg)
			_, _ = io.ReadFull(x, msg)
			_, _ = x.Write(msg)
			_, _ = io.ReadFull(y, msg)
		}
	})
}

// zeros is an endless source, a bulk block at a time.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
