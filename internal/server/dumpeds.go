package server

import (
	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/host"
)

// dumpEndpoints is the EndpointsConfigDump: the hosts as they are now.
func (s *Server) dumpEndpoints() proto.Message {
	out := &adminv3.EndpointsConfigDump{}
	s.clusters.Each(func(c *cluster.Cluster) {
		service, set := c.Endpoints()
		a, err := anypb.New(assignmentOf(service, set))
		if err != nil {
			s.log.Error("config_dump: " + err.Error())
			return
		}
		if c.Config().Kind == cluster.EDS {
			out.DynamicEndpointConfigs = append(out.DynamicEndpointConfigs,
				&adminv3.EndpointsConfigDump_DynamicEndpointConfig{EndpointConfig: a})
			return
		}
		out.StaticEndpointConfigs = append(out.StaticEndpointConfigs,
			&adminv3.EndpointsConfigDump_StaticEndpointConfig{EndpointConfig: a})
	})
	return out
}

func assignmentOf(service string, set *host.Set) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: service}
	groups := map[groupKey]*endpointv3.LocalityLbEndpoints{}
	for _, h := range set.Hosts {
		a := h.Attr()
		key := groupKey{priority: a.Priority}
		if a.Locality != nil {
			key.Locality = *a.Locality
		}
		g := groups[key]
		if g == nil {
			g = &endpointv3.LocalityLbEndpoints{
				Priority: a.Priority,
				Locality: &corev3.Locality{Region: key.Region, Zone: key.Zone, SubZone: key.SubZone},
			}
			groups[key] = g
			out.Endpoints = append(out.Endpoints, g)
		}
		g.LbEndpoints = append(g.LbEndpoints, endpointOf(h, a))
	}
	return out
}

type groupKey struct {
	host.Locality
	priority uint32
}

func endpointOf(h *host.Host, a *host.Attributes) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: addressOf(h.Addr()), Hostname: h.Hostname(),
		}},
		HealthStatus:        corev3.HealthStatus(corev3.HealthStatus_value[a.Health.String()]),
		LoadBalancingWeight: wrapperspb.UInt32(a.Weight),
	}
}

func addressOf(a stream.Addr) *corev3.Address {
	if a.Pipe != "" {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: a.Pipe}}}
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       a.IP.Addr().String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.IP.Port())},
	}}}
}
