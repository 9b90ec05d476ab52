package listener

import (
	"context"
	"errors"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/wire"
)

//nolint:gochecknoglobals // immutable table
var transportFields = config.Fields[*corev3.TransportSocket]{Used: "name typed_config"}

const rawBuffer = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"

// compileTransport makes the transport of a chain; it is nil for plaintext.
func (c *Config) compileTransport(p *config.Path, fc *listenerv3.FilterChain, env *Env, errs *config.Errors,
) filter.DownstreamTransport {
	ts := fc.GetTransportSocket()
	if ts == nil {
		return nil
	}
	transportFields.Check(p, ts, errs)
	p = p.Field("typed_config")
	name := string(config.TypeName(ts.GetTypedConfig()))
	if name == rawBuffer {
		return nil
	}
	e := env.Transports[name]
	if e == nil {
		errs.Addf(p, "transport socket %q (%s) is not supported", ts.GetName(), name)
		return nil
	}
	opened, ok := config.OpenAs[proto.Message](p, ts.GetTypedConfig(), errs)
	if !ok {
		return nil
	}
	made, err := e.Compile(opened, filter.TransportContext{
		Path: p.String(), Scope: func() *stats.Scope { return c.scope }, Server: env.Scope, Log: env.Log,
		ServerNames: fc.GetFilterChainMatch().GetServerNames(),
	})
	if err != nil {
		errs.Wrap(p, err)
		return nil
	}
	t, ok := made.(filter.DownstreamTransport)
	if !ok {
		errs.Addf(p, "transport socket %q (%s) is not one for listeners", ts.GetName(), name)
		return nil
	}
	return t
}

// timeoutDetails is Envoy's text for a transport that was not ready in time
// (ServerConnectionImpl::onTransportSocketConnectTimeout); its log lines have no failure reason then.
const timeoutDetails = "transport socket timeout was reached"

// secure makes the connection's transport ready; false means that it is to be closed. The drain of the
// chain, or its end, interrupts it by closing the connection.
//
// DIVERGES(filters_after_handshake): network filters begin once the transport is ready; a TCP proxy of
// Envoy connects to its upstream while the handshake goes on.
func (g *generation) secure(ch *Chain, w *wire.Conn, info *stream.ConnInfo) bool {
	if ch.transport == nil {
		return true
	}
	ctx := context.Background() //nolint:forbidigo // closing the connection ends what it is for
	if ch.connectTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, ch.connectTimeout)
		defer cancel()
	}
	err := ch.transport.Accept(ctx, w, info)
	if err == nil {
		if info.TLS != nil && info.TLS.ALPN != "" {
			info.ALPN = info.TLS.ALPN
		}
		return true
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		g.stats.CxConnectTimeout.Inc()
		info.TransportFailure, info.TerminationDetail = "", timeoutDetails
	}
	return false
}
