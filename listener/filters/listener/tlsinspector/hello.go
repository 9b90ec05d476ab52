package tlsinspector

import (
	"encoding/binary"
	"slices"
	"strings"
)

// hello is what a ClientHello says that filter chains are chosen by.
type hello struct {
	sni     string
	alpn    string // divided by commas, in the client's order
	hasALPN bool
}

type state uint8

const (
	incomplete state = iota
	notTLS
	complete
)

const (
	recordHeader    = 5
	recordHandshake = 22
	maxRecord       = 16384
	messageHello    = 1
	maxMessage      = 16384 // BoringSSL's limit for a ClientHello
	extensionSNI    = 0
	extensionALPN   = 16
	extVersions     = 43
)

// parseHello reads a ClientHello. n is how many bytes were looked at.
func parseHello(p []byte) (h hello, n int, s state) {
	body, n, s := assemble(p)
	if s == complete && !h.read(body) {
		return hello{}, n, notTLS
	}
	return h, n, s
}

// assemble finds the body of a ClientHello, which may be spread over several records (RFC 8446, 5.1).
func assemble(p []byte) (body []byte, n int, s state) {
	var msg []byte
	for off := 0; ; {
		rest := p[off:]
		if !startsRecord(rest) {
			return nil, min(off+recordHeader, len(p)), notTLS
		}
		if len(rest) < recordHeader {
			return nil, len(p), incomplete
		}
		size := int(binary.BigEndian.Uint16(rest[3:]))
		if size == 0 || size > maxRecord {
			return nil, off + recordHeader, notTLS
		}
		have := min(size, len(rest)-recordHeader)
		part := rest[recordHeader : recordHeader+have]
		off += recordHeader + have
		if msg == nil {
			msg = slices.Clip(part)
		} else {
			msg = append(msg, part...)
		}
		if len(msg) > 0 && msg[0] != messageHello {
			return nil, off, notTLS
		}
		if len(msg) >= 4 {
			length := int(msg[1])<<16 | int(msg[2])<<8 | int(msg[3])
			switch {
			case length > maxMessage:
				return nil, off, notTLS
			case len(msg) >= 4+length:
				return msg[4 : 4+length], off, complete
			}
		}
		if have < size {
			return nil, len(p), incomplete
		}
	}
}

// startsRecord tells whether p can be the beginning of a handshake record.
func startsRecord(p []byte) bool {
	return (len(p) < 1 || p[0] == recordHandshake) && (len(p) < 2 || p[1] == 3)
}

// bytesOf takes fields off the front of a message; ok becomes false when one is cut short.
type bytesOf struct {
	p  []byte
	ok bool
}

func (b *bytesOf) take(n int) []byte {
	if !b.ok || n > len(b.p) {
		b.ok = false
		return nil
	}
	out := b.p[:n]
	b.p = b.p[n:]
	return out
}

// vector takes a field with its length, of the given size, before it.
func (b *bytesOf) vector(size int) []byte {
	n := 0
	for _, c := range b.take(size) {
		n = n<<8 | int(c)
	}
	return b.take(n)
}

func (b *bytesOf) uint16() int {
	p := b.take(2)
	if p == nil {
		return 0
	}
	return int(binary.BigEndian.Uint16(p))
}

// read takes a ClientHello apart (RFC 8446, 4.1.2).
func (h *hello) read(p []byte) bool {
	b := bytesOf{p, true}
	version := b.uint16()
	b.take(32) // random
	session := b.vector(1)
	ciphers := b.vector(2)
	compression := b.vector(1)
	if !b.ok || len(session) > 32 || len(ciphers) < 2 || len(ciphers)%2 != 0 || len(compression) == 0 {
		return false
	}
	if len(b.p) == 0 {
		return version >= 0x0301
	}
	ext := bytesOf{b.vector(2), b.ok}
	if !b.ok || len(b.p) != 0 {
		return false
	}
	versions := false
	for ext.ok && len(ext.p) > 0 {
		kind := ext.uint16()
		body := ext.vector(2)
		if !ext.ok {
			return false
		}
		switch kind {
		case extensionSNI:
			if !h.readSNI(body) {
				return false
			}
		case extensionALPN:
			if !h.readALPN(body) {
				return false
			}
		case extVersions:
			versions = true
		}
	}
	return ext.ok && (versions || version >= 0x0301)
}

// readSNI reads server_name (RFC 6066, 3): a list that holds one host name.
func (h *hello) readSNI(p []byte) bool {
	b := bytesOf{p, true}
	list := bytesOf{b.vector(2), true}
	kind := list.take(1)
	name := list.vector(2)
	if !b.ok || len(b.p) != 0 || !list.ok || len(list.p) != 0 || kind[0] != 0 || len(name) == 0 || len(name) > 255 {
		return false
	}
	h.sni = strings.ToLower(string(name))
	return !strings.Contains(h.sni, "\x00")
}

// readALPN reads application_layer_protocol_negotiation (RFC 7301, 3.1).
func (h *hello) readALPN(p []byte) bool {
	b := bytesOf{p, true}
	list := bytesOf{b.vector(2), true}
	if !b.ok || len(b.p) != 0 || len(list.p) == 0 {
		return false
	}
	var names strings.Builder
	for len(list.p) > 0 {
		name := list.vector(1)
		if !list.ok || len(name) == 0 {
			return false
		}
		if names.Len() > 0 {
			names.WriteByte(',')
		}
		names.Write(name)
	}
	h.alpn, h.hasALPN = names.String(), true
	return true
}
