package proxyprotocol

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/wire"
)

//nolint:gochecknoglobals // immutable tables
var (
	fields = config.Fields[*proxyv3.ProxyProtocolUpstreamTransport]{
		Used:    "config transport_socket",
		OffOnly: "allow_unspecified_address tlv_as_pool_key",
	}
	configFields = config.Fields[*corev3.ProxyProtocolConfig]{
		Used: "version pass_through_tlvs added_tlvs",
	}
	passFields = config.Fields[*corev3.ProxyProtocolPassThroughTLVs]{Used: "match_type tlv_type"}
	tlvFields  = config.Fields[*corev3.TlvEntry]{Used: "type value", Refused: "format_string"}
	rawFields  = config.Fields[*rawbufferv3.RawBuffer]{}
)

// proxyStats are "cluster.NAME.upstream.proxyprotocol.".
type proxyStats struct {
	TooLong stats.Counter `stat:"v2_tlvs_exceed_max_length"`
}

// Transport is a compiled ProxyProtocolUpstreamTransport. It implements filter.ClientTransport.
type Transport struct {
	inner filter.UpstreamTransport // nil: plaintext
	v2    bool
	added []stream.ProxyTLV
	// Which TLVs of the client's header are passed on.
	passAll bool
	pass    [256]bool
	scope   func() *stats.Scope
}

var (
	_ filter.ClientTransport = (*Transport)(nil)
	_ filter.Warmer          = (*Transport)(nil)
	_ filter.Awaiter         = (*Transport)(nil)
	_ filter.Retirer         = (*Transport)(nil)
)

// Compile compiles the transport socket, with the one inside it from a table by type.
func Compile(m *proxyv3.ProxyProtocolUpstreamTransport, c filter.TransportContext,
	table map[string]*filter.TransportEntry,
) (*Transport, error) {
	var errs config.Errors
	fields.Check(nil, m, &errs)
	x := &Transport{v2: m.GetConfig().GetVersion() == corev3.ProxyProtocolConfig_V2, scope: c.Scope}
	p := config.Field("config")
	if m.GetConfig() != nil {
		configFields.Check(p, m.GetConfig(), &errs)
	}
	x.compileTLVs(p, m.GetConfig(), &errs)
	x.compileInner(config.Field("transport_socket"), m.GetTransportSocket(), c, table, &errs)
	if err := errs.Err(); err != nil {
		return nil, err
	}
	return x, nil
}

func (x *Transport) compileTLVs(p *config.Path, m *corev3.ProxyProtocolConfig, errs *config.Errors) {
	if pass := m.GetPassThroughTlvs(); pass != nil {
		at := p.Field("pass_through_tlvs")
		passFields.Check(at, pass, errs)
		x.passAll = pass.GetMatchType() == corev3.ProxyProtocolPassThroughTLVs_INCLUDE_ALL
		for _, kind := range pass.GetTlvType() {
			x.pass[byte(kind)] = true // validated to be less than 256
		}
	}
	for i, e := range m.GetAddedTlvs() {
		at := p.Field("added_tlvs").Index(i)
		tlvFields.Check(at, e, errs)
		if e.GetType() > 255 {
			errs.Add(at.Field("type"), "must be less than 256")
		}
		x.added = append(x.added, stream.ProxyTLV{Type: byte(e.GetType()), Value: e.GetValue()})
	}
}

func (x *Transport) compileInner(p *config.Path, m *corev3.TransportSocket, c filter.TransportContext,
	table map[string]*filter.TransportEntry, errs *config.Errors,
) {
	if m == nil {
		errs.Add(p, "is required")
		return
	}
	p = p.Field("typed_config")
	name := string(config.TypeName(m.GetTypedConfig()))
	if name == string((&rawbufferv3.RawBuffer{}).ProtoReflect().Descriptor().FullName()) {
		if raw, ok := config.OpenAs[*rawbufferv3.RawBuffer](p, m.GetTypedConfig(), errs); ok {
			rawFields.Check(p, raw, errs)
		}
		return
	}
	e := table[name]
	if e == nil {
		errs.Addf(p, "transport socket %q is not supported", name)
		return
	}
	opened, ok := config.OpenAs[proto.Message](p, m.GetTypedConfig(), errs)
	if !ok {
		return
	}
	made, err := e.Compile(opened, c)
	if err != nil {
		errs.Wrap(p, err)
		return
	}
	if x.inner, ok = made.(filter.UpstreamTransport); !ok {
		errs.Add(p, "is not a transport socket for clusters")
	}
}

// Ready implements filter.UpstreamTransport.
func (x *Transport) Ready() bool { return x.inner == nil || x.inner.Ready() }

// Warm implements filter.Warmer.
func (x *Transport) Warm(ctx context.Context) error {
	if w, ok := x.inner.(filter.Warmer); ok {
		return w.Warm(ctx)
	}
	return nil
}

// Await implements filter.Awaiter.
func (x *Transport) Await(ctx context.Context) {
	if a, ok := x.inner.(filter.Awaiter); ok {
		a.Await(ctx)
	}
}

// Retire implements filter.Retirer.
func (x *Transport) Retire() {
	if r, ok := x.inner.(filter.Retirer); ok {
		r.Retire()
	}
}

// AppendClientKey implements filter.ClientTransport (ProxyProtocolData::asStringForHash).
//
// DIVERGES(proxy-tlv-key): the TLVs that are passed on are part of the key; in Envoy a connection of one
// client with other TLVs might be taken.
func (x *Transport) AppendClientKey(key []byte, c *filter.Client) []byte {
	key = append(append(key, "\x00p"...), c.Remote.String()...)
	key = append(append(key, "\x00d"...), c.Local.String()...)
	for _, t := range c.TLVs {
		if x.v2 && (x.passAll || x.pass[t.Type]) {
			key = append(key, 0, 't', t.Type, byte(len(t.Value)>>8), byte(len(t.Value)))
			key = append(key, t.Value...)
		}
	}
	return key
}

// Connect implements filter.UpstreamTransport.
func (x *Transport) Connect(ctx context.Context, w *wire.Conn, o *filter.ConnectOptions,
) (*stream.TLSInfo, *filter.TransportError) {
	if err := send(ctx, w.Net(), x.header(w.Net(), o.Client)); err != nil {
		return nil, &filter.TransportError{Err: fmt.Errorf("PROXY header: %w", err), Timeout: ctx.Err() != nil}
	}
	if x.inner == nil {
		return nil, nil
	}
	return x.inner.Connect(ctx, w, o)
}

func (x *Transport) header(nc net.Conn, c *filter.Client) []byte {
	if !x.v2 {
		if c == nil {
			// Envoy: with no downstream connection the header tells of its own one.
			return headerV1(addrPort(nc.LocalAddr()), addrPort(nc.RemoteAddr()))
		}
		return headerV1(c.Remote.IP, c.Local.IP)
	}
	if c == nil {
		return headerV2(netip.AddrPort{}, netip.AddrPort{}, nil)
	}
	return headerV2(c.Remote.IP, c.Local.IP, x.tlvs(c.TLVs))
}

// tlvs puts together what is added and what is passed on: one of a type, unless the client sent it
// several times.
func (x *Transport) tlvs(in []stream.ProxyTLV) []byte {
	var out []byte
	var seen [256]bool
	add := func(t stream.ProxyTLV) {
		if len(out)+3+len(t.Value) > maxTLVs {
			stats.Bind[proxyStats](x.scope().Sub("upstream.proxyprotocol")).TooLong.Inc()
			return
		}
		out = append(out, t.Type, byte(len(t.Value)>>8), byte(len(t.Value)))
		out = append(out, t.Value...)
	}
	for _, t := range x.added {
		if !seen[t.Type] {
			seen[t.Type] = true
			add(t)
		}
	}
	for _, t := range in {
		if (x.passAll || x.pass[t.Type]) && !seen[t.Type] {
			add(t)
		}
	}
	return out
}

// send writes the first bytes of a connection, before anybody else writes to it.
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
