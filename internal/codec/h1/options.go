package h1

import (
	"time"

	"sidecar/api/stats"
)

// Options are what both ends of the codec take. They are shared by connections and never change.
type Options struct {
	// MaxHeadersBytes bounds a head, line ends included, and trailers; 0 is Envoy's default for the
	// end: 60 KiB for requests, 80 KiB for responses.
	MaxHeadersBytes int
	// MaxHeaders bounds the number of fields; 0 is 100.
	MaxHeaders int
	// EnableTrailers delivers and sends trailers, which are dropped otherwise.
	EnableTrailers bool
	// AllowChunkedLength takes messages with both Transfer-Encoding: chunked and Content-Length,
	// and drops the latter (allow_chunked_length).
	AllowChunkedLength bool
	// ProperCase sends names as Proper-Case, PreserveCase as they came in.
	ProperCase, PreserveCase bool
	// Strict refuses what Envoy takes though RFC 9112 does not allow it: bare LF, CR within a line,
	// obs-fold, more than one space in the first line, bytes between a chunk and its line end,
	// chunk extensions that do not begin with a semicolon.
	Strict bool
}

const (
	defaultRequestHeaders  = 60 << 10
	defaultResponseHeaders = 80 << 10
	defaultMaxHeaders      = 100
	defaultDelayedClose    = time.Second
)

// ServerOptions are those of a downstream connection. The zero value is not ready: use
// DefaultServerOptions.
type ServerOptions struct {
	Options
	// AllowAbsoluteURL takes absolute-form targets; without, they are paths like others.
	AllowAbsoluteURL bool
	// AcceptHTTP10 serves versions other than 1.1, as HTTP/1.0.
	AcceptHTTP10 bool
	// DefaultHost is the authority of an HTTP/1.0 request without Host (default_host_for_http_10).
	DefaultHost string
	// AllowCustomMethods takes any token as a method.
	AllowCustomMethods bool
	// RejectUnderscores refuses requests with an underscore in a header's name, DropUnderscores
	// drops the header.
	RejectUnderscores, DropUnderscores bool
	// IgnoreUpgrade, if not nil, tells the values of Upgrade that are taken out of requests.
	IgnoreUpgrade func(value string) bool
	// Proxy100Continue leaves Expect: 100-continue to the upstream.
	Proxy100Continue bool
	// DelayedCloseTimeout is how long a connection that we close stays half open for the client to
	// read the last answer; 0 closes at once.
	DelayedCloseTimeout time.Duration

	// Counted if not nil.
	DelayedCloseExpired *stats.Counter // downstream_cx_delayed_close_timeout
	DroppedUnderscores  *stats.Counter // dropped_headers_with_underscores
	RejectedUnderscores *stats.Counter // requests_rejected_with_underscores_in_headers
}

// DefaultServerOptions are Envoy's.
func DefaultServerOptions() *ServerOptions {
	return &ServerOptions{AllowAbsoluteURL: true, DelayedCloseTimeout: defaultDelayedClose}
}

// ClientOptions are those of an upstream connection; the zero value is valid.
type ClientOptions struct {
	Options
}
