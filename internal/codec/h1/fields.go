package h1

import (
	"bytes"

	"sidecar/api/header"
)

// fieldReader parses the lines of headers or trailers into a map.
type fieldReader struct {
	opt     *Options
	server  *ServerOptions // of a request's headers and trailers
	m       *header.Map    // nil checks only
	h       *head          // nil for trailers
	base    int            // fields that do not count
	max     int
	hasHost bool
}

// read parses whole lines.
func (f *fieldReader) read(b []byte) *problem {
	for len(b) > 0 {
		eol := bytes.IndexByte(b, '\n')
		folded := false
		for eol+1 < len(b) && (b[eol+1] == ' ' || b[eol+1] == '\t') {
			eol += 1 + bytes.IndexByte(b[eol+1:], '\n')
			folded = true
		}
		line := b[:eol]
		b = b[eol+1:]
		if f.opt.Strict {
			if folded {
				return errFolded
			}
			if err := strictLine(line); err != nil {
				return err
			}
		}
		if err := f.field(line); err != nil {
			return err
		}
	}
	return nil
}

func (f *fieldReader) field(line []byte) *problem {
	colon := 0
	for colon < len(line) && classes[line[colon]]&tokenChar != 0 {
		colon++
	}
	if colon == 0 || colon == len(line) || line[colon] != ':' {
		return errName
	}
	name, value := line[:colon], trim(line[colon+1:])
	if f.h != nil {
		f.h.size += uint64(len(name) + len(value) + 3)
	}
	if f.server != nil && (f.server.RejectUnderscores || f.server.DropUnderscores) {
		if drop, err := f.underscore(name); drop || err != nil {
			return err
		}
	}
	if f.m == nil {
		return nil
	}
	whole := bytes.IndexByte(value, '\r') < 0 && bytes.IndexByte(value, '\n') < 0
	if !whole {
		value = unfold(value)
	}
	if err := f.add(name, value, whole); err != nil {
		return err
	}
	if f.m.Len()-f.base > f.max {
		return errHeadersCount
	}
	return nil
}

func (f *fieldReader) underscore(name []byte) (drop bool, err *problem) {
	if bytes.IndexByte(name, '_') < 0 {
		return false, nil
	}
	if f.server.DropUnderscores {
		if c := f.server.DroppedUnderscores; c != nil {
			c.Inc()
		}
		return true, nil
	}
	if c := f.server.RejectedUnderscores; c != nil {
		c.Inc()
	}
	return false, errUnderscore
}

// add stores one field. A value that had to be put together (not whole) never decides on framing.
func (f *fieldReader) add(name, value []byte, whole bool) *problem {
	if f.h == nil {
		f.m.AddRaw(name, value)
		return nil
	}
	if !f.isResponse() && len(name) == 4 && fold(name, "host") {
		f.host(name, value)
		return nil
	}
	switch f.m.AddRaw(name, value) {
	case header.ContentLength:
		if f.h.hasLength {
			return errLengthTwice
		}
		f.h.hasLength = true
		n, ok := parseLength(value)
		if !ok || !whole {
			n = badLength
		}
		f.h.length = n
	case header.TransferEncoding:
		f.h.chunked = !f.h.hasEncoding && whole && fold(value, "chunked")
		f.h.hasEncoding = true
	}
	return nil
}

func (f *fieldReader) isResponse() bool { return f.server == nil }

// host fills the place that the request line left for :authority; further ones are joined to it.
func (f *fieldReader) host(name, value []byte) {
	first := !f.hasHost
	if first {
		f.hasHost = true
		f.base-- // its place was taken before
		f.m.SetRawName(header.Authority, name)
	}
	switch {
	case f.h.ownAuthority: // RFC 9112 section 3.2.2: what the target names replaces Host
	case first:
		f.m.SetBytes(header.Authority, value)
	default:
		f.m.AddIDBytes(header.Authority, value)
	}
}

// unfold takes CR and LF out, in place, which is all that Envoy does to join a folded value.
func unfold(v []byte) []byte {
	out := v[:0]
	for _, c := range v {
		if c != '\r' && c != '\n' {
			out = append(out, c)
		}
	}
	return out
}

// badLength stands for a Content-Length that is not a number.
const badLength = ^uint64(0)

// parseLength wants digits only. The largest number is refused so that it can stand for badLength.
func parseLength[T ~string | ~[]byte](v T) (n uint64, ok bool) {
	if len(v) == 0 {
		return 0, false
	}
	for i := range len(v) {
		if !digit(v[i]) {
			return 0, false
		}
		d := uint64(v[i] - '0')
		if n > (badLength-1-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}
