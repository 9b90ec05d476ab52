package format

import (
	"net/netip"
	"strconv"

	"sidecar/api/stream"
)

// address reads one of the stream's addresses.
type address func(*stream.Info) stream.Addr

func downstreamLocal(in *stream.Info) stream.Addr  { return in.Conn.Local }
func downstreamDirect(in *stream.Info) stream.Addr { return in.Conn.Direct }
func upstreamLocal(in *stream.Info) stream.Addr    { return in.Upstream.Local }
func upstreamRemote(in *stream.Info) stream.Addr   { return in.Upstream.Remote }
func upstreamHost(in *stream.Info) stream.Addr     { return in.Upstream.Host }

// downstreamRemote is the client: as x-forwarded-for tells, else the connection's peer. The Addr
// has no text when it comes from the header.
func downstreamRemote(in *stream.Info) stream.Addr {
	if !in.Remote.IsValid() {
		return in.Conn.Remote
	}
	a := netip.AddrPortFrom(in.Remote, in.RemotePort)
	if a == in.Conn.Remote.IP {
		return in.Conn.Remote
	}
	return stream.Addr{IP: a}
}

func downstreamDirectLocal(in *stream.Info) stream.Addr {
	if in.Conn.DirectLocal.IsZero() {
		return in.Conn.Local
	}
	return in.Conn.DirectLocal
}

func simpleAddress(name string) op {
	get, port := addressOf(name)
	switch {
	case get == nil:
		return op{}
	case port:
		return number(func(dst []byte, in *stream.Info) ([]byte, bool) {
			a := get(in)
			return strconv.AppendUint(dst, uint64(a.IP.Port()), 10), a.IP.IsValid()
		})
	}
	return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
		a := get(in)
		if s := a.String(); s != "" || !a.IP.IsValid() {
			return appendString(dst, s)
		}
		return a.IP.AppendTo(dst), true
	}}
}

func addressOf(name string) (get address, port bool) {
	switch name {
	case "DOWNSTREAM_REMOTE_ADDRESS":
		return downstreamRemote, false
	case "DOWNSTREAM_REMOTE_PORT":
		return downstreamRemote, true
	case "DOWNSTREAM_DIRECT_REMOTE_ADDRESS":
		return downstreamDirect, false
	case "DOWNSTREAM_DIRECT_REMOTE_PORT":
		return downstreamDirect, true
	case "DOWNSTREAM_LOCAL_ADDRESS":
		return downstreamLocal, false
	case "DOWNSTREAM_LOCAL_PORT":
		return downstreamLocal, true
	case "DOWNSTREAM_DIRECT_LOCAL_ADDRESS":
		return downstreamDirectLocal, false
	case "DOWNSTREAM_DIRECT_LOCAL_PORT":
		return downstreamDirectLocal, true
	case "UPSTREAM_HOST":
		return upstreamHost, false
	case "UPSTREAM_REMOTE_ADDRESS":
		return upstreamRemote, false
	case "UPSTREAM_REMOTE_PORT":
		return upstreamRemote, true
	case "UPSTREAM_LOCAL_ADDRESS":
		return upstreamLocal, false
	case "UPSTREAM_LOCAL_PORT":
		return upstreamLocal, true
	}
	return nil, false
}

// makeMasked makes *_WITHOUT_PORT, whose parameter is the length of a prefix: 24 prints
// 10.1.2.0/24.
func makeMasked(get address) func(string, *Options) (op, error) {
	return func(param string, _ *Options) (op, error) {
		bits := -1
		if param != "" {
			n, err := strconv.ParseUint(param, 10, 8)
			if err != nil {
				// DIVERGES(format): Envoy takes a mask that is no number, and ignores it.
				return op{}, errorf("Invalid prefix length: '%s'", param)
			}
			bits = int(n)
		}
		return op{text: func(dst []byte, in *stream.Info) ([]byte, bool) {
			a := get(in)
			if !a.IP.IsValid() {
				return appendString(dst, a.String())
			}
			ip := a.IP.Addr()
			if bits < 0 {
				return ip.AppendTo(dst), true
			}
			// The error is for a length out of range, which min excludes.
			prefix, err := ip.WithZone("").Prefix(min(bits, ip.BitLen()))
			return prefix.AppendTo(dst), err == nil
		}}, nil
	}
}
