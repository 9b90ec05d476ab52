package lb

import "encoding/binary"

// murmurSeed is the seed that libstdc++ has, and Envoy (MurmurHash::STD_HASH_SEED).
const murmurSeed = 0xc70f6907

// murmur2 is MurmurHash64A.
func murmur2(b []byte) uint64 {
	const m = 0xc6a4a7935bd1e995
	h := murmurSeed ^ uint64(len(b))*m
	for ; len(b) >= 8; b = b[8:] {
		k := binary.LittleEndian.Uint64(b) * m
		k ^= k >> 47
		h = (h ^ k*m) * m
	}
	if len(b) > 0 {
		var tail [8]byte
		copy(tail[:], b)
		h = (h ^ binary.LittleEndian.Uint64(tail[:])) * m
	}
	h ^= h >> 47
	h *= m
	return h ^ h>>47
}
