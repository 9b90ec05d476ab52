package proxyprotocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

const (
	v1Signature = "PROXY "
	v1Max       = 108
	v2Signature = "\r\n\r\n\x00\r\nQUIT\n"
	v2Fixed     = 16
)

// version is what the first bytes are the beginning of.
type version uint8

const (
	undecided version = iota
	none
	v1
	v2
)

func detect(p []byte) version {
	switch {
	case starts(p, v1Signature):
		if len(p) >= len(v1Signature) {
			return v1
		}
	case starts(p, v2Signature):
		if len(p) >= len(v2Signature) {
			return v2
		}
	default:
		return none
	}
	return undecided
}

func starts(p []byte, signature string) bool {
	n := min(len(p), len(signature))
	return string(p[:n]) == signature[:n]
}

// header is a PROXY protocol header: size bytes, and addresses unless the connection is the proxy's
// own.
type header struct {
	src, dst netip.AddrPort
	tlvs     []byte
	size     int
}

var (
	errIncomplete = errors.New("incomplete")
	errMalformed  = errors.New("malformed PROXY protocol header")
	errTooLong    = errors.New("no end of line in a PROXY protocol header of version 1")
)

// parseV1 reads "PROXY TCP4 src dst sport dport\r\n", as strictly as Envoy: one space between words,
// unicast addresses of the family.
func parseV1(p []byte) (header, error) {
	p = p[:min(len(p), v1Max)]
	end := bytes.Index(p, []byte("\r\n"))
	if end < 0 {
		if len(p) == v1Max {
			return header{}, errTooLong
		}
		return header{}, errIncomplete
	}
	h := header{size: end + 2}
	words := strings.Split(string(p[:end]), " ")
	if len(words) >= 2 && words[1] == "UNKNOWN" {
		return h, nil
	}
	if len(words) != 6 || (words[1] != "TCP4" && words[1] != "TCP6") {
		return h, errMalformed
	}
	v6 := words[1] == "TCP6"
	var ok1, ok2 bool
	h.src, ok1 = endpoint(words[2], words[4], v6)
	h.dst, ok2 = endpoint(words[3], words[5], v6)
	if !ok1 || !ok2 {
		return h, errMalformed
	}
	return h, nil
}

func endpoint(addr, port string, v6 bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Is6() != v6 || a.Zone() != "" || a.IsMulticast() || a.IsUnspecified() {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a, uint16(n)), true
}

// parseV2 reads the binary header. Datagram transports are taken as Envoy does, for their addresses.
func parseV2(p []byte) (header, error) {
	if len(p) < v2Fixed {
		return header{}, errIncomplete
	}
	command, family := p[12], p[13]
	h := header{size: v2Fixed + int(binary.BigEndian.Uint16(p[14:]))}
	if command>>4 != 2 || command&0xf > 1 {
		return h, errMalformed
	}
	local := command&0xf == 0
	width := 0
	switch family >> 4 {
	case 1:
		width = 4
	case 2:
		width = 16
	}
	if transport := family & 0xf; !local && (width == 0 || transport == 0 || transport > 2) {
		return h, errMalformed
	}
	if !local && h.size < v2Fixed+2*width+4 {
		return h, errMalformed
	}
	if len(p) < h.size {
		return h, errIncomplete
	}
	if local {
		return h, nil
	}
	b := p[v2Fixed:h.size]
	src, _ := netip.AddrFromSlice(b[:width])
	dst, _ := netip.AddrFromSlice(b[width : 2*width])
	h.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b[2*width:]))
	h.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2*width+2:]))
	h.tlvs = b[2*width+4:]
	return h, eachTLV(h.tlvs, func(byte, []byte) {})
}

// eachTLV walks type, length, value triples.
func eachTLV(p []byte, fn func(kind byte, value []byte)) error {
	for len(p) > 0 {
		if len(p) < 3 {
			return errMalformed
		}
		n := int(binary.BigEndian.Uint16(p[1:]))
		if len(p) < 3+n {
			return errMalformed
		}
		fn(p[0], p[3:3+n])
		p = p[3+n:]
	}
	return nil
}

// text makes valid UTF-8 of a value, with an exclamation mark for each byte that isn't, as Envoy does
// (MessageUtil::sanitizeUtf8String).
func text(p []byte) string {
	s := strings.ToValidUTF8(string(p), "")
	if len(s) == len(p) {
		return s
	}
	var b strings.Builder
	for _, r := range string(p) { // an invalid byte comes as one U+FFFD
		if r == '\uFFFD' {
			b.WriteByte('!')
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
