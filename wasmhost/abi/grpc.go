package abi

import (
	"bytes"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/header"
)

// GRPCCaller makes gRPC call-outs.
type GRPCCaller interface {
	// GRPCCall starts a call or a stream; what comes is told by callbacks with the token. It owns c.
	GRPCCall(c *GRPCCall) (token uint32, s Status)
	// GRPCSend sends a message on a stream and may end the sending half. It owns the message.
	GRPCSend(token uint32, message []byte, end bool) Status
	// GRPCClose ends the sending half of a stream, and cancels a call.
	GRPCClose(token uint32) Status
	GRPCCancel(token uint32) Status
}

// GRPCCall is a gRPC request that a plugin makes.
type GRPCCall struct {
	Cluster, Authority, Service, Method string
	Metadata                            [][2]string
	Message                             []byte // of a call
	Stream                              bool
	Timeout                             time.Duration // of a call; 0 is none
	// From is the stream context in whose callback the call was made; nil for the root.
	From Context
}

// received is what has come of a gRPC call, readable while its callback runs.
type received struct {
	initial, trailing *header.Map
	message           []byte
}

// target reads what names the service: a GrpcService message, else a cluster's name.
func (c call) target(i int, out *GRPCCall) (Status, bool) {
	service, ok := c.bytes(i)
	if !ok {
		return InvalidMemoryAccess, false
	}
	var g corev3.GrpcService
	if proto.Unmarshal(service, &g) == nil && g.GetTargetSpecifier() != nil {
		e := g.GetEnvoyGrpc()
		if e == nil {
			c.vm.warnOnce("gRPC call-outs: google_grpc is not supported")
			return BadArgument, false
		}
		out.Cluster, out.Authority = e.GetClusterName(), e.GetAuthority()
		for _, h := range g.GetInitialMetadata() {
			out.Metadata = append(out.Metadata, [2]string{lower(h.GetKey()), h.GetValue()})
		}
		if !c.vm.Host.HasCluster(out.Cluster) {
			return InternalFailure, false // Envoy looks for it when it sends.
		}
		return OK, true
	}
	out.Cluster = string(service)
	if !c.vm.Host.HasCluster(out.Cluster) {
		return ParseFailure, false
	}
	return OK, true
}

// start reads what calls and streams have in common, and starts out. place is the token's.
func (c call) start(out *GRPCCall, place int) (Status, error) {
	if s, ok := c.target(0, out); !ok {
		return s, nil
	}
	service, ok1 := c.bytes(2)
	method, ok2 := c.bytes(4)
	metadata, ok3 := c.text(6)
	_, ok4 := c.vm.in.Bytes(c.a.U32(place), 4)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return InvalidMemoryAccess, nil
	}
	pairs, err := clonePairs(metadata)
	if err != nil {
		return BadArgument, nil //nolint:nilerr // the status tells the guest
	}
	out.Service, out.Method, out.From = string(service), string(method), c.vm.effective
	out.Metadata = append(out.Metadata, pairs...)
	token, s := c.vm.Host.GRPCCall(out)
	if s != OK {
		return s, nil
	}
	return c.word(place, token)
}

func grpcCall(c call) (Status, error) {
	message, ok := c.bytes(8)
	if !ok {
		return InvalidMemoryAccess, nil
	}
	timeout := time.Duration(c.a.U32(10)) * time.Millisecond
	return c.start(&GRPCCall{Message: bytes.Clone(message), Timeout: timeout}, 11)
}

func grpcStream(c call) (Status, error) { return c.start(&GRPCCall{Stream: true}, 8) }

func grpcSend(c call) (Status, error) {
	message, ok := c.bytes(1)
	if !ok {
		return InvalidMemoryAccess, nil
	}
	return c.vm.Host.GRPCSend(c.a.U32(0), append([]byte{}, message...), c.a.U32(3) != 0), nil
}

func grpcClose(c call) (Status, error) { return c.vm.Host.GRPCClose(c.a.U32(0)), nil }

func grpcCancel(c call) (Status, error) { return c.vm.Host.GRPCCancel(c.a.U32(0)), nil }

// GRPCMetadata runs on_grpc_receive_initial_metadata, or that of trailing metadata, on the root's id.
func (v *VM) GRPCMetadata(current Context, root, token uint32, trailing bool, m *header.Map) error {
	cb := cbGRPCInitialMetadata
	if trailing {
		cb = cbGRPCTrailingMetadata
		v.received.trailing = m
	} else {
		v.received.initial = m
	}
	err := v.notify(cb, current, uint64(root), uint64(token), uint64(m.Len()))
	v.received = received{}
	return err
}

// GRPCReceive runs on_grpc_receive with a message.
func (v *VM) GRPCReceive(current Context, root, token uint32, message []byte) error {
	v.received.message = message
	err := v.notify(cbGRPCReceive, current, uint64(root), uint64(token), uint64(len(message)))
	v.received = received{}
	return err
}

// GRPCClosed runs on_grpc_close with the status.
func (v *VM) GRPCClosed(current Context, root, token uint32, status int) error {
	return v.notify(cbGRPCClose, current, uint64(root), uint64(token), uint64(uint32(status)))
}

// resolveDNS is Envoy's own: the answer comes with envoy_on_resolve_dns.
func resolveDNS(c call) (Status, error) {
	name, ok := c.bytes(0)
	if !ok {
		return InvalidMemoryAccess, nil
	}
	if _, ok := c.vm.in.Bytes(c.a.U32(2), 4); !ok {
		return InvalidMemoryAccess, nil
	}
	token, s := c.vm.Host.ResolveDNS(string(name))
	if s != OK {
		return s, nil
	}
	return c.word(2, token)
}

// DNSResolved runs envoy_on_resolve_dns while the answer is in the buffer of call data: a count, the
// times to live, then each address with a NUL.
func (v *VM) DNSResolved(c Context, root, token uint32, answer []byte) error {
	v.callData = answer
	err := v.notify(cbResolveDNS, c, uint64(root), uint64(token), uint64(len(answer)))
	v.callData = nil
	return err
}

// StatsUpdate runs envoy_on_stats_update while the block of stats is in the buffer of call data.
func (v *VM) StatsUpdate(c Context, root uint32, block []byte) error {
	v.callData = block
	err := v.notify(cbStatsUpdate, c, uint64(root), uint64(len(block)))
	v.callData = nil
	return err
}
