package tlsinspector

import (
	"crypto/md5" //nolint:gosec // JA3 is defined by it
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
)

const (
	extensionGroups     = 10
	extensionFormats    = 11
	extensionSignatures = 13
)

// offer is what fingerprints are made of, in the client's order and without reserved values,
// but for those of groups.
type offer struct {
	version             uint16
	ciphers, extensions []uint16
	groups, signatures  []uint16
	versions            []uint16
	formats             []byte
	hasSNI              bool
	protocol            string // the first of ALPN
}

// reserved tells whether a value says nothing but that it has to be passed over (GREASE, RFC 8701).
func reserved(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// numbers reads a list of 16-bit values, without the reserved ones.
func numbers(p []byte) []uint16 { return slices.DeleteFunc(allNumbers(p), reserved) }

func allNumbers(p []byte) []uint16 {
	var out []uint16
	for ; len(p) >= 2; p = p[2:] {
		out = append(out, binary.BigEndian.Uint16(p))
	}
	return out
}

// readOffer takes a ClientHello apart that hello.read has taken.
func readOffer(p []byte) *offer {
	b := bytesOf{p, true}
	o := &offer{version: uint16(b.uint16())} //nolint:gosec // two bytes
	b.take(32)
	b.vector(1)
	o.ciphers = numbers(b.vector(2))
	b.vector(1)
	if len(b.p) == 0 {
		return o
	}
	ext := bytesOf{b.vector(2), b.ok}
	for ext.ok && len(ext.p) > 0 {
		kind := ext.uint16()
		body := bytesOf{ext.vector(2), ext.ok}
		if reserved(uint16(kind)) { //nolint:gosec // two bytes
			continue
		}
		o.extensions = append(o.extensions, uint16(kind)) //nolint:gosec // two bytes
		switch kind {
		case extensionSNI:
			o.hasSNI = true
		case extensionGroups:
			o.groups = allNumbers(body.vector(2)) // Envoy leaves the reserved ones in
		case extensionFormats:
			o.formats = body.vector(1)
		case extensionSignatures:
			o.signatures = numbers(body.vector(2))
		case extVersions:
			o.versions = numbers(body.vector(1))
		case extensionALPN:
			list := bytesOf{body.vector(2), true}
			o.protocol = string(list.vector(1))
		}
	}
	return o
}

func appendList(dst []byte, list []uint16) []byte {
	for i, v := range list {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = strconv.AppendUint(dst, uint64(v), 10)
	}
	return append(dst, ',')
}

// ja3 is the MD5 of version, ciphers, extensions, groups and point formats.
func (o *offer) ja3() string {
	text := append(strconv.AppendUint(nil, uint64(o.version), 10), ',')
	text = appendList(appendList(appendList(text, o.ciphers), o.extensions), o.groups)
	for i, f := range o.formats {
		if i > 0 {
			text = append(text, '-')
		}
		text = strconv.AppendUint(text, uint64(f), 10)
	}
	sum := md5.Sum(text) //nolint:gosec // see above
	return hex.EncodeToString(sum[:])
}

// ja4 is a readable part (transport, version, server name or not, counts, protocol) and the digests of
// the sorted ciphers and of the sorted extensions with the signature algorithms.
func (o *offer) ja4() string {
	version, name := o.version, byte('i')
	if len(o.versions) > 0 {
		version = slices.Max(o.versions)
	}
	if o.hasSNI {
		name = 'd'
	}
	out := append([]byte{'t'}, shortVersion(version)...)
	out = append(out, name)
	out = appendCount(appendCount(out, len(o.ciphers)), len(o.extensions))
	out = append(append(out, shortProtocol(o.protocol)...), '_')
	out = append(append(out, digest(hexList(slices.Sorted(slices.Values(o.ciphers))))...), '_')
	rest := slices.DeleteFunc(slices.Sorted(slices.Values(o.extensions)), func(v uint16) bool {
		return v == extensionSNI || v == extensionALPN
	})
	text := hexList(rest)
	if len(o.signatures) > 0 {
		text += "_" + hexList(o.signatures)
	}
	return string(append(out, digest(text)...))
}

func shortVersion(v uint16) string {
	switch v {
	case 0x0304:
		return "13"
	case 0x0303:
		return "12"
	case 0x0302:
		return "11"
	case 0x0301:
		return "10"
	case 0x0300:
		return "s3"
	}
	return "00"
}

// appendCount writes two digits, 99 for what is more.
func appendCount(dst []byte, n int) []byte {
	n = min(n, 99)
	return append(dst, byte('0'+n/10), byte('0'+n%10))
}

// shortProtocol is the first and the last character of a protocol, of its hexadecimal form if either
// is no letter or digit.
func shortProtocol(s string) string {
	if s == "" {
		return "00"
	}
	if !alphanumeric(s[0]) || !alphanumeric(s[len(s)-1]) {
		s = hex.EncodeToString([]byte(s))
	}
	return string([]byte{s[0], s[len(s)-1]})
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func hexList(list []uint16) string {
	var b strings.Builder
	for i, v := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(hex.EncodeToString([]byte{byte(v >> 8), byte(v)}))
	}
	return b.String()
}

// digest is the beginning of the SHA-256, zeros for nothing.
func digest(text string) string {
	if text == "" {
		return "000000000000"
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}
