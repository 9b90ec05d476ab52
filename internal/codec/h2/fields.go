package h2

import (
	"bytes"

	"sidecar/api/header"
)

type fieldKind uint8

const (
	requestHead fieldKind = iota
	requestTrailers
	responseHead // interim heads too
	responseTrailers
)

// fieldReader is the hpack.Sink that fills a map with the fields of a head or of trailers, and judges
// them by nghttp2's rules, which are those of Envoy. The reader of a connection has one:
//
//	r.begin(kind, o, server, m)
//	err := dec.Decode(block, r) // an error ends the connection with COMPRESSION_ERROR
//	p := r.finish()
//
// Once something is wrong the rest of the block only goes through the HPACK tables. The map is then
// incomplete.
type fieldReader struct {
	// Set by begin.
	o      *Options
	server *ServerOptions // of requests and their trailers
	m      *header.Map
	kind   fieldKind

	// What the head says, for who handles the stream.
	length    int64 // content-length; -1: none
	status    int   // of a response
	connect   bool  // :method CONNECT, without :protocol
	extended  bool  // :method CONNECT with :protocol
	isHead    bool  // :method HEAD
	expect    bool  // expect: 100-continue
	seen      seen
	regular   bool // a regular field was read: pseudo-headers may not follow
	problem   *problem
	isOptions bool
	method    bool // CONNECT, extended or not
	path      pathForm
	webScheme bool // http or https
	crumbs    []byte
	cookies   int
}

// seen has one bit for each field that may come only once.
type seen uint8

const (
	seenMethod seen = 1 << iota
	seenScheme
	seenPath
	seenAuthority
	seenProtocol
	seenStatus
	seenHost
	seenLength
)

type pathForm uint8

const (
	pathOther pathForm = iota
	pathOrigin
	pathAsterisk
)

// crumbsKeep bounds what the reader keeps between heads.
const crumbsKeep = 4 << 10

// begin readies the reader for one block. server is nil for responses.
func (r *fieldReader) begin(kind fieldKind, o *Options, server *ServerOptions, m *header.Map) {
	crumbs := r.crumbs[:0]
	if cap(crumbs) > crumbsKeep {
		crumbs = nil
	}
	*r = fieldReader{o: o, server: server, m: m, kind: kind, length: -1, crumbs: crumbs}
}

// Field implements hpack.Sink.
func (r *fieldReader) Field(name, value []byte, id header.ID, _ bool) error {
	if r.problem == nil {
		r.problem = r.field(name, value, id)
	}
	return nil
}

func (r *fieldReader) field(name, value []byte, id header.ID) *problem {
	if n := r.o.MaxFieldSize; n > 0 && len(name)+len(value) > int(n) {
		return errListSize
	}
	if len(name) > 0 && name[0] == ':' {
		if r.regular || r.kind == requestTrailers || r.kind == responseTrailers || !r.pseudo(id, value) {
			return errField
		}
		r.m.AddIDBytes(id, value)
		return r.limits()
	}
	r.regular = true
	if id == header.None && !validName(name) || !validValue(value, r.o.RejectObsText) {
		return errField
	}
	if r.server != nil && (r.server.RejectUnderscores || r.server.DropUnderscores) {
		if drop, p := r.underscore(name); drop || p != nil {
			return p
		}
	}
	keep, p := r.rule(name, value, id)
	if p != nil || !keep {
		return p
	}
	if id == header.None {
		r.m.AddRaw(name, value)
	} else {
		r.m.AddIDBytes(id, value)
	}
	return r.limits()
}

// limits is checked after each field, as Envoy does with what it has stored.
func (r *fieldReader) limits() *problem {
	if r.m.Bytes()+len(r.crumbs) > r.o.MaxHeadersBytes {
		r.o.Stats.HeaderListSize.Inc()
		return errListSize
	}
	n := r.m.Len()
	if r.cookies > 0 {
		n++
	}
	if n > r.o.MaxHeaders {
		r.o.Stats.HeaderOverflow.Inc()
		return errTooMany
	}
	return nil
}

func (r *fieldReader) underscore(name []byte) (drop bool, p *problem) {
	if bytes.IndexByte(name, '_') < 0 {
		return false, nil
	}
	if r.server.DropUnderscores {
		r.o.Stats.DroppedUnderscores.Inc()
		return true, nil
	}
	r.o.Stats.RejectedUnderscores.Inc()
	return false, errUnderscore
}

// rule is what applies to regular fields by their name; keep is false for what goes elsewhere than to
// the map at once.
func (r *fieldReader) rule(name, value []byte, id header.ID) (keep bool, p *problem) {
	switch id {
	case header.None:
		if string(name) == "host" && r.kind == requestHead {
			return false, r.host(value)
		}
	case header.Connection, header.KeepAlive, header.ProxyConnection, header.TransferEncoding,
		header.Upgrade:
		return false, errField
	case header.TE:
		if !fold(value, "trailers") {
			return false, errField
		}
	case header.ContentLength:
		return r.contentLength(value)
	case header.Expect:
		r.expect = fold(value, "100-continue")
	case header.Cookie:
		if r.kind == requestHead {
			return false, r.cookie(value)
		}
	}
	return true, nil
}

// host stands in for :authority where that is missing. Beside it, it is dropped.
func (r *fieldReader) host(value []byte) *problem {
	if r.seen&seenHost != 0 || len(value) == 0 || !all(value, authorityChar) {
		return errField
	}
	r.seen |= seenHost
	if r.seen&seenAuthority != 0 {
		return nil
	}
	r.m.AddIDBytes(header.Authority, value)
	return r.limits()
}

// cookie collects crumbs (RFC 9113 section 8.2.3). They become one field behind the others, as Envoy
// makes it.
func (r *fieldReader) cookie(value []byte) *problem {
	if r.cookies++; r.cookies > 1 {
		r.crumbs = append(r.crumbs, "; "...)
	}
	r.crumbs = append(r.crumbs, value...)
	return r.limits()
}

func (r *fieldReader) contentLength(value []byte) (keep bool, p *problem) {
	if r.kind == responseHead {
		switch {
		case r.status/100 == 1, r.status == 204 && string(value) != "0":
			return false, errField
		case r.status == 204:
			return false, nil
		}
	}
	n := parseLength(value)
	if r.seen&seenLength != 0 || n < 0 {
		return false, errField
	}
	r.seen |= seenLength
	r.length = n
	return true, nil
}

// finish completes the map. It returns what is wrong with the head, nil if nothing is.
func (r *fieldReader) finish() *problem {
	if r.problem != nil {
		return r.problem
	}
	switch r.kind {
	case requestHead:
		if !r.requestRules() {
			return errMessaging
		}
	case responseHead:
		if r.seen&seenStatus == 0 {
			return errMessaging
		}
		if r.status/100 == 1 {
			r.length = -1
		}
	case requestTrailers, responseTrailers:
	}
	if r.cookies > 0 {
		r.m.AddIDBytes(header.Cookie, r.crumbs)
	}
	return nil
}

// requestRules are those of a whole request head (RFC 9113 sections 8.3.1 and 8.5, RFC 8441
// section 4; nghttp2_http_on_request_headers).
func (r *fieldReader) requestRules() bool {
	has := func(s seen) bool { return r.seen&s == s }
	r.extended = r.method && has(seenProtocol)
	r.connect = r.method && !r.extended
	if r.connect {
		r.length = -1
		return r.seen&(seenScheme|seenPath) == 0 && has(seenAuthority)
	}
	if !has(seenMethod|seenScheme|seenPath) || r.seen&(seenAuthority|seenHost) == 0 {
		return false
	}
	if has(seenProtocol) && (!r.method || !has(seenAuthority)) {
		return false
	}
	return !r.webScheme || r.path == pathOrigin || r.isOptions && r.path == pathAsterisk
}
