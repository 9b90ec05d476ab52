package hpack

import (
	"encoding/binary"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// The code of RFC 7541 appendix B is canonical: codes of one length are consecutive numbers, in the
// order of their symbols. Codes of up to fastBits are found by one look-up, the longer ones, which
// hardly any header has, by comparing with the first code of each length.
const (
	fastBits = 10
	maxBits  = 30
)

type huffmanCode struct{ sym, bits uint8 } // bits 0: longer than fastBits

type huffmanTable struct {
	fast [1 << fastBits]huffmanCode
	// Of codes of each length: the first one, one beyond the last, and where its symbol stands.
	first, end [maxBits + 1]uint32
	at         [maxBits + 1]uint16
	syms       [256]uint8 // by length, then by code
}

//nolint:gochecknoglobals // immutable table
var huffman = makeHuffman()

// makeHuffman takes the codes from the encoder of x/net, which shows the length of a symbol's code in
// the length of eight of it.
func makeHuffman() *huffmanTable {
	t := new(huffmanTable)
	var lengths [256]int
	for s := range lengths {
		lengths[s] = int(hpack.HuffmanEncodeLength(strings.Repeat(string([]byte{byte(s)}), 8)))
	}
	n := 0
	for bits := 1; bits <= maxBits; bits++ {
		t.at[bits] = uint16(n)
		for s, l := range lengths {
			if l != bits {
				continue
			}
			code := codeOf(byte(s), bits)
			if t.end[bits] == 0 {
				t.first[bits] = code
			}
			t.end[bits] = code + 1
			t.syms[n] = byte(s)
			n++
			if bits <= fastBits {
				low := code << (fastBits - bits)
				for i := range uint32(1) << (fastBits - bits) {
					t.fast[low+i] = huffmanCode{sym: byte(s), bits: uint8(bits)}
				}
			}
		}
	}
	return t
}

func codeOf(s byte, bits int) uint32 {
	var code uint32
	for _, b := range hpack.AppendHuffmanString(make([]byte, 0, 4), string([]byte{s})) {
		code = code<<8 | uint32(b)
	}
	return code >> (-bits & 7)
}

// appendDecoded appends the decoded string; false if src is no whole string of the code, has EOS in
// it, or padding other than up to seven ones.
func appendDecoded(dst, src []byte) ([]byte, bool) {
	var acc uint64 // the low n bits are to be decoded
	var n uint
	for {
		switch {
		case n > 32:
		case len(src) >= 4:
			acc = acc<<32 | uint64(binary.BigEndian.Uint32(src))
			src = src[4:]
			n += 32
		default:
			for ; len(src) > 0 && n <= 56; src = src[1:] {
				acc = acc<<8 | uint64(src[0])
				n += 8
			}
			if n < fastBits {
				return appendRest(dst, acc, n)
			}
		}
		for n >= maxBits || n >= fastBits && len(src) == 0 {
			c := huffman.fast[acc>>((n-fastBits)&63)&(1<<fastBits-1)]
			if c.bits != 0 {
				n -= uint(c.bits)
				dst = append(dst, c.sym)
				continue
			}
			sym, bits := huffman.long(acc, n)
			if bits == 0 {
				return dst, false
			}
			n -= bits
			dst = append(dst, sym)
		}
	}
}

// appendRest decodes the last n bits, which are fewer than a look-up takes: ones behind them make up
// the difference, and a code that would need those is padding.
func appendRest(dst []byte, acc uint64, n uint) ([]byte, bool) {
	for n > 0 {
		rest := acc & (1<<n - 1)
		c := huffman.fast[(rest<<(fastBits-n)|(1<<(fastBits-n)-1))&(1<<fastBits-1)]
		if c.bits == 0 || uint(c.bits) > n {
			return dst, n < 8 && rest == 1<<n-1
		}
		n -= uint(c.bits)
		dst = append(dst, c.sym)
	}
	return dst, true
}

// long finds a code longer than fastBits in the low n bits of acc; 0 bits if there is none: EOS, or
// an end within a code.
func (t *huffmanTable) long(acc uint64, n uint) (sym byte, bits uint) {
	for bits = fastBits + 1; bits <= maxBits && bits <= n; bits++ {
		code := uint32(acc >> (n - bits) & (1<<bits - 1))
		if t.end[bits] != 0 && code < t.end[bits] {
			if code < t.first[bits] {
				return 0, 0
			}
			return t.syms[uint32(t.at[bits])+code-t.first[bits]], bits
		}
	}
	return 0, 0
}
