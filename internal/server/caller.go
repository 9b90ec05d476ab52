package server

import (
	"errors"
	"strconv"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/internal/task"
	"sidecar/wasmhost"
)

// caller makes the HTTP call-outs of plugins over clusters (Envoy: Http::AsyncClientImpl).
type caller struct{ s *Server }

// errNoHost is answered where Envoy's client answers on the spot, before the call has begun.
var errNoHost = errors.New("no healthy upstream")

// maxCallBody bounds the answer that is kept for a plugin.
const maxCallBody = 16 << 20

// call is one call-out. Its monitor makes its events come one at a time; it is not pooled.
type call struct {
	// Set by CallHTTP, never changed.
	cluster *cluster.Cluster
	req     *wasmhost.CallRequest
	done    func(*stream.Turn, wasmhost.CallResult)

	mon stream.Monitor
	outgoing
	result wasmhost.CallResult
}

// outgoing is what a call-out holds of its upstream.
type outgoing struct {
	attempt cluster.Attempt
	enc     stream.Encoder
	timer   *time.Timer
	over    bool
}

// release lets go of the upstream, and marks the call as over.
func (o *outgoing) release(t *stream.Turn) {
	o.over = true
	if o.timer != nil {
		o.timer.Stop()
	}
	if o.enc != nil {
		o.enc.Reset(t, &stream.Fault{Reason: stream.ReasonLocalReset})
		o.enc.Release(t)
		o.enc = nil
	}
	o.attempt.Cancel(t)
}

// target finds the cluster of a call-out, which must have hosts.
func (c caller) target(name string) (*cluster.Cluster, error) {
	cl := c.s.clusters.Get(name)
	if cl == nil {
		return nil, wasmhost.ErrNoCluster
	}
	if len(cl.Hosts().Hosts) == 0 && !cl.Config().Kind.Unlisted() {
		return nil, errNoHost
	}
	return cl, nil
}

// HasCluster implements wasmhost.Caller.
func (c caller) HasCluster(name string) bool { return c.s.clusters.Get(name) != nil }

// CallHTTP implements wasmhost.Caller.
func (c caller) CallHTTP(_ *stream.Turn, r *wasmhost.CallRequest,
	done func(*stream.Turn, wasmhost.CallResult),
) (func(*stream.Turn), error) {
	cl, err := c.target(r.Cluster)
	if err != nil {
		return nil, err
	}
	r.Headers.SetStatic(header.XEnvoyInternal, "true")
	if len(r.Body) > 0 {
		r.Headers.SetID(header.ContentLength, strconv.Itoa(len(r.Body)))
	}
	if r.Timeout > 0 {
		r.Headers.SetID(header.XEnvoyExpectedRqTimeoutMs, strconv.FormatInt(r.Timeout.Milliseconds(), 10))
	}
	k := &call{cluster: cl, req: r, done: done}
	// The answer must not come before the plugin knows the call, so another goroutine begins it.
	task.Go("plugin call", func() {
		stream.Do(func(t *stream.Turn) {
			k.mon.Post(t, 0, stream.Event{To: k, Kind: stream.EventCall})
		})
	}, nil)
	cancel := func(t *stream.Turn) {
		k.mon.Post(t, 0, stream.Event{To: k, Kind: stream.EventFinish})
	}
	return cancel, nil
}

// Receive implements stream.Receiver.
func (k *call) Receive(t *stream.Turn, e *stream.Event) {
	if k.over {
		return
	}
	switch e.Kind {
	case stream.EventCall:
		k.start(t)
	case stream.EventReady:
		enc, f := k.attempt.Open(t)
		if f != nil {
			k.fail(t, f)
			return
		}
		if enc != nil {
			k.send(t, enc)
		}
	case stream.EventHeaders:
		k.result.Headers = new(header.Map)
		k.result.Headers.CopyFrom(e.Map)
		k.ended(t, e.End)
	case stream.EventData:
		if int64(len(k.result.Body)+len(e.Data)) > k.bodyLimit() {
			k.fail(t, nil)
			return
		}
		k.result.Body = append(k.result.Body, e.Data...)
		k.ended(t, e.End)
	case stream.EventTrailers:
		k.result.Trailers = new(header.Map)
		k.result.Trailers.CopyFrom(e.Map)
		k.ended(t, true)
	case stream.EventFailed, stream.EventReset:
		k.fail(t, e.Fault)
	case stream.EventTimer:
		k.synthesize(t, 504, "upstream request timeout")
	case stream.EventFinish:
		k.end(t, false)
	}
}

func (k *call) bodyLimit() int64 {
	if k.req.BodyLimit > 0 {
		return k.req.BodyLimit
	}
	return maxCallBody
}

func (k *call) target() stream.Target { return stream.Target{M: &k.mon, To: k} }

func (k *call) start(t *stream.Turn) {
	ctx := cluster.Context{Headers: k.req.Headers}
	if d := k.req.Timeout; d > 0 {
		k.timer = time.AfterFunc(d, func() {
			stream.Do(func(t *stream.Turn) {
				k.mon.Post(t, 0, stream.Event{To: k, Kind: stream.EventTimer})
			})
		})
	}
	enc, f := k.cluster.NewStream(t, &ctx, k.target(), &k.attempt)
	switch {
	case f != nil:
		k.fail(t, f)
	case enc != nil:
		k.send(t, enc)
	}
}

func (k *call) send(t *stream.Turn, enc stream.Encoder) {
	k.enc = enc
	r := k.req
	enc.EncodeHeaders(t, r.Headers, len(r.Body) == 0 && r.Trailers == nil)
	if len(r.Body) > 0 {
		enc.EncodeData(t, r.Body, r.Trailers == nil)
	}
	if r.Trailers != nil {
		enc.EncodeTrailers(t, r.Trailers)
	}
}

func (k *call) ended(t *stream.Turn, end bool) {
	if end {
		k.end(t, true)
	}
}

// fail answers for an upstream that gave none, as Envoy's client does: 503 and its text.
func (k *call) fail(t *stream.Turn, f *stream.Fault) { k.synthesize(t, 503, resetText(f)) }

func (k *call) synthesize(t *stream.Turn, status int, body string) {
	h := new(header.Map)
	h.AddStatic(":status", strconv.Itoa(status))
	h.AddStatic("content-length", strconv.Itoa(len(body)))
	h.AddStatic("content-type", "text/plain")
	k.result = wasmhost.CallResult{Headers: h, Body: []byte(body)}
	k.end(t, true)
}

// end lets go of the upstream and tells the plugin, unless it has cancelled.
func (k *call) end(t *stream.Turn, tell bool) {
	k.release(t)
	if tell {
		t.Later(func(t *stream.Turn) { k.done(t, k.result) })
	}
}
