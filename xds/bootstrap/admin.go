package bootstrap

import (
	"net/netip"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"sidecar/internal/config"
)

// Admin says where the admin server listens and what it logs.
type Admin struct {
	// Address is an IP address with a port, or not valid: then Pipe is the path of a socket.
	Address  netip.AddrPort
	Pipe     string
	PipeMode uint32 // 0: the default of the system
	// AccessLog is for the compiler of access logs, its place is "admin.access_log".
	AccessLog []*accesslogv3.AccessLog
	// AccessLogPath is the older way to name a file that gets the default format; may be empty.
	AccessLogPath string
	// IgnoreGlobalConnLimit exempts its connections from the overload manager's limit.
	IgnoreGlobalConnLimit bool
}

var adminFields = config.Fields[*bootstrapv3.Admin]{
	Used:    "access_log access_log_path address ignore_global_conn_limit",
	Refused: "socket_options allow_paths",
	NoOp:    map[string]string{"profile_path": "only /cpuprofiler and /heapprofiler write to it, which are not served"},
}

var addressFields = config.Fields[*corev3.Address]{
	Used:    "socket_address pipe",
	Refused: "envoy_internal_address",
}

var socketAddressFields = config.Fields[*corev3.SocketAddress]{
	Used:    "protocol address port_value",
	OffOnly: "ipv4_compat",
	Refused: "named_port resolver_name network_namespace_filepath",
}

var pipeFields = config.Fields[*corev3.Pipe]{Used: "path mode"}

func admin(msg *bootstrapv3.Admin, errs *config.Errors) *Admin {
	if msg == nil {
		return nil
	}
	path := config.Field("admin")
	adminFields.Check(path, msg, errs)
	if msg.GetAddress() == nil {
		// As in Envoy: without an address nothing listens.
		return nil
	}
	out := &Admin{
		AccessLog:             msg.GetAccessLog(),
		AccessLogPath:         msg.GetAccessLogPath(), //nolint:staticcheck // deprecated, and still in use
		IgnoreGlobalConnLimit: msg.GetIgnoreGlobalConnLimit(),
	}
	path = path.Field("address")
	addressFields.Check(path, msg.GetAddress(), errs)
	if pipe := msg.GetAddress().GetPipe(); pipe != nil {
		pipeFields.Check(path.Field("pipe"), pipe, errs)
		out.Pipe, out.PipeMode = pipe.GetPath(), pipe.GetMode()
		return out
	}
	out.Address = socketAddress(path.Field("socket_address"), msg.GetAddress().GetSocketAddress(), errs)
	return out
}

func socketAddress(path *config.Path, msg *corev3.SocketAddress, errs *config.Errors) netip.AddrPort {
	if msg == nil {
		return netip.AddrPort{} // constraints of the message have reported it
	}
	socketAddressFields.Check(path, msg, errs)
	if msg.GetProtocol() != corev3.SocketAddress_TCP {
		errs.Addf(path.Field("protocol"), "must be TCP, not %s", msg.GetProtocol())
	}
	ip, err := netip.ParseAddr(msg.GetAddress())
	if err != nil {
		errs.Addf(path.Field("address"), "malformed IP address: %s", msg.GetAddress())
		return netip.AddrPort{}
	}
	if msg.GetPortValue() > 65535 {
		return netip.AddrPort{} // constraints of the message have reported it
	}
	return netip.AddrPortFrom(ip, uint16(msg.GetPortValue()))
}
