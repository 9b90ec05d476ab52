package health

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster/host"
	"sidecar/cluster/load"
	"sidecar/cluster/pool"
)

// exchange is one HTTP or gRPC check: a stream of its own.
type exchange struct {
	// Set when it is made, never changed.
	s      *session
	number uint32

	// Owned by the stream.
	mon      stream.Monitor
	lease    pool.Lease
	enc      stream.Encoder
	head     header.Map
	body     []byte
	status   int
	degraded bool
	service  string
	grpc     string
	done     bool
}

func startHTTP(s *session, n uint32) probe {
	x := &exchange{s: s, number: n}
	stream.Do(func(t *stream.Turn) { x.to().Post(t, stream.Event{Kind: stream.EventCall}) })
	return x
}

func (x *exchange) to() stream.Target { return stream.Target{M: &x.mon, To: x, Gen: 0, Seq: 1} }

// cancel implements probe.
func (x *exchange) cancel() {
	stream.Do(func(t *stream.Turn) { x.to().Post(t, stream.Event{Kind: stream.EventTimer}) })
}

// Receive implements stream.Receiver.
func (x *exchange) Receive(t *stream.Turn, e *stream.Event) {
	if x.done {
		return
	}
	switch e.Kind {
	case stream.EventCall:
		x.begin(t)
	case stream.EventReady:
		enc, f := x.lease.Open(t)
		if f != nil {
			x.end(t, network)
			return
		}
		x.send(t, enc)
	case stream.EventHeaders:
		x.onHead(t, e)
	case stream.EventData:
		x.onData(t, e)
	case stream.EventTrailers:
		if v, ok := e.Map.GetID(header.GrpcStatus); ok {
			x.grpc = v
		}
		x.complete(t)
	case stream.EventFailed, stream.EventReset:
		x.end(t, network)
	case stream.EventTimer:
		x.end(t, timeout)
	default:
	}
}

func (x *exchange) begin(t *stream.Turn) {
	c := x.s.c
	create := pool.New
	if c.conf.HTTP2 {
		create = pool.NewMux
	}
	p, ok := x.s.target.Pool(0, func() host.Pool { return create(c.env.Pools, x.s.target, load.Default) }).(*pool.Pool)
	if !ok {
		x.end(t, network)
		return
	}
	enc, f := x.lease.Get(t, p, x.to(), 0, 1)
	switch {
	case f != nil:
		x.end(t, network)
	case enc != nil:
		x.send(t, enc)
	}
}

func (x *exchange) send(t *stream.Turn, enc stream.Encoder) {
	c := x.s.c
	x.enc = enc
	h := &x.head
	h.SetID(header.Method, c.conf.method)
	h.SetID(header.Scheme, "http")
	h.SetID(header.Authority, c.authority(x.s.host))
	h.SetID(header.Path, c.conf.path)
	h.SetID(header.UserAgent, "Envoy/HC")
	if c.conf.Kind == GRPC {
		h.Set("te", "trailers")
		h.SetID(header.ContentType, "application/grpc")
	} else if len(c.conf.send) > 0 {
		h.Set("content-length", strconv.Itoa(len(c.conf.send)))
	}
	c.conf.headers.Apply(h, &stream.Info{Request: h, Conn: &stream.ConnInfo{}})
	enc.EncodeHeaders(t, h, len(c.conf.send) == 0)
	if len(c.conf.send) > 0 {
		enc.EncodeData(t, c.conf.send, true)
	}
}

func (x *exchange) onHead(t *stream.Turn, e *stream.Event) {
	status, err := strconv.Atoi(e.Map.Value(header.Status))
	if err != nil {
		x.end(t, network)
		return
	}
	x.status = status
	x.degraded = e.Map.Has(header.XEnvoyDegraded)
	x.service = e.Map.Value(header.XEnvoyUpstreamHealthcheckedCluster)
	x.grpc, _ = e.Map.GetID(header.GrpcStatus)
	if e.End {
		x.complete(t)
	}
}

func (x *exchange) onData(t *stream.Turn, e *stream.Event) {
	most := int(min(x.s.c.conf.bufferSize, 1<<20))
	if n := most - len(x.body); most == 0 || n > 0 {
		if most > 0 {
			x.body = append(x.body, e.Data[:min(n, len(e.Data))]...)
		}
	}
	if e.End {
		x.complete(t)
	}
}

// complete judges a response (HttpActiveHealthCheckSession::healthCheckResult).
func (x *exchange) complete(t *stream.Turn) {
	c := x.s.c
	switch {
	case c.conf.Kind == GRPC:
		x.end(t, x.serving())
	case !in(c.conf.expected, x.status):
		if in(c.conf.retriable, x.status) {
			x.end(t, retriable)
			return
		}
		x.end(t, bad)
	case !matches(c.conf.receive, x.body):
		x.end(t, bad)
	case c.conf.service != nil && !x.verify():
		x.end(t, bad)
	case x.degraded:
		x.end(t, degraded)
	default:
		x.end(t, good)
	}
}

func (x *exchange) verify() bool {
	x.s.c.env.Stats.VerifyCluster.Inc()
	return x.s.c.conf.service.Match(x.service)
}

// end ends the exchange with a result, and lets go of its stream.
func (x *exchange) end(t *stream.Turn, o outcome) {
	x.done = true
	if x.enc != nil {
		if o == timeout || o == network || x.status == 0 {
			x.enc.Reset(t, &stream.Fault{Reason: stream.ReasonLocalReset})
		}
		x.enc.Release(t)
		x.enc = nil
	}
	x.lease.Cancel(t)
	x.s.report(x.number, o)
}

// matches tells whether the patterns are in b, one after the other (PayloadMatcher::match).
func matches(patterns [][]byte, b []byte) bool {
	for _, p := range patterns {
		i := bytes.Index(b, p)
		if i < 0 {
			return false
		}
		b = b[i+len(p):]
	}
	return true
}

// grpcRequest is a HealthCheckRequest as it is sent.
func grpcRequest(service string) []byte {
	var msg []byte
	if service != "" {
		msg = append(binary.AppendUvarint([]byte{0x0a}, uint64(len(service))), service...)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg))), msg...)
}

// serving judges the answer to a gRPC check: status 0, and a message that says SERVING.
func (x *exchange) serving() outcome {
	const frameHead = 5
	if x.status != 200 || x.grpc != "0" || len(x.body) < frameHead || x.body[0] != 0 {
		return bad
	}
	n := binary.BigEndian.Uint32(x.body[1:])
	msg := x.body[frameHead:]
	if uint64(n) != uint64(len(msg)) || !bytes.Equal(msg, []byte{0x08, 0x01}) {
		return bad
	}
	return good
}
