package server

import (
	"context"
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/discover"
	"sidecar/internal/grpchttp"
	"sidecar/internal/task"
	"sidecar/wasmhost"
)

// grpcCall is a gRPC call-out of a plugin (Envoy: Grpc::AsyncStreamImpl). Its monitor makes its events
// come one at a time.
type grpcCall struct {
	// Set by OpenGRPC, never changed.
	cluster *cluster.Cluster
	req     *wasmhost.GRPCRequest
	on      func(*stream.Turn, wasmhost.GRPCEvent)

	mon stream.Monitor
	outgoing

	out    []byte // framed messages that wait for the upstream
	outEnd bool
	sent   bool // the end was

	http     string // the response code, once the head has come
	in       []byte // of a message that isn't complete
	untaken  int    // bytes of messages that the plugin has not used
	throttle bool
}

const (
	// untakenLimit is how much of what a plugin has not used stops the upstream.
	untakenLimit = 256 << 10
	// maxUnsent bounds what a plugin may send faster than the upstream takes.
	maxUnsent = 16 << 20
)

// OpenGRPC implements wasmhost.GRPCCaller.
func (c caller) OpenGRPC(_ *stream.Turn, r *wasmhost.GRPCRequest,
	on func(*stream.Turn, wasmhost.GRPCEvent),
) (wasmhost.GRPCStream, error) {
	cl, err := c.target(r.Cluster)
	if err != nil {
		return nil, err
	}
	k := &grpcCall{cluster: cl, req: r, on: on}
	if !r.Stream {
		k.queue(r.Message, true)
	}
	// What comes must not come before the plugin knows the call, so another goroutine begins it.
	task.Go("plugin grpc call", func() { stream.Do(func(t *stream.Turn) { k.post(t, k.start) }) }, nil)
	return k, nil
}

// post runs f inside the call.
func (k *grpcCall) post(t *stream.Turn, f func(*stream.Turn)) {
	k.mon.Post(t, 0, stream.Event{To: k, Kind: stream.EventCall, Ref: f})
}

// Send implements wasmhost.GRPCStream.
func (k *grpcCall) Send(t *stream.Turn, message []byte, end bool) {
	k.post(t, func(t *stream.Turn) {
		k.queue(message, end)
		k.flush(t)
	})
}

// Taken implements wasmhost.GRPCStream.
func (k *grpcCall) Taken(t *stream.Turn, n int) {
	k.post(t, func(t *stream.Turn) {
		k.untaken -= n
		if k.throttle && k.untaken < untakenLimit && k.enc != nil {
			k.throttle = false
			k.enc.Pause(t, false)
		}
	})
}

// Cancel implements wasmhost.GRPCStream.
func (k *grpcCall) Cancel(t *stream.Turn) { k.post(t, k.end) }

func (k *grpcCall) queue(message []byte, end bool) {
	if k.outEnd {
		return
	}
	if message != nil || !end {
		k.out = grpchttp.AppendHead(k.out, 0, len(message))
		k.out = append(k.out, message...)
	}
	k.outEnd = end
}

// head is the request's (Grpc::Common::prepareHeaders).
func (k *grpcCall) head() *header.Map {
	r := k.req
	h := new(header.Map)
	h.AddStatic(":method", "POST")
	h.AddStatic(":scheme", "http")
	authority := r.Authority
	if authority == "" {
		authority = r.Cluster
	}
	h.Add(":authority", authority)
	h.Add(":path", "/"+r.Service+"/"+r.Method)
	h.AddStatic("te", "trailers")
	if r.Timeout > 0 {
		h.Add("grpc-timeout", string(grpchttp.AppendTimeout(nil, r.Timeout)))
	}
	h.AddStatic("content-type", "application/grpc")
	h.SetStatic(header.XEnvoyInternal, "true")
	for i := range r.Metadata.Len() {
		name, value := r.Metadata.At(i)
		if !strings.HasPrefix(name, ":") {
			h.Add(name, value)
		}
	}
	if r.Timeout > 0 {
		h.SetID(header.XEnvoyExpectedRqTimeoutMs, strconv.FormatInt(r.Timeout.Milliseconds(), 10))
	}
	return h
}

func (k *grpcCall) start(t *stream.Turn) {
	head := k.head()
	if d := k.req.Timeout; d > 0 {
		k.timer = time.AfterFunc(d, func() {
			stream.Do(func(t *stream.Turn) {
				k.mon.Post(t, 0, stream.Event{To: k, Kind: stream.EventTimer})
			})
		})
	}
	k.req.Metadata = head // of the pool's choice of a host, and then of the request
	enc, f := k.cluster.NewStream(t, &cluster.Context{Headers: head}, stream.Target{M: &k.mon, To: k}, &k.attempt)
	switch {
	case f != nil:
		k.close(t, 14, failedText(f))
	case enc != nil:
		k.send(t, enc)
	}
}

func (k *grpcCall) send(t *stream.Turn, enc stream.Encoder) {
	k.enc = enc
	enc.EncodeHeaders(t, k.req.Metadata, false)
	k.flush(t)
}

// flush sends what waits, as far as the upstream takes it.
func (k *grpcCall) flush(t *stream.Turn) {
	switch {
	case k.enc == nil || k.sent || k.enc.Full():
		if len(k.out) > maxUnsent {
			k.close(t, 8, "the plugin sends faster than the upstream takes")
		}
		return
	case len(k.out) == 0 && !k.outEnd:
		return
	}
	out := k.out
	k.out, k.sent = nil, k.outEnd
	k.enc.EncodeData(t, out, k.outEnd)
}

// Receive implements stream.Receiver.
func (k *grpcCall) Receive(t *stream.Turn, e *stream.Event) {
	if k.over {
		return
	}
	switch e.Kind {
	case stream.EventCall:
		if f, ok := e.Ref.(func(*stream.Turn)); ok {
			f(t)
		}
	case stream.EventReady:
		enc, f := k.attempt.Open(t)
		if f != nil {
			k.close(t, 14, failedText(f))
			return
		}
		if enc != nil {
			k.send(t, enc)
		}
	case stream.EventDrained:
		k.flush(t)
	case stream.EventHeaders:
		k.headers(t, e.Map, e.End)
	case stream.EventData:
		k.data(t, e.Data)
		if e.End && !k.over {
			k.close(t, 2, "")
		}
	case stream.EventTrailers:
		k.trailers(t, e.Map)
	case stream.EventFailed:
		k.close(t, 14, failedText(e.Fault))
	case stream.EventReset:
		if k.http != "" {
			k.close(t, 13, "")
			return
		}
		k.close(t, 14, failedText(e.Fault))
	case stream.EventTimer:
		k.close(t, 14, "upstream request timeout{response_timeout}")
	case stream.EventNone, stream.EventInterim, stream.EventRejected, stream.EventResume, stream.EventFinish:
	}
}

func (k *grpcCall) tell(t *stream.Turn, e wasmhost.GRPCEvent) {
	t.Later(func(t *stream.Turn) { k.on(t, e) })
}

// headers: the code of a response that is no gRPC stands for a status; with a status, that counts.
func (k *grpcCall) headers(t *stream.Turn, h *header.Map, end bool) {
	k.http = strings.Clone(h.Value(header.Status))
	initial := new(header.Map)
	if !end {
		initial.CopyFrom(h)
	}
	k.tell(t, wasmhost.GRPCEvent{Kind: wasmhost.GRPCInitial, Map: initial})
	switch {
	case k.http != "200" && (!end || !h.Has(header.GrpcStatus)):
		code, _ := strconv.Atoi(k.http) //nolint:errcheck // what is no number has no status either
		k.close(t, grpchttp.StatusFromHTTP(code), "")
	case end:
		k.trailers(t, h)
	}
}

// data takes messages out of the body. Compressed ones were not asked for.
func (k *grpcCall) data(t *stream.Turn, p []byte) {
	k.in = append(k.in, p...)
	for len(k.in) >= grpchttp.HeadSize {
		n := int64(binary.BigEndian.Uint32(k.in[1:]))
		switch {
		case k.in[0] != 0:
			k.close(t, 13, "")
			return
		case n > maxCallBody:
			k.close(t, 8, "the message is too large")
			return
		case int64(len(k.in)-grpchttp.HeadSize) < n:
			return
		}
		message := append([]byte{}, k.in[grpchttp.HeadSize:grpchttp.HeadSize+n]...)
		k.in = append(k.in[:0], k.in[grpchttp.HeadSize+n:]...)
		k.untaken += len(message)
		k.tell(t, wasmhost.GRPCEvent{Kind: wasmhost.GRPCMessage, Message: message})
	}
	if k.req.Stream && !k.throttle && k.untaken >= untakenLimit {
		k.throttle = true
		k.enc.Pause(t, true)
	}
}

func (k *grpcCall) trailers(t *stream.Turn, h *header.Map) {
	trailing := new(header.Map)
	trailing.CopyFrom(h)
	status, err := strconv.Atoi(h.Value(header.GrpcStatus))
	if err != nil {
		status = 2
	}
	message, _ := h.Get("grpc-message")
	k.closeWith(t, trailing, status, strings.Clone(message))
}

func (k *grpcCall) close(t *stream.Turn, status int, text string) {
	k.closeWith(t, new(header.Map), status, text)
}

func (k *grpcCall) closeWith(t *stream.Turn, trailing *header.Map, status int, text string) {
	k.tell(t, wasmhost.GRPCEvent{Kind: wasmhost.GRPCTrailing, Map: trailing})
	k.tell(t, wasmhost.GRPCEvent{Kind: wasmhost.GRPCClosed, Status: status, Text: text})
	k.end(t)
}

// failedText is the message of a call that found no upstream, as Envoy's client makes it of its own local
// reply and that one's details.
func failedText(f *stream.Fault) string {
	if f == nil {
		return ""
	}
	token := f.Reason.Token()
	if f.Transport != "" {
		token += "|" + strings.ReplaceAll(f.Transport, " ", "_")
	}
	return resetText(f) + "{upstream_reset_before_response_started{" + token + "}}"
}

// resetText is the body of Envoy's local reply for an upstream that gave no response.
func resetText(f *stream.Fault) string {
	reason := stream.ReasonConnectionTermination
	if f != nil {
		reason = f.Reason
	}
	text := "upstream connect error or disconnect/reset before headers. reset reason: " + reason.String()
	if f != nil && f.Transport != "" && !strings.HasPrefix(f.Transport, "delayed_connect_error") {
		text += ", transport failure reason: " + f.Transport
	}
	return text
}

// end lets go of the upstream.
func (k *grpcCall) end(t *stream.Turn) {
	k.release(t)
	k.in, k.out = nil, nil
}

// endpoints counts the hosts of a cluster.
func (c caller) endpoints(name string) (int, bool) {
	cl := c.s.clusters.Get(name)
	if cl == nil {
		return 0, false
	}
	return len(cl.Hosts().Hosts), true
}

// lookups resolves names for plugins by the servers of resolv.conf.
type lookups struct{ r discover.Resolver }

// Resolve implements wasmhost.Resolver; it runs on a goroutine of the plugin's host.
func (l lookups) Resolve(name string, done func(*stream.Turn, []string, time.Duration, bool)) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout) //nolint:forbidigo // bounded
	defer cancel()
	a, err := l.r.Lookup(ctx, name, discover.Auto)
	var addrs []string
	for _, ip := range a.Addrs {
		addrs = append(addrs, ip.String()+":0")
		if ip.Is6() {
			addrs[len(addrs)-1] = "[" + ip.String() + "]:0"
		}
	}
	stream.Do(func(t *stream.Turn) { done(t, addrs, a.TTL, err == nil) })
}

const lookupTimeout = 10 * time.Second
