package hcm

import (
	"net/netip"
	"strings"

	"sidecar/internal/uuid"
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

// appendUUID appends a version 4 UUID made of two random words.
func appendUUID(b []byte, hi, lo uint64) []byte { return uuid.Append(b, hi, lo) }
