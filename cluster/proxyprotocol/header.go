package proxyprotocol

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// maxTLVs is what the length in a header leaves beside the longest addresses.
const maxTLVs = 1<<16 - 1 - 36

// known tells whether a header can tell of the two addresses, which are of one family then.
func known(s, d netip.Addr) bool { return s.IsValid() && d.IsValid() && s.Is4() == d.Is4() }

// headerV1 makes a header of version 1 (PROXY protocol, section 2.1).
func headerV1(src, dst netip.AddrPort) []byte {
	s, d := src.Addr().Unmap().WithZone(""), dst.Addr().Unmap().WithZone("")
	if !known(s, d) {
		return []byte("PROXY UNKNOWN\r\n")
	}
	family := "TCP6"
	if s.Is4() {
		family = "TCP4"
	}
	return fmt.Appendf(nil, "PROXY %s %s %s %d %d\r\n", family, s, d, src.Port(), dst.Port())
}

// headerV2 makes a header of version 2 (section 2.2); LOCAL, which has no addresses and no TLVs, if the
// addresses can't be told.
func headerV2(src, dst netip.AddrPort, tlvs []byte) []byte {
	const local, proxy = 0x20, 0x21
	const tcp4, tcp6 = 0x11, 0x21
	out := []byte("\r\n\r\n\x00\r\nQUIT\n")
	s, d := src.Addr().Unmap(), dst.Addr().Unmap()
	if !known(s, d) {
		return append(out, local, 0, 0, 0)
	}
	family, size := byte(tcp6), 36
	if s.Is4() {
		family, size = tcp4, 12
	}
	out = append(out, proxy, family)
	out = binary.BigEndian.AppendUint16(out, uint16(size+len(tlvs)))
	out = append(append(out, s.AsSlice()...), d.AsSlice()...)
	out = binary.BigEndian.AppendUint16(out, src.Port())
	out = binary.BigEndian.AppendUint16(out, dst.Port())
	return append(out, tlvs...)
}
