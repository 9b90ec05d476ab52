//go:build !race

package wire

import (
	"crypto/tls"
	"io"
	"testing"

	"sidecar/api/stream"
)

func TestSecure_Allocs(t *testing.T) {
	c, peer := pair(t, "tcp", Options{})
	tc := secured(t, c, peer, tls.VersionTLS13)
	turn := stream.NewTurn()
	msg, got := make([]byte, 200), make([]byte, 200)
	write := testing.AllocsPerRun(200, func() {
		c.Write(turn, msg)
		turn.End()
	})
	if write > 0 {
		t.Errorf("a write allocates %v times", write)
	}
	for range 201 {
		if _, err := io.ReadFull(tc, got); err != nil {
			t.Fatal(err)
		}
	}
	for range 201 {
		if _, err := tc.Write(msg); err != nil {
			t.Fatal(err)
		}
		b, _, err := c.Read(4<<10, wanted)
		if err != nil {
			t.Fatal(err)
		}
		b.Put()
	}
	rw := testing.AllocsPerRun(200, func() {
		_, _ = tc.Write(msg)
		b, n, _ := c.Read(4<<10, wanted)
		c.Write(turn, b.B[:n])
		b.Put()
		turn.End()
		_, _ = io.ReadFull(tc, got)
	})
	// crypto/tls makes one for each record that it reads, here and at the peer.
	if rw > 2 {
		t.Errorf("an echo allocates %v times", rw)
	}
}
