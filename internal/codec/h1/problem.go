package h1

import (
	"errors"

	"sidecar/api/stream"
)

// problem is why a message is refused; the values below are all there are. Status and details are
// those of Envoy's codec.
type problem struct {
	status  int
	details string
	text    string // what was wrong, for logs
	flag    stream.Flag
}

const (
	codecError   = "http1.codec_error"
	invalidURL   = "http1.invalid_url"
	tooLarge     = 431
	badRequest   = 400
	notSupported = 501
)

func bad(details, text string) *problem {
	return &problem{status: badRequest, details: details, text: text, flag: stream.DownstreamProtocolError}
}

func refused(status int, details, text string) *problem {
	return &problem{status: status, details: details, text: text, flag: stream.DownstreamProtocolError}
}

var (
	errFirstByte     = bad(codecError, "first byte begins no message")
	errSpaces        = bad(codecError, "first line has white space where none belongs")
	errMethod        = bad(codecError, "method is not known")
	errTarget        = bad(codecError, "request target is malformed")
	errVersion       = bad(codecError, "version is malformed")
	errStatusCode    = bad(codecError, "status code is malformed")
	errName          = bad(codecError, "header name is malformed")
	errBareLF        = bad(codecError, "line ends in a bare LF")
	errBareCR        = bad(codecError, "line has a bare CR")
	errFolded        = bad(codecError, "header is folded")
	errLength        = bad(codecError, "content-length is malformed")
	errLengthTwice   = bad(codecError, "content-length is there twice")
	errChunkSize     = bad(codecError, "chunk size is malformed")
	errChunkTooBig   = bad(codecError, "chunk size overflows")
	errChunkExt      = bad(codecError, "chunk extension is malformed")
	errChunkExtLong  = bad(codecError, "chunk extensions are too long")
	errChunkEnd      = bad(codecError, "chunk does not end where it should")
	errCharacters    = bad("http1.invalid_characters", "head has characters that are not allowed")
	errUnderscore    = bad("http1.unexpected_underscore", "header name has an underscore")
	errURL           = bad(invalidURL, "request target is no valid URL")
	errScheme        = bad("http1.invalid_scheme", "scheme is neither http nor https")
	errAuthority     = bad("http.invalid_authority", "authority has characters that are not allowed")
	errConnection    = bad("http1.connection_header_rejected", "connection header names what it may not")
	errConnectBody   = bad("http1.body_disallowed", "CONNECT has a body")
	errBothLengths   = bad("http1.content_length_and_chunked_not_allowed", "both content-length and transfer-encoding")
	errNoLengthHere  = bad("http1.content_length_not_allowed", "content-length in a 1xx or 204 response")
	errNoChunksHere  = bad("http1.transfer_encoding_not_allowed", "transfer-encoding in a 1xx or 204 response")
	errCutShort      = bad(codecError, "connection ended within a message")
	errEncoding      = refused(notSupported, "http1.invalid_transfer_encoding", "transfer-encoding is not chunked")
	errHeadersSize   = refused(tooLarge, "http1.headers_too_large", "headers are too large")
	errHeadersCount  = refused(tooLarge, "http1.too_many_headers", "there are too many headers")
	errLowVersion    = refused(426, "low_version", "HTTP version is below 1.1")
	errInterim       = bad(codecError, "too many interim responses")
	errPrematureData = bad(codecError, "response without a request")
)

// rejected is the fault that a server posts: Envoy answers with the status's own phrase as the
// body.
func (p *problem) rejected() *stream.Fault {
	return &stream.Fault{
		Side: stream.Downstream, Flag: p.flag, Status: p.status, Body: reasonPhrase(p.status),
		Details: p.details, Close: true, Err: errors.New(p.text),
	}
}

// upstream is the fault that a client posts.
func (p *problem) upstream() *stream.Fault {
	return &stream.Fault{
		Side: stream.Upstream, Flag: stream.UpstreamProtocolError, Reason: stream.ReasonProtocolError,
		Details: p.details, Err: errors.New(p.text),
	}
}
