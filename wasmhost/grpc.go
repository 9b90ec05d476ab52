package wasmhost

import (
	"errors"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/task"
	"sidecar/wasmhost/abi"
)

// GRPCCaller makes gRPC requests for plugins: what the proxy's upstream half has to offer.
type GRPCCaller interface {
	// OpenGRPC starts a request. on is told of what comes, in order, one event at a time, with no stream
	// entered and not before OpenGRPC has returned; nothing comes after GRPCClosed, or after Cancel. An
	// error means that the request was not started.
	OpenGRPC(t *stream.Turn, r *GRPCRequest, on func(*stream.Turn, GRPCEvent)) (GRPCStream, error)
}

// GRPCRequest is a gRPC request that a plugin makes. The GRPCCaller owns it.
type GRPCRequest struct {
	Cluster, Authority, Service, Method string
	Metadata                            *header.Map
	// Message is sent at once and ends the sending half, unless the request is a stream.
	Message []byte
	Stream  bool
	Timeout time.Duration
	// Parent is the record of the stream that the call is made for; nil for the root context's calls, and
	// used before OpenGRPC returns only.
	Parent *stream.Info
}

// GRPCStream is a request on its way. Its methods may be called inside any stream and don't block.
type GRPCStream interface {
	// Send sends a message, which the stream owns from then on; nil with end only ends the sending half.
	Send(t *stream.Turn, message []byte, end bool)
	// Taken says that a message of n bytes has been used: beyond a limit that is not, the peer waits.
	Taken(t *stream.Turn, n int)
	Cancel(t *stream.Turn)
}

// GRPCKind is what a GRPCEvent tells.
type GRPCKind uint8

// The kinds.
const (
	GRPCInitial  GRPCKind = iota // Map
	GRPCMessage                  // Message
	GRPCTrailing                 // Map
	GRPCClosed                   // Status, Text: the last event
)

// GRPCEvent is what has come of a request. The receiver owns it.
type GRPCEvent struct {
	Kind    GRPCKind
	Map     *header.Map
	Message []byte
	Status  int
	Text    string
}

// Resolver looks names up for plugins.
type Resolver interface {
	// Resolve calls done once, on any goroutine and with no stream entered. It doesn't block.
	Resolve(name string, done func(t *stream.Turn, addrs []string, ttl time.Duration, ok bool))
}

// The low bits of a token tell the kinds of call-outs apart.
const (
	httpToken   = 0
	unaryToken  = 1
	streamToken = 2
	kindMask    = 3
)

var errTooMany = errors.New("too many call-outs are on their way")

// newCall enters a call-out of the context into the books; the token is not used before.
func (v *VM) newCall(from abi.Context, kind uint32, size int) (*callout, *stream.Info, error) {
	out := &callout{vm: v, size: size}
	var parent *stream.Info
	if o, ok := from.(Owner); ok {
		out.stream, parent = o.Stream(), o.Info()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.calls) >= maxCalls || v.callBytes+size > maxCallBytes {
		return nil, nil, errTooMany
	}
	v.callBytes += size
	v.token += kindMask + 1
	out.token = v.token | kind
	v.calls[out.token] = out
	return out, parent, nil
}

// dropCall takes a call-out out of the books. It holds mu.
func (v *VM) dropCall(c *callout) {
	delete(v.calls, c.token)
	v.callBytes -= c.size
}

// GRPCCall implements abi.GRPCCaller. The VM's owner is inside the guest.
func (v *VM) GRPCCall(c *abi.GRPCCall) (uint32, abi.Status) {
	calls := v.plugin.host.opts.GRPC
	if calls == nil || v.turn == nil {
		return 0, abi.InternalFailure
	}
	kind := uint32(unaryToken)
	if c.Stream {
		kind = streamToken
	}
	out, parent, err := v.newCall(c.From, kind, len(c.Message))
	if err != nil {
		return 0, abi.InternalFailure
	}
	g, err := calls.OpenGRPC(v.turn, &GRPCRequest{
		Cluster: c.Cluster, Authority: c.Authority, Service: c.Service, Method: c.Method,
		Metadata: mapOf(c.Metadata), Message: c.Message, Stream: c.Stream, Timeout: c.Timeout, Parent: parent,
	}, func(t *stream.Turn, e GRPCEvent) { v.grpcEvent(t, out, e) })
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		v.dropCall(out)
		return 0, abi.InternalFailure
	}
	out.grpc, out.cancel = g, g.Cancel
	return out.token, abi.OK
}

// grpcOf finds a gRPC call-out that the guest names; drop takes it out of the books.
func (v *VM) grpcOf(token uint32, drop bool) (*callout, abi.Status) {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.calls[token]
	if c == nil || c.grpc == nil {
		return nil, abi.NotFound
	}
	if drop {
		v.dropCall(c)
		c.cancelled = true
	}
	return c, abi.OK
}

// GRPCSend implements abi.GRPCCaller.
func (v *VM) GRPCSend(token uint32, message []byte, end bool) abi.Status {
	if token&kindMask != streamToken {
		return abi.BadArgument
	}
	c, s := v.grpcOf(token, false)
	if s == abi.OK {
		c.grpc.Send(v.turn, message, end)
	}
	return s
}

// GRPCClose implements abi.GRPCCaller: a call is cancelled, a stream is half closed and stays known
// until the peer has closed it too.
func (v *VM) GRPCClose(token uint32) abi.Status {
	if token&kindMask != streamToken {
		return v.GRPCCancel(token)
	}
	c, s := v.grpcOf(token, false)
	if s != abi.OK {
		return s
	}
	v.mu.Lock()
	c.localClosed = true
	if c.remoteClosed {
		v.dropCall(c)
	}
	v.mu.Unlock()
	c.grpc.Send(v.turn, nil, true)
	return abi.OK
}

// GRPCCancel implements abi.GRPCCaller.
func (v *VM) GRPCCancel(token uint32) abi.Status {
	if token&kindMask == httpToken {
		return abi.NotFound
	}
	c, s := v.grpcOf(token, true)
	if s == abi.OK {
		c.grpc.Cancel(v.turn)
	}
	return s
}

// grpcEvent brings what has come to the stream that asked, or to the root when there is none. Of a
// call, the guest hears of its one message or of its failure.
func (v *VM) grpcEvent(t *stream.Turn, c *callout, e GRPCEvent) {
	v.mu.Lock()
	if v.calls[c.token] != c {
		v.mu.Unlock()
		return // Cancelled, or the VM has failed.
	}
	if c.token&kindMask == unaryToken {
		switch {
		case e.Kind == GRPCMessage:
			c.reply = e.Message
			if c.reply == nil {
				c.reply = []byte{}
			}
			v.mu.Unlock()
			return
		case e.Kind != GRPCClosed:
			v.mu.Unlock()
			return
		case e.Status == 0 && c.reply != nil:
			e = GRPCEvent{Kind: GRPCMessage, Message: c.reply}
		case e.Status == 0:
			e.Status = 13
		}
		v.dropCall(c)
	} else if e.Kind == GRPCClosed {
		c.remoteClosed = true
		if c.localClosed {
			v.dropCall(c)
		}
	}
	v.mu.Unlock()
	a := answer{token: c.token, call: c, grpc: &e}
	if c.stream == nil || !c.stream.deliver(t, a) {
		v.answerRoot(t, a)
	}
}

// answerGRPC runs the callback of an event.
func (v *VM) answerGRPC(c abi.Context, a answer) error {
	v.mu.Lock()
	gone := a.call.cancelled
	v.mu.Unlock()
	if gone {
		return nil
	}
	switch e := a.grpc; e.Kind {
	case GRPCInitial, GRPCTrailing:
		return v.abi.GRPCMetadata(c, rootContext, a.token, e.Kind == GRPCTrailing, e.Map)
	case GRPCMessage:
		err := v.abi.GRPCReceive(c, rootContext, a.token, e.Message)
		a.call.grpc.Taken(v.turn, len(e.Message))
		return err
	default:
		v.outcome = outcome{uint32(e.Status), e.Text}
		err := v.abi.GRPCClosed(c, rootContext, a.token, e.Status)
		v.outcome = outcome{}
		return err
	}
}

// ResolveDNS implements abi.Caller.
func (v *VM) ResolveDNS(name string) (uint32, abi.Status) {
	r := v.plugin.host.opts.Resolver
	if r == nil {
		return 0, abi.InternalFailure
	}
	out, _, err := v.newCall(nil, httpToken, len(name))
	if err != nil {
		return 0, abi.InternalFailure
	}
	task.Go("wasm dns", func() {
		r.Resolve(name, func(t *stream.Turn, addrs []string, ttl time.Duration, ok bool) {
			v.mu.Lock()
			_, waits := v.calls[out.token]
			if waits {
				v.dropCall(out)
			}
			v.mu.Unlock()
			if !waits {
				return
			}
			var block []byte
			if ok {
				block = dnsBlock(addrs, ttl)
			}
			v.must(t, func() error { return v.abi.DNSResolved(&v.root, rootContext, out.token, block) })
		})
	}, v.plugin.host.panicked)
	return out.token, abi.OK
}
