package health

import (
	"sync"

	"sidecar/api/stream"
	"sidecar/cluster/host"
	"sidecar/cluster/load"
	"sidecar/cluster/pool"
	"sidecar/internal/task"
)

// contact is one TCP check: a connection, what is sent on it and what is to come back.
//
// DIVERGES(tcp_health_check): each check has a connection of its own, also with reuse_connection.
type contact struct {
	// Set when it is made, never changed.
	s      *session
	number uint32
	mon    stream.Monitor

	lease pool.Lease // used inside the stream
	done  bool

	mu   sync.Mutex // guards below
	conn *pool.TCP
	over bool
}

func startTCP(s *session, n uint32) probe {
	x := &contact{s: s, number: n}
	stream.Do(func(t *stream.Turn) { x.to().Post(t, stream.Event{Kind: stream.EventCall}) })
	return x
}

func (x *contact) to() stream.Target { return stream.Target{M: &x.mon, To: x, Gen: 0, Seq: 1} }

// cancel implements probe.
func (x *contact) cancel() {
	stream.Do(func(t *stream.Turn) { x.to().Post(t, stream.Event{Kind: stream.EventTimer}) })
	x.mu.Lock()
	x.over = true
	conn := x.conn
	x.mu.Unlock()
	if conn != nil {
		conn.Close(true)
	}
}

// Receive implements stream.Receiver.
func (x *contact) Receive(t *stream.Turn, e *stream.Event) {
	if x.done {
		return
	}
	switch e.Kind {
	case stream.EventCall:
		c := x.s.c
		p, ok := x.s.target.Pool(0, func() host.Pool { return pool.New(c.env.Pools, x.s.target, load.Default) }).(*pool.Pool)
		if !ok || x.lease.Connect(p, x.to(), 1, false) != nil {
			x.end(network)
		}
	case stream.EventReady:
		x.connected(t)
	case stream.EventFailed:
		x.end(network)
	case stream.EventTimer:
		x.done = true
		x.lease.Cancel(t)
	default:
	}
}

func (x *contact) connected(t *stream.Turn) {
	conn := x.lease.OpenTCP()
	if conn == nil {
		x.end(network)
		return
	}
	x.mu.Lock()
	x.conn = conn
	over := x.over
	x.mu.Unlock()
	c := x.s.c.conf
	if over {
		conn.Close(true)
		return
	}
	if len(c.send) > 0 {
		conn.Send(t, c.send)
	}
	if len(c.receive) == 0 {
		x.end(good)
		return
	}
	task.Go("health check", func() { x.read(conn) }, func(*task.Panic) { x.end(network) })
}

// mostRead bounds what is read of a host that sends something else.
const mostRead = 64 << 10

// read waits until all that is expected has come.
func (x *contact) read(conn *pool.TCP) {
	var got []byte
	for len(got) < mostRead {
		b, n, err := conn.Read(1<<10, func() bool { return true })
		if b != nil {
			got = append(got, b.B[:n]...)
			b.Put()
		}
		if matches(x.s.c.conf.receive, got) {
			x.s.report(x.number, good)
			return
		}
		if err != nil {
			break
		}
	}
	x.s.report(x.number, network)
}

func (x *contact) end(o outcome) { x.s.report(x.number, o) }
