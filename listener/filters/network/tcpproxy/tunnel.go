package tcpproxy

import (
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/outlier"
	"sidecar/internal/buf"
)

// tunnel is the upstream half of a session that goes through an HTTP proxy: one request, whose body and
// whose answer's body are the bytes of the session. What the upstream sends is written to the client by
// whoever reads the upstream's connection; the session's goroutine reads the client and hands the bytes
// over, one block at a time.
type tunnel struct {
	// Set by newTunnel, never changed.
	s      *session
	cl     *cluster.Cluster
	over   chan struct{} // closed once the upstream has nothing more to say
	closed sync.Once     // of over
	did    chan struct{} // what was called inside the stream is done
	sendFn func(*stream.Turn)

	mon stream.Monitor

	// Owned by the stream, which mon keeps one.
	ctx     cluster.Context
	attempt cluster.Attempt
	head    header.Map
	enc     stream.Encoder
	started bool // an answer said that there is a tunnel
	failed  bool // the session was told that there is none
	sent    bool // our side has ended
	host    stream.UpstreamInfo

	// Handed over between the session's goroutine and the stream.
	block             []byte
	end               bool
	full              bool
	headers, trailers answered
	cut               bool // the upstream ended the stream before its time
}

func newTunnel(s *session, cl *cluster.Cluster, seq uint32) *tunnel {
	u := &tunnel{s: s, cl: cl, over: make(chan struct{}), did: make(chan struct{}, 1)}
	u.sendFn = u.send
	u.ctx = cluster.Context{Seq: seq, Info: s.info, Hint: uint32(s.info.Conn.ID), Conn: s.info.Conn}
	u.ctx.Hash, u.ctx.HasHash = s.cfg.hash.of(s.info)
	u.ctx.Ask = cl.Ask(nil, "", s.info)
	return u
}

func (u *tunnel) target() stream.Target {
	return stream.Target{M: &u.mon, To: u, Gen: u.mon.Gen(), Seq: u.ctx.Seq}
}

// in runs f inside the stream and waits for it.
func (u *tunnel) in(t *stream.Turn, f func(*stream.Turn)) {
	u.target().Post(t, stream.Event{Kind: stream.EventCall, Ref: f})
	t.End()
	<-u.did
}

// Receive implements stream.Receiver.
func (u *tunnel) Receive(t *stream.Turn, e *stream.Event) {
	switch e.Kind {
	case stream.EventCall:
		if f, ok := e.Ref.(func(*stream.Turn)); ok {
			f(t)
		}
		u.did <- struct{}{}
	case stream.EventReady:
		enc, f := u.attempt.Open(t)
		u.begin(t, enc, f)
	case stream.EventFailed:
		u.fail(e.Fault)
	case stream.EventHeaders:
		u.onHeaders(t, e)
	case stream.EventData:
		u.onData(t, e.Data, e.End)
	case stream.EventTrailers:
		if u.s.cfg.tunnel.keepTail {
			u.trailers = keep(e.Map)
		}
		u.onData(t, nil, true)
	case stream.EventReset:
		u.onReset(t, e.Fault)
	case stream.EventDrained:
		signal(u.s.room[toUpstream])
	case stream.EventResume:
		if u.enc != nil {
			u.enc.Pause(t, false)
		}
	}
}

// start asks for a stream.
func (u *tunnel) start(t *stream.Turn) {
	enc, f := u.cl.NewStream(t, &u.ctx, u.target(), &u.attempt)
	u.begin(t, enc, f)
}

// begin sends the head of the request, unless the stream still waits.
func (u *tunnel) begin(t *stream.Turn, enc stream.Encoder, f *stream.Fault) {
	u.attempt.Describe(&u.host)
	if f != nil {
		u.fail(f)
		return
	}
	if enc == nil {
		return
	}
	u.enc = enc
	u.s.cfg.tunnel.request(&u.head, u.s.info, enc.Protocol() == stream.HTTP2, u.host.TLS != nil)
	enc.EncodeHeaders(t, &u.head, false)
}

// fail tells the session that there is no tunnel.
func (u *tunnel) fail(f *stream.Fault) {
	if u.failed {
		return
	}
	u.failed = true
	u.finish()
	u.s.answer(&stream.Event{Kind: stream.EventFailed, Fault: f})
}

func (u *tunnel) finish() { u.closed.Do(func() { close(u.over) }) }

// onHeaders takes the answer: over HTTP/1 any 2xx, else 200 is a tunnel (HttpUpstream::isValidResponse).
func (u *tunnel) onHeaders(t *stream.Turn, e *stream.Event) {
	if u.started {
		return
	}
	if u.s.cfg.tunnel.keepHeaders {
		u.headers = keep(e.Map)
	}
	status := e.Map.Value(header.Status)
	good := status == "200" || u.enc.Protocol() != stream.HTTP2 && len(status) == 3 && strings.HasPrefix(status, "2")
	if !good || e.End {
		text := "tunnel_response:" + status // the head goes with the stream
		u.reset(t)
		u.fail(&stream.Fault{
			Side: stream.Upstream, Reason: stream.ReasonRemoteConnectionFailure,
			Flag: stream.UpstreamConnectionFailure, Transport: text,
		})
		return
	}
	u.started = true
	u.s.answer(&stream.Event{Kind: stream.EventReady})
}

// onData writes to the client. When that takes no more, the upstream is stopped.
func (u *tunnel) onData(t *stream.Turn, p []byte, end bool) {
	if !u.started {
		return
	}
	down := u.s.down
	if len(p) > 0 {
		u.s.note(toDownstream, len(p))
		down.Send(t, p)
		if down.Full() && u.enc != nil {
			u.enc.Pause(t, true)
			if !down.Full() { // it has drained meanwhile, and told so before we stopped
				u.enc.Pause(t, false)
			}
		}
	}
	if end {
		down.CloseWrite()
		u.finish()
	}
}

// onReset is the end of the stream before its time; that of a tunnel over HTTP/1 is its only end.
func (u *tunnel) onReset(t *stream.Turn, f *stream.Fault) {
	if !u.started {
		u.release(t)
		if f.Flag == 0 {
			f = &stream.Fault{Side: stream.Upstream, Reason: f.Reason, Flag: stream.UpstreamConnectionFailure}
		}
		u.fail(&stream.Fault{
			Side: stream.Upstream, Reason: f.Reason, Flag: stream.UpstreamConnectionFailure, Transport: f.Transport,
		})
		return
	}
	u.release(t)
	u.cut = true
	u.s.remote.Store(true)
	u.s.down.CloseWrite()
	u.finish()
	_ = u.s.down.SetReadDeadline(time.Unix(1, 0)) // wakes the session, which finds the tunnel over
}

// send hands the session's block to the upstream.
func (u *tunnel) send(t *stream.Turn) {
	if u.enc == nil || u.sent {
		return
	}
	u.enc.EncodeData(t, u.block, u.end)
	u.sent, u.full = u.end, u.enc.Full()
}

// drained says that the client takes data again; it is called outside streams.
func (u *tunnel) drained(t *stream.Turn) { u.target().Post(t, stream.Event{Kind: stream.EventResume}) }

// abandon ends the attempt or the stream.
func (u *tunnel) abandon(t *stream.Turn) {
	u.failed = true
	u.reset(t)
	u.attempt.Cancel(t)
	u.finish()
}

func (u *tunnel) reset(t *stream.Turn) {
	if u.enc != nil {
		u.enc.Reset(t, &stream.Fault{Reason: stream.ReasonLocalReset})
		u.release(t)
	}
}

func (u *tunnel) release(t *stream.Turn) {
	if u.enc != nil {
		u.enc.Release(t)
		u.enc = nil
	}
}

// openTunnel is attempt by way of a tunnel.
func (s *session) openTunnel(t *stream.Turn, cl *cluster.Cluster, seq uint32) (f *stream.Fault, gone bool) {
	u := newTunnel(s, cl, seq)
	s.down.SetDrained(u.drained)
	u.in(t, u.start)
	s.info.Attempts++
	s.down.AwaitReset()
	var e stream.Event
	select {
	case e = <-s.ready:
	default:
		gone = true
	}
	if err := s.down.SetReadDeadline(time.Time{}); err != nil {
		gone = true
	}
	failure := s.info.Upstream.TransportFailure
	u.in(t, func(t *stream.Turn) {
		u.attempt.Describe(&s.info.Upstream)
		switch {
		case gone:
			u.abandon(t)
		case e.Kind == stream.EventFailed:
			judge(&u.attempt, e.Fault)
			u.abandon(t)
		default:
			u.attempt.Report(outlier.ConnectedFinal, 0)
		}
	})
	s.info.Upstream.TransportFailure = failure
	s.keep(responseHeadersKey, u.headers)
	if gone || e.Kind == stream.EventFailed {
		return e.Fault, gone
	}
	s.tunnel.Store(u)
	return nil, false
}

// keep puts what the proxy has answered into the filter state.
func (s *session) keep(key string, a answered) {
	if a == nil {
		return
	}
	s.info.SetFilterState(key, stream.FilterObject{Value: a})
}

// runTunnel moves bytes both ways until both have ended.
//
// DIVERGES(tunnel-half-close): over HTTP/1 Envoy ends the tunnel when the client ends its side; here what
// the upstream still has to say arrives, as it does without a tunnel.
func (s *session) runTunnel(t *stream.Turn, u *tunnel) {
	s.active.Store(time.Now().UnixNano())
	defer s.watch()()
	defer s.logPeriodically()()
	err := s.pumpTunnel(t, u)
	if errors.Is(err, io.EOF) {
		u.block, u.end = nil, true
		u.in(t, u.sendFn)
		<-u.over
	}
	select {
	case <-u.over:
		s.down.WaitSent() // the idle timeout bounds it
	default:
	}
	u.in(t, u.abandon)
	s.keep(responseTrailersKey, u.trailers)
}

// pumpTunnel sends what the client sends, until that or the tunnel ends.
func (s *session) pumpTunnel(t *stream.Turn, u *tunnel) error {
	for {
		b, n, err := s.down.Read(buf.Bulk, always)
		if b != nil {
			s.note(toUpstream, n)
			u.block, u.end = b.B[:n], false
			u.in(t, u.sendFn)
			b.Put()
			for u.full && !u.isOver() {
				<-s.room[toUpstream]
				u.block = nil
				u.in(t, u.sendFn)
			}
		}
		if err != nil {
			return err
		}
		if u.isOver() && u.cut {
			return nil
		}
	}
}

func (u *tunnel) isOver() bool {
	select {
	case <-u.over:
		return true
	default:
		return false
	}
}
