package h2

import (
	"time"

	"sidecar/api/stats"
	"sidecar/internal/config/protocol"
)

// Options are what both ends of the codec take. They are shared by connections and never change.
type Options struct {
	protocol.HTTP2
	// MaxHeadersBytes bounds the names and values of a head or of trailers; 0 is Envoy's default.
	MaxHeadersBytes int
	// MaxHeaders bounds the number of fields; 0 is 100.
	MaxHeaders int
	// Stats are counted if not nil.
	Stats *Stats
	// FlushTimeout bounds how long what is left of a finished stream waits for the peer's window; 0 is
	// for ever.
	FlushTimeout time.Duration
}

// ServerOptions are those of a downstream connection.
type ServerOptions struct {
	Options
	// RejectUnderscores refuses requests with an underscore in a header's name, DropUnderscores
	// drops the header.
	RejectUnderscores, DropUnderscores bool
	// Proxy100Continue leaves Expect: 100-continue to the upstream.
	Proxy100Continue bool
	// DelayedCloseTimeout is how long a connection that we close waits for the client to read the rest.
	DelayedCloseTimeout time.Duration
	// DelayedCloseExpired is counted if not nil (downstream_cx_delayed_close_timeout).
	DelayedCloseExpired *stats.Counter
	// ProtocolError is counted, if not nil, when a connection ends for what the client sent.
	ProtocolError *stats.Counter
}

// ClientOptions are those of an upstream connection.
type ClientOptions struct{ Options }

const (
	defaultRequestHeaders  = 60 << 10
	defaultResponseHeaders = 80 << 10
	defaultMaxHeaders      = 100
)

func (o *Options) withDefaults(client bool) *Options {
	c := *o
	if c.MaxHeadersBytes == 0 {
		c.MaxHeadersBytes = defaultRequestHeaders
		if client {
			c.MaxHeadersBytes = defaultResponseHeaders
		}
	}
	if c.MaxHeaders == 0 {
		c.MaxHeaders = defaultMaxHeaders
	}
	if c.StreamWindow == 0 {
		d := protocol.DefaultHTTP2()
		d.AllowConnect = c.AllowConnect
		c.HTTP2 = d
	}
	if c.Stats == nil {
		c.Stats = new(Stats)
	}
	return &c
}

// Stats are those of the codec, "http2." of a listener's or a cluster's scope (Envoy:
// Http2::CodecStats).
type Stats struct {
	DroppedUnderscores    stats.Counter `stat:"dropped_headers_with_underscores"`
	GoAwaySent            stats.Counter `stat:"goaway_sent"`
	HeaderOverflow        stats.Counter `stat:"header_overflow"`
	HeaderListSize        stats.Counter `stat:"header_list_size_too_large"`
	HeadersNoStream       stats.Counter `stat:"headers_cb_no_stream"`
	EmptyFramesFlood      stats.Counter `stat:"inbound_empty_frames_flood"`
	PriorityFlood         stats.Counter `stat:"inbound_priority_frames_flood"`
	WindowUpdateFlood     stats.Counter `stat:"inbound_window_update_frames_flood"`
	KeepaliveTimeout      stats.Counter `stat:"keepalive_timeout"`
	MetadataEmptyFrames   stats.Counter `stat:"metadata_empty_frames"`
	OutboundControlFlood  stats.Counter `stat:"outbound_control_flood"`
	OutboundControlActive stats.Gauge   `stat:"outbound_control_frames_active"`
	OutboundFlood         stats.Counter `stat:"outbound_flood"`
	OutboundActive        stats.Gauge   `stat:"outbound_frames_active"`
	PendingSendBytes      stats.Gauge   `stat:"pending_send_bytes"`
	RejectedUnderscores   stats.Counter `stat:"requests_rejected_with_underscores_in_headers"`
	RxMessagingError      stats.Counter `stat:"rx_messaging_error"`
	RxReset               stats.Counter `stat:"rx_reset"`
	StreamRefused         stats.Counter `stat:"stream_refused_errors"`
	StreamsActive         stats.Gauge   `stat:"streams_active"`
	Trailers              stats.Counter `stat:"trailers"`
	TxFlushTimeout        stats.Counter `stat:"tx_flush_timeout"`
	TxReset               stats.Counter `stat:"tx_reset"`
	DeferredStreamClose   stats.Gauge   `stat:"deferred_stream_close"`
	Upstreams             stats.Counter `stat:"nghttp2_upstream_connections"`
	Downstreams           stats.Counter `stat:"nghttp2_downstream_connections"`
}
