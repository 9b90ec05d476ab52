package hcm

import (
	"net/netip"
	"strings"
)

// lastFromXFF returns the address that stands skip places before the last one in x-forwarded-for,
// and whether the list holds just one, which only then may make a request internal
// (Utility::getLastAddressFromXFF).
func lastFromXFF(xff string, skip int) (addr netip.Addr, single bool) {
	if xff == "" {
		return netip.Addr{}, false
	}
	rest := xff
	for range skip {
		i := strings.LastIndexByte(rest, ',')
		if i < 0 {
			return netip.Addr{}, false
		}
		rest = rest[:i]
	}
	if i := strings.LastIndexByte(rest, ','); i >= 0 {
		rest = rest[i+1:]
	}
	rest = strings.TrimSpace(rest)
	a, err := netip.ParseAddr(rest)
	if err != nil {
		// Envoy takes an address with a port, too (parseInternetAddressAndPort).
		ap, err := netip.ParseAddrPort(rest)
		if err != nil {
			return netip.Addr{}, false
		}
		a = ap.Addr()
	}
	return a.Unmap(), !strings.Contains(xff, ",")
}

const hexDigits = "0123456789abcdef"

// appendUUID appends a version 4 UUID made of two random words.
func appendUUID(b []byte, hi, lo uint64) []byte {
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
