// Package uuid makes the random identifiers of requests and of listeners that have no name.
package uuid

const hexDigits = "0123456789abcdef"

// Append appends a version 4 UUID made of two random words.
func Append(b []byte, hi, lo uint64) []byte {
	hi = hi&^0xf000 | 0x4000
	lo = lo&^(3<<62) | 2<<62
	for i := range 32 {
		if i == 8 || i == 12 || i == 16 || i == 20 {
			b = append(b, '-')
		}
		w := hi
		if i >= 16 {
			w = lo
		}
		b = append(b, hexDigits[w>>(60-4*(i&15))&15])
	}
	return b
}
