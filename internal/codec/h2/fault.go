package h2

import (
	"errors"

	"sidecar/api/stream"
)

// Details of Envoy's codec (Http2ResponseCodeDetails).
const (
	messagingRule  = "http2.violation.of.messaging.rule"
	invalidField   = "http2.invalid.header.field"
	tooManyHeaders = "http2.too_many_headers"
	underscore     = "http2.unexpected_underscore"
	unknownError   = "http2.unknown.nghttp2.error"
	remoteReset    = "http2.remote_reset"
	remoteRefuse   = "http2.remote_refuse"
)

// codecError is of the streams of a connection that ends for what was wrong elsewhere on it: Envoy's
// words for what its library was told.
const codecError = "codec_error:The_user_callback_function_failed"

// protocolFault is that of a stream whose peer broke the protocol.
func (c *conn) protocolFault(details string) *stream.Fault {
	f := &stream.Fault{
		Side: stream.Downstream, Flag: stream.DownstreamProtocolError, Details: details,
		Reason: stream.ReasonProtocolError, Err: errors.New(details),
	}
	if c.client != nil {
		f.Side, f.Flag = stream.Upstream, stream.UpstreamProtocolError
	}
	return f
}

// resetFault is that of a stream which the peer has reset.
func (c *conn) resetFault(why code) *stream.Fault {
	if c.server != nil {
		f := &stream.Fault{
			Side: stream.Downstream, Flag: stream.DownstreamRemoteReset, Details: remoteReset,
			Reason: stream.ReasonRemoteReset,
		}
		switch why {
		case codeRefused:
			f.Details, f.Reason = remoteRefuse, stream.ReasonRemoteRefusedStream
		case codeProtocol:
			f.Flag, f.Reason = stream.DownstreamProtocolError, stream.ReasonProtocolError
		default: // the others mean no more than that
		}
		return f
	}
	f := &stream.Fault{Side: stream.Upstream, Flag: stream.UpstreamRemoteReset, Reason: stream.ReasonRemoteReset}
	switch why {
	case codeRefused:
		f.Reason = stream.ReasonRemoteRefusedStream
	case codeConnect:
		f.Reason = stream.ReasonConnectError
	case codeProtocol:
		f.Reason, f.Flag = stream.ReasonProtocolError, stream.UpstreamProtocolError
	default: // the others mean no more than that
	}
	return f
}

// unseenFault is that of a stream which the peer says it did not look at (GOAWAY), or could not: it is
// safe to repeat.
func (c *conn) unseenFault() *stream.Fault {
	f := c.resetFault(codeRefused)
	f.Reused = true
	return f
}

// goneFault is that of streams whose connection has ended.
func (c *conn) goneFault() *stream.Fault {
	if c.server != nil {
		f := &stream.Fault{
			Side: stream.Downstream, Flag: stream.DownstreamConnectionTermination,
			Details: "downstream_remote_disconnect", Reason: stream.ReasonConnectionTermination, Close: true,
		}
		if c.local.Load() {
			f.Details = "downstream_local_disconnect"
		}
		return f
	}
	f := &stream.Fault{
		Side: stream.Upstream, Flag: stream.UpstreamConnectionTermination,
		Reason: stream.ReasonConnectionTermination,
	}
	if c.local.Load() {
		f.Flag, f.Reason = stream.LocalReset, stream.ReasonLocalReset
	}
	return f
}

// localFault is that of a stream whose own side was wrong.
func (c *conn) localFault() *stream.Fault {
	f := &stream.Fault{
		Side: stream.Downstream, Flag: stream.LocalReset, Reason: stream.ReasonLocalReset,
		Details: "http2.body_length_mismatch",
	}
	if c.client != nil {
		f.Side = stream.Upstream
	}
	return f
}
