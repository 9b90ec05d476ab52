package h1

import (
	"strconv"

	"sidecar/api/header"
	"sidecar/internal/buf"
)

// framing is how the body of a message that is being sent is delimited.
type framing uint8

const (
	frameNone    framing = iota // no body: what is given is dropped
	frameLength                 // as many bytes as Content-Length says
	frameChunked                //
	frameClose                  // until the connection ends: HTTP/1.0 clients
	frameRaw                    // the connection is a tunnel
)

// bodyWriter encodes the body of one message and keeps it to what its head announced.
type bodyWriter struct {
	frame framing
	left  uint64 // of frameLength
	// broken is set when there was more than was announced, or less: the peer would take what comes
	// next for the rest of this message, so the connection must end.
	broken bool
}

func (w *bodyWriter) begin(p plan) { *w = bodyWriter{frame: p.frame, left: p.left} }

// data appends a part of the body.
func (w *bodyWriter) data(out *buf.Chain, p []byte) {
	if len(p) == 0 {
		return
	}
	switch w.frame {
	case frameNone:
		return
	case frameLength:
		if uint64(len(p)) > w.left {
			p = p[:w.left]
			w.broken = true
		}
		w.left -= uint64(len(p))
		out.Append(p)
	case frameChunked:
		chunkHead(out, len(p))
		out.Append(p)
		out.AppendString("\r\n")
	case frameClose, frameRaw:
		out.Append(p)
	}
}

func chunkHead(out *buf.Chain, n int) {
	const most = 18 // sixteen digits and the line end
	tail := out.Tail(most)
	out.Extend(len(append(strconv.AppendUint(tail[:0], uint64(n), 16), "\r\n"...)))
}

// end finishes the body, with trailers if there are any and the framing can have them.
func (w *bodyWriter) end(out *buf.Chain, o *Options, trailers *header.Map) {
	if w.left > 0 {
		w.broken = true
	}
	if w.frame != frameChunked {
		return
	}
	if trailers == nil || !o.EnableTrailers || trailers.Len() == 0 {
		out.AppendString("0\r\n\r\n")
		return
	}
	out.AppendString("0\r\n")
	e := newHeadWriter(out, o, trailers)
	e.trailers(trailers)
	if e.dirty() {
		e.restart()
		e.trailers(trailers)
	}
	e.flush(out)
}

func (e *headWriter) trailers(m *header.Map) {
	e.fields(m, plan{})
	e.out = append(e.out, "\r\n"...)
	e.lines++
}
