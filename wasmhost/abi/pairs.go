package abi

import (
	"encoding/binary"
	"errors"

	"sidecar/api/header"
)

// The limits of a list of pairs that a guest hands in, as in Envoy.
const (
	maxPairsBytes = 1 << 20
	maxPairs      = 1024
)

var (
	errPairsLimit = errors.New("pairs: more than 1024 entries or 1 MiB")
	errPairsShort = errors.New("pairs: cut short")
)

// pairsSize is the length of m's wire form: a count, the lengths, then each string with a NUL.
func pairsSize(m *header.Map) int { return 4 + 10*m.Len() + m.Bytes() }

// putPairs writes m's wire form to dst, which has pairsSize bytes.
func putPairs(dst []byte, m *header.Map) {
	n := m.Len()
	binary.LittleEndian.PutUint32(dst, uint32(n))
	sizes, at := dst[4:], 4+8*n
	put := func(s string) {
		at += copy(dst[at:], s)
		dst[at] = 0
		at++
	}
	for i := range n {
		name, value := m.At(i)
		binary.LittleEndian.PutUint32(sizes[8*i:], uint32(len(name)))
		binary.LittleEndian.PutUint32(sizes[8*i+4:], uint32(len(value)))
		put(name)
		put(value)
	}
}

// AppendPairs appends the wire form of a list, as map properties and plugins use it.
func AppendPairs(dst []byte, pairs [][2]string) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(pairs)))
	for _, p := range pairs {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(p[0])))
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(p[1])))
	}
	for _, p := range pairs {
		dst = append(append(dst, p[0]...), 0)
		dst = append(append(dst, p[1]...), 0)
	}
	return dst
}

// eachPair walks a list in its wire form; the strings share b's memory as text does. An empty b is an
// empty list.
func eachPair(b string, yield func(name, value string)) error {
	if len(b) == 0 {
		return nil
	}
	if len(b) > maxPairsBytes {
		return errPairsLimit
	}
	if len(b) < 4 {
		return errPairsShort
	}
	n := int(word(b))
	if n > maxPairs {
		return errPairsLimit
	}
	sizes, rest := b[4:], 4+8*n
	if rest > len(b) {
		return errPairsShort
	}
	// Lengths are checked in full before the first yield: a list is taken whole or not at all.
	end := uint64(rest)
	for i := range 2 * n {
		end += uint64(word(sizes[4*i:])) + 1
	}
	if end > uint64(len(b)) {
		return errPairsShort
	}
	take := func(size string) string {
		s := b[rest : rest+int(word(size))]
		rest += len(s) + 1
		return s
	}
	for i := range n {
		name := take(sizes[8*i:])
		yield(name, take(sizes[8*i+4:]))
	}
	return nil
}

func word(s string) uint32 {
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}
