package tlsctx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/wire"
)

//nolint:gochecknoglobals // immutable tables
var (
	proxyFields = config.Fields[*proxyv3.ProxyProtocolUpstreamTransport]{
		Used:    "config transport_socket",
		OffOnly: "allow_unspecified_address tlv_as_pool_key",
	}
	proxyConfigFields = config.Fields[*corev3.ProxyProtocolConfig]{
		Used:    "version",
		Refused: "pass_through_tlvs added_tlvs",
	}
	socketFields = config.Fields[*corev3.TransportSocket]{Used: "name typed_config"}
)

// Raw is the transport that leaves bytes as they are. It implements both transports.
type Raw struct{}

// Accept implements filter.DownstreamTransport.
func (Raw) Accept(context.Context, *wire.Conn, *stream.ConnInfo) error { return nil }

// Connect implements filter.UpstreamTransport.
func (Raw) Connect(context.Context, *wire.Conn, *filter.ConnectOptions) (*stream.TLSInfo, *filter.TransportError) {
	return nil, nil
}

// Ready implements filter.UpstreamTransport.
func (Raw) Ready() bool { return true }

// Proxy is a compiled ProxyProtocolUpstreamTransport. It implements filter.UpstreamTransport.
type Proxy struct {
	inner filter.UpstreamTransport
	v2    bool
}

// CompileProxy compiles a ProxyProtocolUpstreamTransport, with the transport inside it from a table.
func CompileProxy(m *proxyv3.ProxyProtocolUpstreamTransport, c filter.TransportContext,
	table map[string]*filter.TransportEntry,
) (*Proxy, error) {
	var errs config.Errors
	proxyFields.Check(nil, m, &errs)
	proxyConfigFields.Check(config.Field("config"), m.GetConfig(), &errs)
	out := &Proxy{v2: m.GetConfig().GetVersion() == corev3.ProxyProtocolConfig_V2}
	p := config.Field("transport_socket")
	socketFields.Check(p, m.GetTransportSocket(), &errs)
	p = p.Field("typed_config")
	name := string(config.TypeName(m.GetTransportSocket().GetTypedConfig()))
	if e := table[name]; e == nil {
		errs.Addf(p, "transport socket %q is not supported", name)
	} else if opened, err := config.Open(m.GetTransportSocket().GetTypedConfig()); err != nil {
		errs.Wrap(p, err)
	} else {
		config.Validate(p, opened, &errs)
		made, err := e.Compile(opened, c)
		errs.Wrap(p, err)
		inner, ok := made.(filter.UpstreamTransport)
		if err == nil && !ok {
			errs.Add(p, "is not a transport socket for clusters")
		}
		out.inner = inner
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	return out, nil
}

// Ready implements filter.UpstreamTransport.
func (x *Proxy) Ready() bool { return x.inner.Ready() }

// Await implements filter.Awaiter.
func (x *Proxy) Await(ctx context.Context) {
	if a, ok := x.inner.(filter.Awaiter); ok {
		a.Await(ctx)
	}
}

// Retire implements filter.Retirer.
func (x *Proxy) Retire() {
	if r, ok := x.inner.(filter.Retirer); ok {
		r.Retire()
	}
}

// Connect implements filter.UpstreamTransport.
func (x *Proxy) Connect(ctx context.Context, w *wire.Conn, o *filter.ConnectOptions,
) (*stream.TLSInfo, *filter.TransportError) {
	var src, dst netip.AddrPort
	if o != nil && o.Downstream != nil {
		src, dst = o.Downstream.Remote.IP, o.Downstream.Local.IP
	} else if !x.v2 {
		// Envoy: with no downstream connection the header tells of its own one.
		src, dst = addrPort(w.Net().LocalAddr()), addrPort(w.Net().RemoteAddr())
	}
	if err := send(ctx, w.Net(), proxyHeader(x.v2, src, dst)); err != nil {
		return nil, &filter.TransportError{
			Err: fmt.Errorf("PROXY header: %w", err), Timeout: ctx.Err() != nil,
			Transport: "failed to write proxy protocol header",
		}
	}
	return x.inner.Connect(ctx, w, o)
}

// send writes the first bytes of a connection, which always fit the socket's buffer.
func send(ctx context.Context, nc net.Conn, p []byte) error {
	if t, ok := ctx.Deadline(); ok {
		if err := nc.SetWriteDeadline(t); err != nil {
			return err
		}
	}
	_, err := nc.Write(p)
	return errors.Join(err, nc.SetWriteDeadline(time.Time{}))
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort()
	}
	return netip.AddrPort{}
}

// proxyHeader makes the header of either version (PROXY protocol, sections 2.1 and 2.2).
func proxyHeader(v2 bool, src, dst netip.AddrPort) []byte {
	s, d := src.Addr().Unmap(), dst.Addr().Unmap()
	known := s.IsValid() && d.IsValid() && s.Is4() == d.Is4()
	if !v2 {
		if !known {
			return []byte("PROXY UNKNOWN\r\n")
		}
		family := "TCP6"
		if s.Is4() {
			family = "TCP4"
		}
		return fmt.Appendf(nil, "PROXY %s %s %s %d %d\r\n", family, s, d, src.Port(), dst.Port())
	}
	out := []byte("\r\n\r\n\x00\r\nQUIT\n")
	if !known {
		return append(out, 0x20, 0, 0, 0) // LOCAL
	}
	family := byte(0x21)
	if s.Is4() {
		family = 0x11
	}
	out = append(out, 0x21, family)
	out = binary.BigEndian.AppendUint16(out, uint16(2*len(s.AsSlice())+4))
	out = append(append(out, s.AsSlice()...), d.AsSlice()...)
	out = binary.BigEndian.AppendUint16(out, src.Port())
	return binary.BigEndian.AppendUint16(out, dst.Port())
}
