package h1

import (
	"bytes"
	"strconv"

	"sidecar/api/header"
	"sidecar/internal/buf"
)

// headWriter encodes one head. Whatever filters made of Content-Length and Transfer-Encoding, at
// most one of them goes out, and the body is kept to it.
//
// DIVERGES(framing-headers): Envoy sends a Content-Length or Transfer-Encoding that a filter set,
// even both, and bodies that do not match.
type headWriter struct {
	opt   *Options
	out   []byte
	room  int // capacity of out as it was lent
	lines int
	first int  // length of the first line
	clean bool // take out what would end a line
}

// plan is how a message is delimited and what its head says of it.
type plan struct {
	frame framing
	left  uint64 // of frameLength
	// keepLength sends Content-Length where it stands in the map, zeroLength adds one of 0,
	// sayChunked adds Transfer-Encoding: chunked.
	keepLength, zeroLength, sayChunked bool
}

func requestPlan(m *header.Map, end bool) (p plan) {
	method := m.Value(header.Method)
	length, hasLength := mapLength(m)
	switch {
	case method == "CONNECT":
		p.frame = frameRaw
	case isUpgrade(m):
		// The connection manager says 0 for an upgrade without a body; Envoy does not send it on.
		p.frame, p.keepLength = frameRaw, hasLength && length > 0
	case end:
		p.keepLength = hasLength && length == 0
		p.zeroLength = !p.keepLength && !bodilessMethod(method)
	case hasLength:
		p.frame, p.left, p.keepLength = frameLength, length, true
	default:
		p.frame, p.sayChunked = frameChunked, true
	}
	return p
}

// bodilessMethod tells the methods whose requests say nothing of a body when there is none
// (HeaderUtility::requestShouldHaveNoBody).
func bodilessMethod(m string) bool {
	switch m {
	case "GET", "HEAD", "DELETE", "TRACE", "CONNECT":
		return true
	}
	return false
}

// reply is what a response head depends on beside its map.
type reply struct {
	end     bool // nothing follows the head
	isHead  bool // it answers HEAD
	connect bool // it answers CONNECT
	http10  bool
}

func responsePlan(m *header.Map, status int, r reply) (p plan) {
	length, hasLength := mapLength(m)
	switch {
	case r.connect && status >= 200 && status < 300 || isUpgrade(m):
		// A tunnel: the length is for the ends to understand.
		p.frame, p.keepLength = frameRaw, hasLength
	case status < 200 || status == 204:
		// Neither may have a length (RFC 9110 section 8.6).
	case status == 304:
		p.keepLength = hasLength
	case r.isHead:
		// Without a length Envoy guesses that GET would be answered in chunks.
		p.keepLength, p.sayChunked = hasLength, !hasLength && !r.http10
	case r.end:
		p.keepLength = hasLength && length == 0
		p.zeroLength = !p.keepLength
	case hasLength:
		p.frame, p.left, p.keepLength = frameLength, length, true
	case r.http10:
		p.frame = frameClose
	default:
		p.frame, p.sayChunked = frameChunked, true
	}
	return p
}

func mapLength(m *header.Map) (uint64, bool) {
	v, ok := m.GetID(header.ContentLength)
	if !ok {
		return 0, false
	}
	return parseLength(v)
}

// isUpgrade tells heads that ask for or grant an upgrade (Utility::isUpgrade).
func isUpgrade(m *header.Map) bool {
	return m.Has(header.Upgrade) && hasToken(m.Value(header.Connection), "upgrade")
}

// encodeRequest appends a request head to out and returns how long its fields are.
func encodeRequest(out *buf.Chain, o *Options, m *header.Map, p plan) int {
	e := newHeadWriter(out, o, m)
	e.request(m, p)
	if e.dirty() {
		e.restart()
		e.request(m, p)
	}
	e.flush(out)
	return e.size()
}

// size is that of the fields alone: Envoy's header bytes have no first line and no empty one.
func (e *headWriter) size() int { return len(e.out) - e.first - len("\r\n") }

func (e *headWriter) request(m *header.Map, p plan) {
	method, target := m.Value(header.Method), m.Value(header.Path)
	if method == "CONNECT" {
		target = m.Value(header.Authority)
	}
	e.out = append(append(e.out, method...), ' ')
	e.target(target)
	e.out = append(e.out, " HTTP/1.1\r\n"...)
	e.lines++
	e.first = len(e.out)
	if v, ok := m.GetID(header.Authority); ok {
		name := "host"
		if raw := m.RawNameOf(header.Authority); raw != "" {
			name = raw
		}
		e.field(name, v)
	}
	e.fields(m, p)
	e.delimit(p)
}

// target writes the request target; what would end it is percent-encoded.
func (e *headWriter) target(s string) {
	const hex = "0123456789ABCDEF"
	start := 0
	for i := range len(s) {
		if s[i] > ' ' && s[i] != 0x7f {
			continue
		}
		e.out = append(append(e.out, s[start:i]...), '%', hex[s[i]>>4], hex[s[i]&15])
		start = i + 1
	}
	e.out = append(e.out, s[start:]...)
}

// extra is what the server adds to a response head.
type extra uint8

const (
	extraNone extra = iota
	extraClose
	extraKeepAlive
)

// encodeResponse appends a response head to out and returns how long its fields are.
func encodeResponse(out *buf.Chain, o *Options, m *header.Map, status int, http10 bool, x extra, p plan) int {
	e := newHeadWriter(out, o, m)
	e.response(m, status, http10, x, p)
	if e.dirty() {
		e.restart()
		e.response(m, status, http10, x, p)
	}
	e.flush(out)
	return e.size()
}

func (e *headWriter) response(m *header.Map, status int, http10 bool, x extra, p plan) {
	if http10 {
		e.out = append(e.out, "HTTP/1.0 "...)
	} else {
		e.out = append(e.out, "HTTP/1.1 "...)
	}
	e.out = strconv.AppendInt(e.out, int64(status), 10)
	e.out = append(append(append(e.out, ' '), reasonPhrase(status)...), "\r\n"...)
	e.lines++
	e.first = len(e.out)
	e.fields(m, p)
	switch x {
	case extraClose:
		e.field("connection", "close")
	case extraKeepAlive:
		e.field("connection", "keep-alive")
	case extraNone:
	}
	e.delimit(p)
}

// statusOf returns the status that a response map holds; what is no status becomes 500.
func statusOf(m *header.Map) int {
	s := m.Value(header.Status)
	if len(s) != 3 || s[0] < '1' || !digit(s[0]) || !digit(s[1]) || !digit(s[2]) {
		return 500
	}
	return int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0')
}

// headSlack is more than what a head may get beside its map: first line, added fields.
const headSlack = 256

func newHeadWriter(out *buf.Chain, o *Options, m *header.Map) headWriter {
	tail := out.Tail(m.Bytes() + 4*m.Len() + headSlack)[:0]
	return headWriter{opt: o, out: tail, room: cap(tail)}
}

// flush makes the head part of the buffer it was written into. A target that grew by
// percent-encoding may have outgrown it.
func (e *headWriter) flush(out *buf.Chain) {
	if cap(e.out) != e.room {
		out.Append(e.out)
		return
	}
	out.Extend(len(e.out))
}

// fields writes all but pseudo-headers and what delimits the body. A name that is no token is
// dropped: it would be read as something else.
func (e *headWriter) fields(m *header.Map, p plan) {
	for i := range m.Len() {
		id := m.IDAt(i)
		name, value := m.At(i)
		switch id {
		case header.Method, header.Path, header.Authority, header.Scheme, header.Status, header.Protocol,
			header.TransferEncoding:
			continue
		case header.ContentLength:
			if !p.keepLength {
				continue
			}
		case header.None:
			if !token(name) {
				continue
			}
		}
		// Known where the codec that read the message preserves case, whatever this one is asked.
		name = m.RawAt(i)
		e.field(name, value)
	}
}

func token(s string) bool {
	for i := range len(s) {
		if classes[s[i]]&tokenChar == 0 {
			return false
		}
	}
	return s != ""
}

// delimit writes what says where the body ends, and the empty line.
func (e *headWriter) delimit(p plan) {
	switch {
	case p.zeroLength:
		e.field("content-length", "0")
	case p.sayChunked:
		e.field("transfer-encoding", "chunked")
	}
	e.out = append(e.out, "\r\n"...)
	e.lines++
}

func (e *headWriter) field(name, value string) {
	start := len(e.out)
	e.out = append(append(append(e.out, name...), ": "...), value...)
	if e.opt.ProperCase {
		properCase(e.out[start : start+len(name)])
	}
	if e.clean {
		kept := e.out[start:start]
		for _, c := range e.out[start:] {
			if c != '\r' && c != '\n' && c != 0 {
				kept = append(kept, c)
			}
		}
		e.out = e.out[:start+len(kept)]
	}
	e.out = append(e.out, "\r\n"...)
	e.lines++
}

// properCase makes the first letter of each word upper-case, in place.
func properCase(name []byte) {
	up := true
	for i, c := range name {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if up && letter {
			name[i] = c &^ 0x20
		}
		up = !letter && !digit(c)
	}
}

// dirty tells whether a value has brought line ends or NUL of its own, which a filter may have set.
// Counting costs a few tens of nanoseconds, looking at each byte would cost ten times that.
func (e *headWriter) dirty() bool {
	return bytes.Count(e.out, []byte{'\n'}) != e.lines || bytes.Count(e.out, []byte{'\r'}) != e.lines ||
		bytes.IndexByte(e.out, 0) >= 0
}

func (e *headWriter) restart() { e.out, e.lines, e.clean = e.out[:0], 0, true }
