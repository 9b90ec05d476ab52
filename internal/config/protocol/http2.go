// Package protocol compiles the options of HTTP versions that listeners and clusters have in common.
package protocol

import "time"

// HTTP2 are the options of HTTP/2 connections (Http2ProtocolOptions), with Envoy's defaults in
// DefaultHTTP2. They never change once compiled.
type HTTP2 struct {
	TableSize            uint32 // hpack_table_size
	MaxConcurrentStreams uint32
	StreamWindow         uint32 // initial_stream_window_size
	ConnectionWindow     uint32 // initial_connection_window_size
	AllowConnect         bool
	MaxOutbound          uint32 // max_outbound_frames
	MaxOutboundControl   uint32 // max_outbound_control_frames
	// MaxEmptyFrames bounds consecutive inbound frames with empty payload.
	MaxEmptyFrames uint32
	// MaxPriorityPerStream and MaxWindowUpdatePerData bound the inbound PRIORITY and WINDOW_UPDATE
	// frames, as Envoy does: the former for each opened stream, the latter for each DATA frame sent.
	MaxPriorityPerStream   uint32
	MaxWindowUpdatePerData uint32
	// StreamErrorOnInvalid resets a stream whose messaging is invalid instead of the connection.
	StreamErrorOnInvalid bool
	// ResetBurst and ResetRate (a second) bound the streams that a client may reset early.
	ResetBurst, ResetRate uint64
	// MaxFieldSize of one header field in bytes; 0 is the limit of the whole head.
	MaxFieldSize uint32
	// HuffmanOff sends strings as they are.
	HuffmanOff bool
	// RejectObsText refuses header values with bytes of 0x80 and above.
	RejectObsText bool
	Keepalive     Keepalive
}

// Keepalive are the PINGs of a connection (KeepaliveSettings).
type Keepalive struct {
	Interval, Timeout time.Duration // 0: none
	// Jitter is a percentage of Interval.
	Jitter float64
	// Idle is how long a client's connection may have been silent before a new stream is preceded by a
	// PING; 0: any time.
	Idle time.Duration
}

// DefaultHTTP2 are Envoy 1.40's values.
func DefaultHTTP2() HTTP2 {
	return HTTP2{
		TableSize: 4096, MaxConcurrentStreams: 1024, StreamWindow: 16 << 20, ConnectionWindow: 24 << 20,
		MaxOutbound: 10000, MaxOutboundControl: 1000, MaxEmptyFrames: 1,
		MaxPriorityPerStream: 100, MaxWindowUpdatePerData: 10, ResetBurst: 1000, ResetRate: 33,
		Keepalive: Keepalive{Jitter: 15},
	}
}
