package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// Handshakes opens TLS connections one after the other from n workers until ctx ends. Each is
// closed in both directions, so that the server has seen its end. With resume each but a worker's
// first takes up a session, or that is an error. It returns their number.
func Handshakes(ctx context.Context, address string, n int, c *tls.Config, resume bool) (int64, error) {
	var total atomic.Int64
	err := each(n, func() error {
		c := c.Clone()
		if resume {
			c.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		}
		for i := 0; ctx.Err() == nil; i++ {
			state, err := handshake(address, c)
			if err != nil {
				return err
			}
			if state.DidResume != (resume && i > 0) {
				return fmt.Errorf("handshake %d: resumed is %t", i, state.DidResume)
			}
			total.Add(1)
		}
		return nil
	})
	return total.Load(), err
}

func handshake(address string, c *tls.Config) (tls.ConnectionState, error) {
	raw, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return tls.ConnectionState{}, err
	}
	conn := tls.Client(raw, c)
	if err := conn.Handshake(); err != nil {
		return tls.ConnectionState{}, err
	}
	if err := conn.CloseWrite(); err != nil {
		return tls.ConnectionState{}, err
	}
	// The session's ticket comes before the end.
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return tls.ConnectionState{}, fmt.Errorf("%d bytes after the handshake, %w", n, err)
	}
	return conn.ConnectionState(), nil
}

// DialTLS connects a client of HTTP/1.1 over TLS and tells which certificate it was shown.
func DialTLS(address string, c *tls.Config) (*Client, string, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", address, c)
	if err != nil {
		return nil, "", err
	}
	serial := conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	return &Client{conn: conn, r: bufio.NewReaderSize(conn, 4096)}, serial, nil
}
