package h1

import (
	"strconv"

	"sidecar/api/header"
)

// statusLine parses the first line of a response. The phrase is dropped.
//
// DIVERGES(status-line): the status has three digits; Envoy takes any number from 100.
func statusLine(line []byte, o *Options, m *header.Map, h *head) *problem {
	version, rest := cutWord(line)
	code, _ := cutWord(rest)
	if !validVersion(version) {
		return errVersion
	}
	h.http10 = string(version) != "HTTP/1.1"
	if len(code) != 3 || !digit(code[0]) || !digit(code[1]) || !digit(code[2]) {
		return errStatusCode
	}
	h.status = int(code[0]-'0')*100 + int(code[1]-'0')*10 + int(code[2]-'0')
	if h.status < 100 || o.Strict && h.status > 599 {
		return errStatusCode
	}
	if s := statusText(h.status); s != "" {
		m.AddStatic(":status", s)
	} else {
		m.AddIDBytes(header.Status, code)
	}
	return nil
}

// statusText returns the digits of common codes without allocating.
func statusText(code int) string {
	if code >= 100 && code < 600 {
		return statusTexts[code-100]
	}
	return ""
}

//nolint:gochecknoglobals // immutable table
var statusTexts = makeStatusTexts()

func makeStatusTexts() (t [500]string) {
	for i := range t {
		t[i] = strconv.Itoa(i + 100)
	}
	return t
}

// bodiless tells whether a response of this status has no body whatever its headers say.
func (h *head) bodiless() bool {
	return h.isHead || h.status < 200 || h.status == 204 || h.status == 304
}

// interim tells a 1xx head that another head follows.
func (h *head) interim() bool { return h.status < 200 && h.status != 101 }

// responseFraming is Envoy's client codec on a whole head. h.isHead, h.connect and h.upgrade came
// in from the request.
func (f *fieldReader) responseFraming() *problem {
	m, h := f.m, f.h
	asked := h.upgrade
	h.upgrade = false
	if asked && hasToken(m.Value(header.Connection), "upgrade") && m.Has(header.Upgrade) {
		h.upgrade = true
	}
	if err := f.encodings(); err != nil {
		return err
	}
	if h.connect && h.status >= 200 && h.status < 300 {
		h.upgrade = true
	}
	if h.status < 200 || h.status == 204 {
		if h.hasEncoding {
			return errNoChunksHere
		}
		if h.hasLength {
			if h.length != 0 {
				return errNoLengthHere
			}
			m.RemoveID(header.ContentLength)
			h.hasLength = false
		}
	}
	connection, _ := m.GetID(header.Connection)
	f.keepAlive(connection)
	// A 101 that grants no upgrade is the end of the connection's use, whatever the peer thinks.
	h.close = h.close || h.status == 101
	return nil
}
