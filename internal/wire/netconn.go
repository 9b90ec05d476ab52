package wire

import (
	"net"
	"sync"
	"time"

	"sidecar/api/stream"
	"sidecar/internal/buf"
)

// NetConn returns the connection as a net.Conn that carries plaintext and blocks, for clients that
// bring their own protocol stack. It is then the connection's one reader and writer; its Close closes
// the connection.
func (c *Conn) NetConn() net.Conn { return &netConn{c: c} }

type netConn struct {
	c *Conn

	rmu  sync.Mutex // guards below: one Read at a time
	left buf.Buffer // what Read had no room for

	wmu sync.Mutex // one Write at a time
}

// Read implements net.Conn.
func (n *netConn) Read(p []byte) (int, error) {
	n.rmu.Lock()
	defer n.rmu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	if n.left.Len() == 0 {
		b, got, err := n.c.Read(min(len(p), buf.Read), func() bool { return true })
		if b == nil {
			return 0, err
		}
		defer b.Put()
		m := copy(p, b.B[:got])
		n.left.Append(b.B[m:got])
		return m, nil
	}
	m := copy(p, n.left.Bytes())
	n.left.Consume(m)
	return m, nil
}

// Write implements net.Conn. It returns once the kernel has everything, or the connection is broken.
func (n *netConn) Write(p []byte) (int, error) {
	n.wmu.Lock()
	defer n.wmu.Unlock()
	stream.Do(func(t *stream.Turn) { n.c.Send(t, p) })
	n.c.WaitSent()
	if _, err := n.c.Room(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close implements net.Conn.
func (n *netConn) Close() error {
	n.c.Close()
	return nil
}

func (n *netConn) LocalAddr() net.Addr  { return n.c.nc.LocalAddr() }
func (n *netConn) RemoteAddr() net.Addr { return n.c.nc.RemoteAddr() }

// Deadlines are those of the socket.

func (n *netConn) SetDeadline(t time.Time) error      { return n.c.nc.SetDeadline(t) }
func (n *netConn) SetReadDeadline(t time.Time) error  { return n.c.nc.SetReadDeadline(t) }
func (n *netConn) SetWriteDeadline(t time.Time) error { return n.c.nc.SetWriteDeadline(t) }
