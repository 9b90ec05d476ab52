package h1

import (
	"bytes"

	"sidecar/api/header"
)

// head is what framing and connection handling need to know of a head that was read.
type head struct {
	length      uint64
	size        uint64 // of the fields as Envoy counts it: name, value and 3 bytes for each
	status      int
	hasLength   bool
	chunked     bool // the message's body is chunked
	hasEncoding bool
	http10      bool // any version but 1.1
	upgrade     bool // the head asks for, or grants, an upgrade that ends HTTP on the connection
	connect     bool
	isHead      bool
	expect      bool // expect: 100-continue
	close       bool // the connection is not to be used again
	closeToken  bool // connection: close was said
	// ownAuthority says that the target named the authority; targetErr is what was wrong with it.
	ownAuthority bool
	targetErr    *problem
}

// headReader finds and parses one head, of a request or a response. It is called again with the
// same bytes and more until the head is whole: it remembers how far it has looked.
type headReader struct {
	opt      *Options
	max      int
	response bool
	server   *ServerOptions // of a request

	// Of the head being read.
	started bool // the first byte was looked at
	first   int  // where the first line ended; 0 while it is not whole
	line    int  // where the last line begins
	scanned int
}

func (r *headReader) reset() { r.started, r.first, r.line, r.scanned = false, 0, 0, 0 }

// read parses the head that in begins with and returns its length; 0 asks for more bytes. The map
// gets the first line's fields as soon as that line is whole. in is written to where lines are
// folded.
func (r *headReader) read(in []byte, m *header.Map, h *head) (int, *problem) {
	window := in[:min(len(in), r.max)]
	if !r.started {
		if len(in) == 0 {
			return 0, nil
		}
		if !r.begins(in[0]) {
			return 0, errFirstByte
		}
		r.started = true
	}
	for {
		i := bytes.IndexByte(window[r.scanned:], '\n')
		if i < 0 {
			if len(in) >= r.max {
				return 0, errHeadersSize
			}
			r.scanned = len(window)
			return 0, nil
		}
		start, eol := r.line, r.scanned+i
		r.scanned, r.line = eol+1, eol+1
		line := window[start:eol]
		if r.first == 0 {
			r.first = eol + 1
			if short, err := r.firstLine(line, m, h); err != nil {
				return 0, err
			} else if !short {
				continue
			}
			return r.finish(in[:eol+1], eol+1, m, h)
		}
		if len(line) == 0 || len(line) == 1 && line[0] == '\r' {
			return r.finish(in[:eol+1], start, m, h)
		}
	}
}

// begins tells whether a message may begin with b, so that garbage is refused at its first byte.
func (r *headReader) begins(b byte) bool {
	if r.response {
		return b == 'H'
	}
	return b > ' '
}

func (r *headReader) firstLine(line []byte, m *header.Map, h *head) (short bool, err *problem) {
	if r.opt.Strict {
		if err := strictLine(line); err != nil {
			return false, err
		}
	}
	if err := checkCharacters(line); err != nil {
		return false, err
	}
	if r.response {
		return false, statusLine(line, r.opt, m, h)
	}
	return requestLine(line, r.server, m, h)
}

// finish parses the fields between the first line and the empty line.
func (r *headReader) finish(whole []byte, end int, m *header.Map, h *head) (int, *problem) {
	if err := checkCharacters(whole); err != nil {
		return 0, err
	}
	if r.opt.Strict && end < len(whole) && len(whole)-end != 2 {
		return 0, errBareLF
	}
	f := fieldReader{opt: r.opt, m: m, h: h, server: r.server, base: m.Len(), max: r.opt.maxHeaders()}
	if err := f.read(whole[r.first:max(r.first, end)]); err != nil {
		return 0, err
	}
	if err := f.framing(); err != nil {
		return 0, err
	}
	return len(whole), nil
}

func (o *Options) maxHeaders() int {
	if o.MaxHeaders > 0 {
		return o.MaxHeaders
	}
	return defaultMaxHeaders
}

// checkCharacters looks at the first line, and then at the whole head at once, as Balsa does: this
// error is found before any of a single header.
func checkCharacters(b []byte) *problem {
	var seen class
	for _, c := range b {
		seen |= classes[c]
	}
	if seen&badChar != 0 {
		return errCharacters
	}
	return nil
}

// strictLine wants a line, given without its LF, to end in CR and to have no other.
func strictLine(line []byte) *problem {
	n := len(line)
	if n == 0 || line[n-1] != '\r' {
		return errBareLF
	}
	if bytes.IndexByte(line[:n-1], '\r') >= 0 {
		return errBareCR
	}
	return nil
}

// maxHead is how large a head may be.
func maxHead(o *Options, response bool) int {
	switch {
	case o.MaxHeadersBytes > 0:
		return o.MaxHeadersBytes
	case response:
		return defaultResponseHeaders
	}
	return defaultRequestHeaders
}

// leadingLines counts the line ends before a request, which are skipped (RFC 9112 section 2.2).
// Nothing may come before a response.
func leadingLines(in []byte, response bool) int {
	n := 0
	for !response && n < len(in) && (in[n] == '\r' || in[n] == '\n') {
		n++
	}
	return n
}
