package listener

import (
	"fmt"
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"golang.org/x/sys/unix"

	"sidecar/internal/config"
)

//nolint:gochecknoglobals // immutable tables
var (
	addressFields       = config.Fields[*corev3.Address]{Used: "socket_address pipe", Refused: "envoy_internal_address"}
	socketAddressFields = config.Fields[*corev3.SocketAddress]{
		Used:    "protocol address port_value ipv4_compat",
		Refused: "named_port network_namespace_filepath",
		OffOnly: "resolver_name",
	}
	pipeFields       = config.Fields[*corev3.Pipe]{Used: "path mode"}
	additionalFields = config.Fields[*listenerv3.AdditionalAddress]{
		Used: "address socket_options tcp_keepalive",
	}
	keepaliveFields = config.Fields[*corev3.TcpKeepalive]{
		Used: "keepalive_probes keepalive_time keepalive_interval",
	}
	overrideFields     = config.Fields[*corev3.SocketOptionsOverride]{Used: "socket_options"}
	socketOptionFields = config.Fields[*corev3.SocketOption]{
		Used:    "level name int_value buf_value state type",
		OffOnly: "ip_version",
		NoOp:    map[string]string{"description": "a remark"},
	}
	socketTypeFields = config.Fields[*corev3.SocketOption_SocketType]{Used: "stream datagram"}
)

// Address is where a listener listens.
type Address struct {
	Network string // "tcp", "tcp4", "tcp6" or "unix"
	Text    string // "1.2.3.4:80" or the path
	IP      netip.AddrPort
	Mode    uint32 // of a unix socket's file

	// before and after are set before the socket is bound, and once it listens.
	before, after []socketOption
}

// socketOption is one call of setsockopt.
type socketOption struct {
	level, name, value int
	bytes              string
	isBytes            bool
}

func (o socketOption) set(fd int) error {
	var err error
	if o.isBytes {
		err = unix.SetsockoptString(fd, o.level, o.name, o.bytes)
	} else {
		err = unix.SetsockoptInt(fd, o.level, o.name, o.value)
	}
	if err != nil {
		return fmt.Errorf("socket option %d of level %d: %w", o.name, o.level, err)
	}
	return nil
}

// key is equal for two addresses whose sockets are interchangeable.
func (a Address) key() string { return fmt.Sprint(a.Network, " ", a.Text, a.before, a.after) }

func (c *Config) compileAddresses(m *listenerv3.Listener, errs *config.Errors) {
	if m.GetAddress() == nil {
		errs.Add(config.Field("address"), "is required")
		return
	}
	options := socketOptions(config.Field("socket_options"), m.GetSocketOptions(), errs)
	keepalive := keepaliveOptions(config.Field("tcp_keepalive"), m.GetTcpKeepalive(), errs)
	c.addAddress(config.Field("address"), m.GetAddress(), m, keepalive, options, errs)
	for i, a := range m.GetAdditionalAddresses() {
		p := config.Field("additional_addresses").Index(i)
		additionalFields.Check(p, a, errs)
		own, alive := options, keepalive
		if o := a.GetSocketOptions(); o != nil {
			overrideFields.Check(p.Field("socket_options"), o, errs)
			own = socketOptions(p.Field("socket_options").Field("socket_options"), o.GetSocketOptions(), errs)
		}
		if a.GetTcpKeepalive() != nil {
			alive = keepaliveOptions(p.Field("tcp_keepalive"), a.GetTcpKeepalive(), errs)
		}
		c.addAddress(p.Field("address"), a.GetAddress(), m, alive, own, errs)
	}
}

// statedOption is a socketOption with the time at which it is set.
type statedOption struct {
	socketOption
	listening bool
}

// addAddress compiles one address.
//
// DIVERGES(socket_options): options for STATE_BOUND are set once the socket listens, since binding and
// listening are one step here.
func (c *Config) addAddress(p *config.Path, a *corev3.Address, m *listenerv3.Listener, keepalive []socketOption,
	options []statedOption, errs *config.Errors,
) {
	addressFields.Check(p, a, errs)
	var out Address
	switch x := a.GetAddress().(type) {
	case *corev3.Address_SocketAddress:
		var ok bool
		if out, ok = socketAddress(p.Field("socket_address"), x.SocketAddress, errs); !ok {
			return
		}
		out.before = append(ipOptions(out.IP.Addr().Is6(), m), keepalive...)
		if n := m.GetTcpFastOpenQueueLength(); n != nil {
			out.after = append(out.after, socketOption{level: unix.IPPROTO_TCP, name: unix.TCP_FASTOPEN, value: int(n.GetValue())})
		}
	case *corev3.Address_Pipe:
		pipeFields.Check(p.Field("pipe"), x.Pipe, errs)
		if strings.HasPrefix(x.Pipe.GetPath(), "@") && x.Pipe.GetMode() != 0 {
			errs.Add(p.Field("pipe").Field("mode"), "Cannot set mode for Abstract AF_UNIX sockets")
		}
		out = Address{Network: "unix", Text: x.Pipe.GetPath(), Mode: x.Pipe.GetMode()}
	default:
		errs.Add(p, "must be a socket_address or a pipe")
		return
	}
	for _, o := range options {
		if o.listening {
			out.after = append(out.after, o.socketOption)
		} else {
			out.before = append(out.before, o.socketOption)
		}
	}
	c.Addresses = append(c.Addresses, out)
}

func socketAddress(p *config.Path, sa *corev3.SocketAddress, errs *config.Errors) (Address, bool) {
	socketAddressFields.Check(p, sa, errs)
	if sa.GetProtocol() != corev3.SocketAddress_TCP {
		errs.Add(p.Field("protocol"), "UDP is not supported")
	}
	ip, err := netip.ParseAddr(sa.GetAddress())
	if err != nil {
		errs.Addf(p.Field("address"), "malformed IP address: %s", sa.GetAddress())
		return Address{}, false
	}
	ap := netip.AddrPortFrom(ip, uint16(sa.GetPortValue()))
	network := "tcp4"
	if ip.Is6() {
		network = "tcp6"
		if sa.GetIpv4Compat() {
			network = "tcp"
		}
	}
	return Address{Network: network, Text: ap.String(), IP: ap}, true
}

// ipOptions are those that fields of the listener stand for.
func ipOptions(v6 bool, m *listenerv3.Listener) []socketOption {
	var out []socketOption
	on := func(level, name int) { out = append(out, socketOption{level: level, name: name, value: 1}) }
	if config.Value(m.GetEnableReusePort(), true) {
		on(unix.SOL_SOCKET, unix.SO_REUSEPORT)
	}
	if m.GetTransparent().GetValue() {
		on(unix.SOL_IP, unix.IP_TRANSPARENT)
		if v6 {
			on(unix.SOL_IPV6, unix.IPV6_TRANSPARENT)
		}
	}
	if m.GetFreebind().GetValue() {
		on(unix.SOL_IP, unix.IP_FREEBIND)
	}
	return out
}

// keepaliveOptions are set on the listening socket; the accepted ones inherit them.
func keepaliveOptions(p *config.Path, k *corev3.TcpKeepalive, errs *config.Errors) []socketOption {
	if k == nil {
		return nil
	}
	keepaliveFields.Check(p, k, errs)
	out := []socketOption{{level: unix.SOL_SOCKET, name: unix.SO_KEEPALIVE, value: 1}}
	add := func(name int, set bool, v uint32) {
		if set {
			out = append(out, socketOption{level: unix.IPPROTO_TCP, name: name, value: int(v)})
		}
	}
	add(unix.TCP_KEEPCNT, k.GetKeepaliveProbes() != nil, k.GetKeepaliveProbes().GetValue())
	add(unix.TCP_KEEPIDLE, k.GetKeepaliveTime() != nil, k.GetKeepaliveTime().GetValue())
	add(unix.TCP_KEEPINTVL, k.GetKeepaliveInterval() != nil, k.GetKeepaliveInterval().GetValue())
	return out
}

// socketOptions compiles those that are for stream sockets.
func socketOptions(p *config.Path, list []*corev3.SocketOption, errs *config.Errors) []statedOption {
	var out []statedOption
	for i, o := range list {
		at := p.Index(i)
		socketOptionFields.Check(at, o, errs)
		if t := o.GetType(); t != nil {
			socketTypeFields.Check(at.Field("type"), t, errs)
			if t.GetDatagram() != nil && t.GetStream() == nil {
				continue
			}
		}
		s := statedOption{
			socketOption: socketOption{level: int(o.GetLevel()), name: int(o.GetName())},
			listening:    o.GetState() != corev3.SocketOption_STATE_PREBIND,
		}
		switch v := o.GetValue().(type) {
		case *corev3.SocketOption_IntValue:
			s.value = int(v.IntValue)
		case *corev3.SocketOption_BufValue:
			s.bytes, s.isBytes = string(v.BufValue), true
		default:
			errs.Add(at, "needs one of int_value, buf_value")
		}
		out = append(out, s)
	}
	return out
}
