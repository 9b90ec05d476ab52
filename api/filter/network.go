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
	// Compile turns the configuration into a NetworkTerminal.
	Compile func(m proto.Message, c NetworkContext) (any, error)
}
