package server

import (
	"fmt"

	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/cluster/proxyprotocol"
	"sidecar/internal/tlsctx"
)

// transports is the table of transport sockets, by configuration type. raw_buffer is none: whoever
// compiles a transport socket takes it for plaintext.
func (s *Server) transports() map[string]*filter.TransportEntry {
	out := map[string]*filter.TransportEntry{}
	for _, e := range []*filter.TransportEntry{
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
			Name:   "envoy.transport_sockets.upstream_proxy_protocol",
			Config: &proxyv3.ProxyProtocolUpstreamTransport{},
			Compile: func(m proto.Message, c filter.TransportContext) (any, error) {
				x, ok := m.(*proxyv3.ProxyProtocolUpstreamTransport)
				if !ok {
					return nil, fmt.Errorf("configuration is a %T", m)
				}
				return compiled(proxyprotocol.Compile(x, c, out))
			},
		},
	} {
		out[typeName(e.Config)] = e
	}
	return out
}

func (s *Server) tlsEnv() *tlsctx.Env {
	return &tlsctx.Env{Secrets: s.secrets, Secret: s.secrets.env, Live: &s.secrets.contexts}
}
