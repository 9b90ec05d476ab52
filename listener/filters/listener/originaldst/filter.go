// Package originaldst is the listener filter envoy.filters.listener.original_dst: it restores the
// address that a client connected to before a firewall rule redirected the connection here.
package originaldst

import (
	"net"
	"net/netip"
	"syscall"

	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/stream"
)

// Filter is the compiled filter.
type Filter struct {
	// original asks the kernel; tests put their own here.
	original func(fd int, v6 bool) (netip.AddrPort, error)
	// transparent tells that the socket was redirected by TPROXY, which leaves the address as it was.
	transparent func(fd int) bool
}

// Compile makes the filter; its configuration has no fields.
func Compile(proto.Message, filter.ListenerContext) (filter.ListenerFilter, error) {
	return &Filter{original: originalDst, transparent: isTransparent}, nil
}

// Entry is the filter for the table of the binary.
func Entry() filter.ListenerEntry {
	return filter.ListenerEntry{
		Name: "envoy.filters.listener.original_dst", Config: &originaldstv3.OriginalDst{}, Compile: Compile,
	}
}

// OnAccept implements filter.ListenerFilter. A connection that was not redirected keeps its address.
func (f *Filter) OnAccept(nc net.Conn, info *stream.ConnInfo) (more bool) {
	sc, ok := nc.(syscall.Conn)
	if !ok || !info.Local.IP.IsValid() {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		a, err := f.original(int(fd), info.Local.IP.Addr().Is6())
		switch {
		case err == nil && a.IsValid():
			info.Local, info.LocalRestored = stream.IPAddr(a), true
		case f.transparent(int(fd)):
			info.LocalRestored = true
		}
	})
	return false
}

// Inspect implements filter.ListenerFilter; it is never asked.
func (f *Filter) Inspect([]byte, *stream.ConnInfo) (int, filter.Verdict) { return 0, filter.Next }

// soOriginalDst is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST.
const soOriginalDst = 80

// originalDst reads the socket address that connection tracking keeps. The structures are used for
// their size only: each is at least as large as the address that the kernel writes.
func originalDst(fd int, v6 bool) (netip.AddrPort, error) {
	if v6 {
		m, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, soOriginalDst)
		if err != nil {
			return netip.AddrPort{}, err
		}
		return netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr), swap(m.Addr.Port)), nil
	}
	m, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return fromSockaddr(m.Multiaddr), nil
}

// fromSockaddr reads a struct sockaddr_in: family, port and address, the latter two as on the wire.
func fromSockaddr(b [16]byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
}

func swap(p uint16) uint16 {
	b := [2]byte{byte(p), byte(p >> 8)} // every Linux that we build for is little-endian
	return uint16(b[0])<<8 | uint16(b[1])
}

func isTransparent(fd int) bool {
	on, err := unix.GetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT)
	return err == nil && on != 0
}
