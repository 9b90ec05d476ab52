package cluster

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"sidecar/api/stream"
	"sidecar/internal/config"
)

var (
	addressFields = config.Fields[*corev3.Address]{
		Used:    "socket_address pipe",
		Refused: "envoy_internal_address",
	}
	socketAddressFields = config.Fields[*corev3.SocketAddress]{
		Used:    "protocol address port_value",
		Refused: "named_port resolver_name network_namespace_filepath",
		OffOnly: "ipv4_compat",
	}
	pipeFields = config.Fields[*corev3.Pipe]{
		Used: "path",
		NoOp: map[string]string{"mode": "only a listener creates the socket"},
	}
)

// addrConfig is an address as configured: resolved, or a name and a port to resolve.
type addrConfig struct {
	addr stream.Addr
	name string
	port uint16
}

// compileAddress reads an address; names are allowed where DNS will resolve them.
func compileAddress(p *config.Path, a *corev3.Address, names bool, errs *config.Errors) (addrConfig, bool) {
	before := errs.Len()
	addressFields.Check(p, a, errs)
	if pipe := a.GetPipe(); pipe != nil {
		pipeFields.Check(p.Field("pipe"), pipe, errs)
		if names {
			errs.Add(p, "must be a socket address: the cluster resolves names")
		}
		if pipe.GetPath() == "" {
			errs.Add(p.Field("pipe").Field("path"), "is required")
		}
		return addrConfig{addr: stream.PipeAddr(pipe.GetPath())}, errs.Len() == before
	}
	sa := a.GetSocketAddress()
	if sa == nil {
		if errs.Len() == before {
			errs.Add(p, "is required")
		}
		return addrConfig{}, false
	}
	p = p.Field("socket_address")
	socketAddressFields.Check(p, sa, errs)
	if sa.GetProtocol() != corev3.SocketAddress_TCP {
		errs.Addf(p.Field("protocol"), "%s is not supported", sa.GetProtocol())
	}
	if sa.GetPortValue() > 65535 {
		errs.Addf(p.Field("port_value"), "must be at most 65535, not %d", sa.GetPortValue())
	}
	out := addrConfig{port: uint16(sa.GetPortValue())}
	ip, err := netip.ParseAddr(sa.GetAddress())
	switch {
	case err == nil && ip.Zone() == "":
		out.addr = stream.IPAddr(netip.AddrPortFrom(ip, out.port))
	case names && sa.GetAddress() != "":
		out.name = sa.GetAddress()
	default:
		errs.Addf(p.Field("address"), "malformed IP address: %s. Consider setting resolver_name or "+
			"setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'", sa.GetAddress())
	}
	return out, errs.Len() == before
}
