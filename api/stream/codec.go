package stream

import "sidecar/api/header"

// Encoder is the sending half of one codec stream: requests go out through an upstream one,
// responses through a downstream one. It is used inside the stream only. Nothing is kept of what it
// is handed: heads and data are encoded into the connection's output before it returns. Writing to
// a stream whose connection has gone does nothing; the end was posted.
type Encoder interface {
	// EncodeInterim sends a 1xx head.
	EncodeInterim(t *Turn, h *header.Map)
	// EncodeHeaders sends the head; end says that nothing follows.
	EncodeHeaders(t *Turn, h *header.Map, end bool)
	// EncodeData sends a part of the body.
	EncodeData(t *Turn, p []byte, end bool)
	// EncodeTrailers sends trailers and ends the stream.
	EncodeTrailers(t *Turn, h *header.Map)
	// Full tells that more than the high watermark waits to be sent. The source should stop, and
	// EventDrained is posted when the low watermark is reached.
	Full() bool
	// Pause stops (or restarts) the delivery of received data: back-pressure on the peer.
	Pause(t *Turn, paused bool)
	// Reset ends the stream before its time. No event comes after it.
	Reset(t *Turn, f *Fault)
	// Release says that the user has finished with the stream and holds nothing of it: maps it was
	// given are void. Called once, after both directions ended or after Reset.
	Release(t *Turn)
	// Protocol returns the version that the stream speaks; a server's is known once its head, or a
	// rejection, was posted.
	Protocol() Protocol
	// Traffic returns the bytes on the wire so far, as the codec counts them.
	Traffic() Traffic
}

// Traffic counts the bytes of one codec stream.
type Traffic struct {
	WireSent, WireReceived     uint64
	HeaderSent, HeaderReceived uint64
}

// ServerHandler is told of the requests that a server connection reads; the HTTP connection
// manager is one.
type ServerHandler interface {
	// NewStream is called on the reader when a request begins. Events go to the target.
	NewStream(t *Turn, enc Encoder) Target
	// OnGone is called once, on the reader, when the connection has ended and every stream was told.
	OnGone(t *Turn)
}

// Protocol is the HTTP version of a codec.
type Protocol uint8

// The protocols of a stream; the zero value is that of a TCP connection.
const (
	ProtocolNone Protocol = iota
	HTTP10
	HTTP11
	HTTP2
	HTTP3
)

// String returns the protocol as access logs and properties show it.
func (p Protocol) String() string {
	switch p {
	case HTTP10:
		return "HTTP/1.0"
	case HTTP11:
		return "HTTP/1.1"
	case HTTP2:
		return "HTTP/2"
	case HTTP3:
		return "HTTP/3"
	case ProtocolNone:
	}
	return ""
}
