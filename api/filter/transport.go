package filter

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/wire"
)

// DownstreamTransport is the compiled transport socket of a filter chain. It is shared by all
// connections of the chain. It may also be a Warmer, an Awaiter and a Retirer.
type DownstreamTransport interface {
	// Accept makes the connection's transport ready on the connection's own goroutine, and blocks until
	// that is done, has failed, or ctx ends. From then on w carries what the peer's application sends,
	// and info tells of the session. An error closes the connection; info has its text.
	Accept(ctx context.Context, w *wire.Conn, info *stream.ConnInfo) error
}

// UpstreamTransport is the compiled transport socket of a cluster, or of one of its
// transport_socket_matches. It may also be a Warmer, an Awaiter and a Retirer.
type UpstreamTransport interface {
	// Connect makes the transport of a connected socket ready, on the goroutine that dialed, and blocks
	// until that is done, has failed, or ctx ends. The session is nil on plaintext.
	Connect(ctx context.Context, w *wire.Conn, o *ConnectOptions) (*stream.TLSInfo, *TransportError)
	// Ready tells whether a connection may be tried; false while a secret has not come, in which case
	// there is no connection but a fault (secret_not_ready).
	Ready() bool
}

// ConnectOptions are what one connection asks of its transport beyond the configuration. They are
// part of what a pool's connections have in common.
type ConnectOptions struct {
	// ServerName, if not "", takes the place of the configured SNI (auto_sni).
	ServerName string
	// SANs, if there are any, take the place of the configured subject alternative names
	// (auto_san_validation): the peer's certificate must have one of them.
	SANs []string
	// ALPN, if there are any, take the place of the configured application protocols; Fallback are
	// offered when neither has any.
	ALPN, FallbackALPN []string
	// HostName is the endpoint's hostname (auto_host_sni), HostMetadata its filter_metadata.
	HostName     string
	HostMetadata map[string]map[string]any
	// Client is who the connection is made for, nil if that may be anybody. It is set for a
	// ClientTransport alone.
	Client *Client
}

// Client is a downstream connection as an upstream one may tell of it (PROXY protocol).
type Client struct {
	// Remote is the client, Local where it connected to.
	Remote, Local stream.Addr
	// TLVs came with the PROXY header that the client's connection began with.
	TLVs []stream.ProxyTLV
}

// ClientTransport is an UpstreamTransport that tells the host of the client, so that clients which it
// tells apart have connections of their own.
type ClientTransport interface {
	UpstreamTransport
	// AppendClientKey appends what it tells of a client to the key of a pool.
	AppendClientKey(key []byte, c *Client) []byte
}

// TransportError is why a transport could not be made ready.
type TransportError struct {
	Err error
	// Transport is Envoy's text, as UPSTREAM_TRANSPORT_FAILURE_REASON shows it.
	Transport string
	// Timeout says that ctx ended first.
	Timeout bool
	// Remote says that the peer ended the attempt.
	Remote bool
}

// Error describes the failure.
func (e *TransportError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *TransportError) Unwrap() error { return e.Err }

// TransportContext is what compiling a transport socket may use.
type TransportContext struct {
	Path string
	// Scope returns that of the owner: "listener.ADDR." or "cluster.NAME.". It is asked when something
	// is counted for the first time, since the stats of a cluster are stored once used.
	Scope func() *stats.Scope
	// Server is the scope of the process.
	Server *stats.Scope
	Log    *slog.Logger
	// ServerNames are those of the filter chain's match; for a listener's transport alone.
	ServerNames []string
}

// TransportEntry is a transport socket that the binary knows.
type TransportEntry struct {
	Name   string
	Config proto.Message
	// Compile turns the configuration into a DownstreamTransport or an UpstreamTransport, by the type of
	// its configuration.
	Compile func(m proto.Message, c TransportContext) (any, error)
}

// DefaultTransportTimeout bounds a downstream handshake without transport_socket_connect_timeout; 0
// is none, as in Envoy.
const DefaultTransportTimeout time.Duration = 0
