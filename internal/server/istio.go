package server

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	exchangepb "sidecar/api/sidecar/istio/exchange"
	statspb "sidecar/api/sidecar/istio/stats"
	"sidecar/api/stream"
	"sidecar/listener/filters/http/alpn"
	"sidecar/listener/filters/http/istiostats"
	"sidecar/listener/filters/http/peermetadata"
	"sidecar/listener/filters/network/metadataexchange"
)

// istioHTTP are the HTTP filters that Istio's own proxy adds to Envoy's.
func (s *Server) istioHTTP() []filter.HTTPEntry {
	return []filter.HTTPEntry{
		alpn.Entry(func(name string, down stream.Protocol) (stream.Protocol, map[string]map[string]any, bool) {
			c := s.clusters.Get(name)
			if c == nil {
				return stream.ProtocolNone, nil, false
			}
			conf := c.Config()
			return conf.HTTP.Version(down), conf.Metadata, true
		}),
		peermetadata.Entry(peermetadata.Env{
			NodeID: s.boot.Node.GetId(), Node: s.boot.Node.GetMetadata(),
			ClusterMetadata: func(name string) map[string]map[string]any {
				if c := s.clusters.Get(name); c != nil {
					return c.Config().Metadata
				}
				return nil
			},
		}),
		istiostats.Entry(s.istioStats()),
	}
}

func (s *Server) istioStats() istiostats.Env {
	node := s.boot.Node.GetMetadata()
	return istiostats.Env{
		NodeID: s.boot.Node.GetId(), Node: node, Store: s.store,
		Version: node.GetFields()["ISTIO_VERSION"].GetStringValue(),
	}
}

// istioNetwork are the network filters that Istio's own proxy adds to Envoy's.
func (s *Server) istioNetwork() []*filter.NetworkEntry {
	return []*filter.NetworkEntry{
		{
			Name: metadataexchange.Name, Config: &exchangepb.MetadataExchange{}, Upstream: true,
			Compile: func(m proto.Message, c filter.NetworkContext) (any, error) {
				msg, ok := m.(*exchangepb.MetadataExchange)
				if !ok {
					return nil, fmt.Errorf("configuration is a %T", m)
				}
				return compiled(metadataexchange.Compile(msg, c.Scope, metadataexchange.Env{
					NodeID: s.boot.Node.GetId(), Node: s.boot.Node.GetMetadata(),
				}))
			},
		},
		{
			Name: istiostats.Name, Config: &statspb.PluginConfig{},
			Compile: func(m proto.Message, c filter.NetworkContext) (any, error) {
				msg, ok := m.(*statspb.PluginConfig)
				if !ok {
					return nil, fmt.Errorf("configuration is a %T", m)
				}
				return istiostats.CompileNetwork(msg, c, s.istioStats())
			},
		},
	}
}

// runtimeSwitch reads a boolean of the runtime.
func (s *Server) runtimeSwitch(key string) (on, ok bool) {
	for _, l := range slices.Backward(s.boot.Runtime) {
		if v, found := l.Values[key]; found && v.IsBool {
			return v.Bool, true
		}
	}
	return false, false
}
