package tcpproxy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
)

// tlsRig is a rig that takes TLS from its clients, and a connection to it.
func tlsRig(t *testing.T, serve func(c *net.TCPConn)) (*rig, *tls.Conn) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, toUp, map[string][]string{"up": {upstream(t, serve)}})
	r.tls.Store(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}) //nolint:gosec // a test
	c := tls.Client(r.dial(), &tls.Config{InsecureSkipVerify: true})                                         //nolint:gosec // a test
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return r, c
}

// TestTLS_Bulk moves what would be spliced on plaintext, and ends each side with a close_notify.
func TestTLS_Bulk(t *testing.T) {
	t.Parallel()
	r, c := tlsRig(t, func(c *net.TCPConn) {
		_, _ = io.Copy(c, c)
		_ = c.CloseWrite()
	})
	want := make([]byte, 4<<20)
	_, _ = rand.Read(want)
	go func() {
		_, _ = c.Write(want)
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes of %d, %v", len(got), len(want), err)
	}
	n := uint64(len(want))
	if l := r.line(); l.BytesReceived != n || l.BytesSent != n || l.Conn.TransportFailure != "" {
		t.Errorf("record %+v", l)
	}
}

func TestTLS_BadRecord(t *testing.T) {
	t.Parallel()
	r, c := tlsRig(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	_, _ = c.NetConn().Write(append([]byte{23, 3, 3, 0, 32}, make([]byte, 32)...))
	if l := r.line(); l.Conn.TransportFailure != "local error: tls: bad record MAC" {
		t.Errorf("failure %q", l.Conn.TransportFailure)
	}
}
