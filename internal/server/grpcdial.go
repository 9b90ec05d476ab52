package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/pool"
)

// clusterDialer connects the process's own gRPC clients to clusters (envoy_grpc). It implements
// transport.Dialer.
type clusterDialer struct{ s *Server }

// DialCluster implements transport.Dialer.
func (d clusterDialer) DialCluster(ctx context.Context, name string) (net.Conn, error) {
	c := d.s.clusters.Get(name)
	if c == nil {
		return nil, errors.New("unknown cluster")
	}
	w := &dialWait{answer: make(chan *stream.Event, 1)}
	var fault *stream.Fault
	target := stream.Target{M: &w.mon, To: w}
	stream.Do(func(*stream.Turn) {
		fault = c.Connect(&cluster.Context{SpeaksHTTP2: true}, target, &w.attempt)
	})
	if fault != nil {
		return nil, fault
	}
	select {
	case e := <-w.answer:
		if e.Kind == stream.EventFailed {
			return nil, fmt.Errorf("%s: %w", e.Fault.Transport, e.Fault)
		}
	case <-ctx.Done():
		stream.Do(w.attempt.Cancel)
		return nil, ctx.Err()
	}
	tcp := w.attempt.OpenTCP()
	if tcp == nil {
		return nil, errors.New("the connection has gone")
	}
	nc := tcp.Net()
	if tcp.Secured() {
		nc = tcp.NetConn() // the client speaks plaintext
	}
	return &ownedConn{Conn: nc, tcp: tcp}, nil
}

// KeepaliveOf implements transport.Keepalive.
func (d clusterDialer) KeepaliveOf(name string) (interval, timeout time.Duration) {
	c := d.s.clusters.Get(name)
	if c == nil {
		return 0, 0
	}
	o := &c.Config().HTTP
	return o.Protocol.Keepalive.Interval, o.Protocol.Keepalive.Timeout
}

// dialWait waits for the pool's answer.
type dialWait struct {
	mon     stream.Monitor
	attempt cluster.Attempt
	answer  chan *stream.Event
}

// Receive implements stream.Receiver.
func (w *dialWait) Receive(_ *stream.Turn, e *stream.Event) {
	c := *e
	select {
	case w.answer <- &c:
	default:
	}
}

// ownedConn is a pool's connection in the hands of a client that reads and writes the socket itself.
type ownedConn struct {
	net.Conn
	tcp  *pool.TCP
	once sync.Once
}

// Close implements net.Conn.
func (c *ownedConn) Close() error {
	c.once.Do(func() { c.tcp.Close(true) })
	return nil
}
