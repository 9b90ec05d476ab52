package filter

import (
	"net"

	"google.golang.org/protobuf/proto"

	"sidecar/api/stats"
	"sidecar/api/stream"
)

// Verdict is what a listener filter says of what it has seen.
type Verdict uint8

// The verdicts.
const (
	More   Verdict = iota // wants to see more bytes
	Next                  // has seen enough: the next filter's turn
	Reject                // the connection is closed
)

// ListenerFilter looks at a connection before its filter chain is known. It is shared by all
// connections and keeps nothing of them but what it writes to their ConnInfo. Its methods run on the
// connection's goroutine and must not block.
type ListenerFilter interface {
	// OnAccept is called first. more asks for Inspect.
	OnAccept(nc net.Conn, info *stream.ConnInfo) (more bool)
	// Inspect is shown all that the client has sent so far, which holds only during the call. The bytes
	// stay in the socket, but the first consume of them are taken out with the verdict Next. A client
	// that ends before there is a verdict is closed. After More it is called again with more bytes, so
	// a filter bounds what it asks for: beyond MaxInspect the connection is closed.
	Inspect(p []byte, info *stream.ConnInfo) (consume int, v Verdict)
}

// MaxInspect is how many bytes listener filters may look at: the largest PROXY protocol header.
const MaxInspect = 16 + 65535

// ListenerContext is what compiling a listener filter may use.
type ListenerContext struct {
	// Scope is the server's: the stats of listener filters are shared by all listeners.
	Scope *stats.Scope
}

// ListenerEntry is a listener filter that the binary knows.
type ListenerEntry struct {
	// Name is Envoy's canonical name.
	Name string
	// Config is an empty message of the filter's configuration type.
	Config proto.Message
	// Compile turns the configuration, which has passed its own constraints, into a filter.
	Compile func(m proto.Message, c ListenerContext) (ListenerFilter, error)
}
