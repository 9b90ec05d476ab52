package originaldst

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"sidecar/api/filter"
	"sidecar/api/stream"
)

func TestOnAccept(t *testing.T) { //nolint:tparallel // the subtests share a socket
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	socket := stream.IPAddr(netip.MustParseAddrPort("127.0.0.1:15001"))
	v6 := stream.IPAddr(netip.MustParseAddrPort("[::1]:15001"))
	before := netip.MustParseAddrPort("10.1.2.3:80")
	for _, c := range []struct {
		name        string
		local       stream.Addr
		original    netip.AddrPort
		err         error
		transparent bool
		want        stream.Addr
		restored    bool
	}{
		{"redirected", socket, before, nil, false, stream.IPAddr(before), true},
		{"redirected IPv6", v6, netip.MustParseAddrPort("[fd00::1]:80"), nil, false, stream.IPAddr(netip.MustParseAddrPort("[fd00::1]:80")), true},
		{"not redirected", socket, netip.AddrPort{}, errors.New("ENOENT"), false, socket, false},
		{"TPROXY", socket, netip.AddrPort{}, errors.New("ENOENT"), true, socket, true},
		{"unix socket", stream.PipeAddr("/x"), before, nil, false, stream.PipeAddr("/x"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &Filter{
				original: func(_ int, is6 bool) (netip.AddrPort, error) {
					if is6 != c.local.IP.Addr().Is6() {
						t.Errorf("asked with v6 = %v", is6)
					}
					return c.original, c.err
				},
				transparent: func(int) bool { return c.transparent },
			}
			info := &stream.ConnInfo{Local: c.local}
			if f.OnAccept(nc, info) {
				t.Error("asks for bytes")
			}
			if info.Local != c.want || info.LocalRestored != c.restored {
				t.Errorf("local %v restored %v, want %v %v", info.Local, info.LocalRestored, c.want, c.restored)
			}
		})
	}
	t.Run("the kernel's answer", func(t *testing.T) {
		made, err := Compile(nil, filter.ListenerContext{})
		if err != nil {
			t.Fatal(err)
		}
		local := stream.IPAddr(netip.MustParseAddrPort(nc.LocalAddr().String()))
		info := &stream.ConnInfo{Local: local}
		made.OnAccept(nc, info)
		if info.Local != local {
			t.Errorf("a connection that nobody redirected goes to %v", info.Local)
		}
	})
}

func TestFromSockaddr(t *testing.T) {
	t.Parallel()
	got := fromSockaddr([16]byte{2, 0, 0x1f, 0x90, 10, 1, 2, 3})
	if want := netip.MustParseAddrPort("10.1.2.3:8080"); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if swap(0x901f) != 0x1f90 {
		t.Errorf("swap(0x901f) = %#x", swap(0x901f))
	}
}
