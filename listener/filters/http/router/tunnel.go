package router

import (
	"errors"
	"io"
	"sync/atomic"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster/pool"
	"sidecar/internal/buf"
	"sidecar/internal/task"
)

// tunnel is the upstream side of a CONNECT that ends here (connect_config): the payload goes over a
// raw connection, and a 200 of our own says that there is one (Envoy: TcpUpstream).
type tunnel struct {
	// Set by newTunnel, never changed.
	conn   *pool.TCP
	target stream.Target
	wake   chan struct{}

	head    header.Map // of the answer
	paused  atomic.Bool
	ended   atomic.Bool // by us: the stream hears no more
	sent    atomic.Uint64
	receive atomic.Uint64
}

var _ stream.Encoder = (*tunnel)(nil)

func newTunnel(conn *pool.TCP, target stream.Target) *tunnel {
	u := &tunnel{conn: conn, target: target, wake: make(chan struct{}, 1)}
	conn.SetDrained(func(t *stream.Turn) { target.Post(t, stream.Event{Kind: stream.EventDrained}) })
	return u
}

// EncodeHeaders implements stream.Encoder: the head goes nowhere, and the answer is ours.
func (u *tunnel) EncodeHeaders(t *stream.Turn, _ *header.Map, end bool) {
	u.head.AddStatic(":status", "200")
	u.target.Post(t, stream.Event{Kind: stream.EventHeaders, Map: &u.head})
	task.Go("tunnel", u.read, func(*task.Panic) { u.conn.Close(true) })
	if end {
		u.conn.CloseWrite()
	}
}

// read passes on what the upstream sends, on a goroutine of its own.
func (u *tunnel) read() {
	t := stream.NewTurn()
	for {
		if u.paused.Load() && !u.ended.Load() {
			<-u.wake
			continue
		}
		b, n, err := u.conn.Read(buf.Read, func() bool { return !u.paused.Load() })
		if u.ended.Load() {
			if b != nil {
				b.Put()
			}
			return
		}
		if b != nil {
			u.receive.Add(uint64(n))
			u.target.Post(t, stream.Event{Kind: stream.EventData, Data: b.B[:n]})
			b.Put()
			t.End()
			u.target.M.WaitRoom()
		}
		if err != nil {
			u.end(t, err)
			t.End()
			return
		}
	}
}

func (u *tunnel) end(t *stream.Turn, err error) {
	if errors.Is(err, io.EOF) {
		u.target.Post(t, stream.Event{Kind: stream.EventData, End: true})
		return
	}
	u.target.Post(t, stream.Event{Kind: stream.EventReset, Fault: &stream.Fault{
		Side: stream.Upstream, Reason: stream.ReasonConnectionTermination,
		Flag: stream.UpstreamConnectionTermination, Err: err,
	}})
}

// EncodeInterim implements stream.Encoder.
func (u *tunnel) EncodeInterim(*stream.Turn, *header.Map) {}

// EncodeData implements stream.Encoder.
func (u *tunnel) EncodeData(t *stream.Turn, p []byte, end bool) {
	if len(p) > 0 {
		u.sent.Add(uint64(len(p)))
		u.conn.Write(t, p)
	}
	if end {
		u.conn.CloseWrite()
	}
}

// EncodeTrailers implements stream.Encoder: a raw connection has no place for them.
func (u *tunnel) EncodeTrailers(*stream.Turn, *header.Map) { u.conn.CloseWrite() }

// Full implements stream.Encoder.
func (u *tunnel) Full() bool { return u.conn.Full() }

// Pause implements stream.Encoder.
func (u *tunnel) Pause(_ *stream.Turn, paused bool) {
	u.paused.Store(paused)
	if !paused {
		u.awake()
	}
}

func (u *tunnel) awake() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// Reset implements stream.Encoder.
func (u *tunnel) Reset(*stream.Turn, *stream.Fault) {
	u.ended.Store(true)
	u.conn.Close(true)
	u.awake()
}

// Release implements stream.Encoder.
func (u *tunnel) Release(t *stream.Turn) { u.Reset(t, nil) }

// Protocol implements stream.Encoder.
func (u *tunnel) Protocol() stream.Protocol { return stream.ProtocolNone }

// Traffic implements stream.Encoder.
func (u *tunnel) Traffic() stream.Traffic {
	return stream.Traffic{WireSent: u.sent.Load(), WireReceived: u.receive.Load()}
}
