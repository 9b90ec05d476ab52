package filter

import (
	"context"
	"log/slog"

	"google.golang.org/protobuf/proto"

	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/wire"
)

// Drainer tells a connection that what it was accepted by is going away.
type Drainer interface {
	// Draining tells that the filter chain, the listener or the server drains; roll is a random number
	// that spreads the answer over the drain time (drain strategy gradual).
	Draining(roll uint64) bool
}

// NetworkTerminal is the last network filter of a filter chain: it has the connection for itself.
type NetworkTerminal interface {
	// Serve runs the connection until it ends, on the connection's own goroutine. The caller closes the
	// socket afterwards. d outlives the connection.
	Serve(t *stream.Turn, c *wire.Conn, info *stream.ConnInfo, d Drainer)
}

// Connection is what a network filter sees of the connection that it was made for: one of a listener,
// or, among the filters of a cluster, one to a host.
type Connection struct {
	// Wire is the connection. A filter may write to it in OnNewConnection, before anybody else does, and
	// close it at any time.
	Wire *wire.Conn
	// Info is the connection's record. A filter may write to its maps in OnNewConnection; afterwards
	// others read them.
	Info *stream.ConnInfo
	// Upstream says that it is a connection to a host.
	Upstream bool
	// Moved tells what the socket has read and written so far; nil where nobody counts.
	Moved func() (received, sent uint64)
}

// NetworkFactory makes the filter of one connection. It is immutable and shared by all connections.
type NetworkFactory interface {
	// NewNetworkFilter returns the filter, which implements some of wire.ReadTap, wire.WriteTap and the
	// interfaces below; nil leaves the filter out of this connection. The transport is ready: what was
	// negotiated is known.
	NewNetworkFilter(c *Connection) any
}

// NewConnection is called before anything is read or written, on the connection's goroutine, which it
// may keep waiting. false closes the connection.
type NewConnection interface {
	OnNewConnection(t *stream.Turn) bool
}

// UpstreamKnown is called once the terminal filter has found a host for the whole connection. The
// record holds only during the call.
type UpstreamKnown interface {
	OnUpstreamKnown(info *stream.Info)
}

// ConnectionEnd is called last, when nothing is read or written any more. The record holds only
// during the call; it is that of the connection as a whole.
type ConnectionEnd interface {
	OnConnectionEnd(info *stream.Info)
}

// Warmer is implemented by what a Compile returned if it has to be started before it can serve, such
// as a plugin. Warm blocks until then, or until ctx ends; its error rejects the configuration.
type Warmer interface {
	Warm(ctx context.Context) error
}

// Awaiter is implemented by what a Compile returned if it depends on other resources of a management
// server. Await subscribes to them and blocks until they are there, their initial_fetch_timeout has
// passed, or ctx ends. It comes after Warm.
type Awaiter interface {
	Await(ctx context.Context)
}

// Retirer is implemented by compiled objects that hold subscriptions; Retire lets go of them once no
// new connection can use the object.
type Retirer interface {
	Retire()
}

// NetworkContext is what compiling a network filter may use.
type NetworkContext struct {
	Path string
	Name string
	// Scope is the server's; ListenerScope that of the listener, "listener.ADDR.".
	Scope, ListenerScope *stats.Scope
	Log                  *slog.Logger
	BufferLimit          int
	Direction            int32
	ListenerName         string
}

// NetworkEntry is a network filter that the binary knows.
type NetworkEntry struct {
	Name   string
	Config proto.Message
	// Upstream says that the NetworkFactory may be among the filters of a cluster.
	Upstream bool
	// Compile turns the configuration into a NetworkTerminal, or into a NetworkFactory.
	Compile func(m proto.Message, c NetworkContext) (any, error)
}
