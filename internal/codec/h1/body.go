package h1

import (
	"bytes"

	"sidecar/api/header"
	"sidecar/internal/buf"
)

type bodyState uint8

const (
	bodyDone bodyState = iota
	bodyLength
	bodyUntilClose // and of a tunnel
	chunkSize
	chunkExtension
	chunkData
	chunkEnd
	lastChunkEnd
	trailerLines
)

// maxChunkExtensions bounds the extensions of one message, which nobody uses and which would
// otherwise be free work for us.
//
// DIVERGES(chunk-extensions): Envoy takes any amount.
const maxChunkExtensions = 16 << 10

// bodyReader decodes the body of one message.
type bodyReader struct {
	opt    *Options
	server *ServerOptions // of a request
	max    int            // of trailers

	state      bodyState
	left       uint64 // of the body, or of the chunk
	digits     bool   // the chunk size has begun
	cr         bool   // the byte before was a CR
	semicolon  bool
	extensions int
	term       uint32 // the last line-end bytes seen, newest lowest
	trailer    buf.Buffer
	hasTrailer bool
}

// begin prepares for the body that follows h.
func (b *bodyReader) begin(h *head, response bool) {
	b.digits, b.cr, b.semicolon, b.extensions, b.hasTrailer = false, false, false, 0, false
	b.trailer.Reset()
	b.left = 0
	switch {
	case h.upgrade:
		b.state = bodyUntilClose
	case response && h.bodiless():
		b.state = bodyDone
	case h.chunked:
		b.state = chunkSize
	case h.hasLength:
		if b.state, b.left = bodyLength, h.length; h.length == 0 {
			b.state = bodyDone
		}
	case response:
		b.state = bodyUntilClose
	default:
		b.state = bodyDone
	}
}

func (b *bodyReader) done() bool { return b.state == bodyDone }

// read takes body bytes from in: n is how many bytes of in are used up, data what they hold, in one
// piece (chunks are moved together in place). It stops at the end of the message. Trailers are in m
// then, if it is not nil and hasTrailer is set.
func (b *bodyReader) read(in []byte, m *header.Map) (n int, data []byte, err *problem) {
	switch b.state {
	case bodyDone:
		return 0, nil, nil
	case bodyUntilClose:
		return len(in), in, nil
	case bodyLength:
		n = len(in)
		if uint64(n) >= b.left {
			n = int(b.left)
			b.state = bodyDone
		}
		b.left -= uint64(n)
		return n, in[:n], nil
	default:
		return b.readChunked(in, m)
	}
}

func (b *bodyReader) readChunked(in []byte, m *header.Map) (n int, data []byte, err *problem) {
	first, end := -1, 0
	for n < len(in) && b.state != bodyDone && err == nil {
		switch b.state {
		case chunkData:
			k := len(in) - n
			if uint64(k) >= b.left {
				k = int(b.left)
				b.state, b.cr = chunkEnd, false
			}
			b.left -= uint64(k)
			if first < 0 {
				first, end = n, n
			}
			if end != n {
				copy(in[end:], in[n:n+k])
			}
			end += k
			n += k
		case chunkSize:
			err = b.sizeByte(in[n])
			if b.state == chunkSize {
				n++
			}
		case chunkExtension:
			err = b.extensionByte(in[n])
			n++
		case chunkEnd:
			err = b.endByte(in[n])
			n++
		case lastChunkEnd:
			n += b.lastByte(in[n])
		case trailerLines:
			var k int
			k, err = b.trailerPart(in[n:], m)
			n += k
		default: // the others are no states of a chunked body
		}
	}
	if first >= 0 {
		data = in[first:end]
	}
	return n, data, err
}

// sizeByte takes one byte of a chunk size; the one behind it is left to the extension.
func (b *bodyReader) sizeByte(c byte) *problem {
	d := hexDigit(c)
	if d >= 0 {
		if b.left > (1<<64-1)>>4 {
			return errChunkTooBig
		}
		b.left = b.left<<4 | uint64(d)
		b.digits = true
		return nil
	}
	switch c {
	case '\t', '\n', '\r', ' ', ';':
		if b.digits {
			b.state, b.cr, b.semicolon = chunkExtension, false, false
			return nil
		}
	}
	return errChunkSize
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// extensionByte skips to the line end, which must be CRLF: a bare LF here is read differently by
// different parsers.
func (b *bodyReader) extensionByte(c byte) *problem {
	if b.cr != (c == '\n') {
		return errChunkExt
	}
	b.cr = c == '\r'
	if c == '\n' {
		b.digits, b.cr = false, false
		if b.left > 0 {
			b.state = chunkData
			return nil
		}
		b.state, b.term = lastChunkEnd, '\n'
		return nil
	}
	if c == ';' {
		b.semicolon = true
	}
	if b.opt.Strict && !b.semicolon && c > ' ' {
		return errChunkExt
	}
	if c != '\r' {
		if b.extensions++; b.extensions > maxChunkExtensions {
			return errChunkExtLong
		}
	}
	return nil
}

// endByte takes what is between a chunk and the next one. Envoy skips to the LF.
func (b *bodyReader) endByte(c byte) *problem {
	if b.opt.Strict && b.cr != (c == '\n') || b.opt.Strict && !b.cr && c != '\r' {
		return errChunkEnd
	}
	b.cr = c == '\r'
	if c == '\n' {
		b.state, b.left, b.digits, b.cr = chunkSize, 0, false, false
		return nil
	}
	if b.extensions++; b.extensions > maxChunkExtensions {
		return errChunkExtLong
	}
	return nil
}

// ended notes c and tells whether an empty line has just ended.
func (b *bodyReader) ended(c byte) bool {
	if c != '\r' && c != '\n' {
		b.term = 0
		return false
	}
	b.term = b.term<<8 | uint32(c)
	return b.term&0xffff == '\n'<<8|'\n' || b.term&0xffffff == '\n'<<16|'\r'<<8|'\n'
}

// lastByte takes a byte behind the last chunk: the end, or the first of the trailers, which it
// leaves.
func (b *bodyReader) lastByte(c byte) int {
	switch {
	case b.ended(c):
		b.state = bodyDone
	case b.term == 0:
		b.state, b.hasTrailer = trailerLines, true
		return 0
	}
	return 1
}

// trailerPart collects lines up to the empty one and parses them.
func (b *bodyReader) trailerPart(in []byte, m *header.Map) (int, *problem) {
	n := 0
	for n < len(in) {
		i := bytes.IndexByte(in[n:], '\n')
		if i < 0 {
			b.term = 0
			if in[len(in)-1] == '\r' {
				b.term = b.term<<8 | '\r'
			}
			n = len(in)
			break
		}
		n += i + 1
		if b.trailer.Len()+n > b.max {
			return n, errHeadersSize
		}
		if b.emptyLine(in[:n]) {
			b.trailer.Append(in[:n])
			return n, b.finishTrailers(m)
		}
	}
	if b.trailer.Len()+n > b.max {
		return n, errHeadersSize
	}
	b.trailer.Append(in[:n])
	return n, nil
}

// emptyLine tells whether the line that ends p is empty; p continues what was collected.
func (b *bodyReader) emptyLine(p []byte) bool {
	at := func(back int) byte {
		if back <= len(p) {
			return p[len(p)-back]
		}
		t := b.trailer.Bytes()
		if back -= len(p); back <= len(t) {
			return t[len(t)-back]
		}
		return 0
	}
	return at(2) == '\n' || at(2) == '\r' && at(3) == '\n'
}

// finishTrailers parses what was collected. Names and characters are checked though trailers are
// dropped, as in Envoy.
func (b *bodyReader) finishTrailers(m *header.Map) *problem {
	b.state = bodyDone
	t := b.trailer.Bytes()
	err := checkCharacters(t)
	if err == nil {
		end := len(t) - 1
		if end > 0 && t[end-1] == '\r' {
			end--
		}
		f := fieldReader{opt: b.opt, server: b.server, max: b.opt.maxHeaders()}
		if b.opt.EnableTrailers {
			f.m = m
		}
		err = f.read(t[:end])
	}
	b.trailer.Reset()
	return err
}
