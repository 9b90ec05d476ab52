package server

import (
	"fmt"

	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/internal/tlsctx"
)

// transports is the table of transport sockets, by configuration type.
func (s *Server) transports() map[string]*filter.TransportEntry {
	out := map[string]*filter.TransportEntry{}
	for _, e := range []*filter.TransportEntry{
		{
			Name: "envoy.transport_sockets.raw_buffer", Config: &rawv3.RawBuffer{},
			Compile: func(proto.Message, filter.TransportContext) (any, error) { return tlsctx.Raw{}, nil },
		},
		{
			Name: "envoy.transport_sockets.tls", Config: &tlsv3.DownstreamTlsContext{},
			Compile: func(m proto.Message, c filter.TransportContext) (any, error) {
				x, ok := m.(*tlsv3.DownstreamTlsContext)
				if !ok {
					return nil, fmt.Errorf("configuration is a %T", m)
				}
				return compiled(tlsctx.CompileDownstream(x, c, s.tlsEnv()))
			},
		},
		{
			Name: "envoy.transport_sockets.tls", Config: &tlsv3.UpstreamTlsContext{},
			Compile: func(m proto.Message, c filter.TransportContext) (any, error) {
				x, ok := m.(*tlsv3.UpstreamTlsContext)
				if !ok {
					return nil, fmt.Errorf("configuration is a %T", m)
				}
				return compiled(tlsctx.CompileUpstream(x, c, s.tlsEnv()))
			},
		},
		{
			Name:    "envoy.transport_sockets.upstream_proxy_protocol",
			Config:  &proxyv3.ProxyProtocolUpstreamTransport{},
			Compile: s.compileProxyTransport,
		},
	} {
		out[typeName(e.Config)] = e
	}
	return out
}

func (s *Server) tlsEnv() *tlsctx.Env {
	return &tlsctx.Env{Secrets: s.secrets, Secret: s.secrets.env}
}

// compileProxyTransport makes a transport that sends a PROXY header before another one begins.
func (s *Server) compileProxyTransport(m proto.Message, c filter.TransportContext) (any, error) {
	x, ok := m.(*proxyv3.ProxyProtocolUpstreamTransport)
	if !ok {
		return nil, fmt.Errorf("configuration is a %T", m)
	}
	return compiled(tlsctx.CompileProxy(x, c, s.transports()))
}
