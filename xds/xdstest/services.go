package xdstest

import (
	"context"

	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservice "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	extensionservice "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	listenerservice "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routeservice "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	secretservice "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"google.golang.org/grpc"

	"sidecar/internal/config/source"
)

// services are the discovery services, on the state-of-the-world and incremental servers of
// go-control-plane. (Its combined server would pull in a module for rate limit configs.)
type services struct {
	clusterservice.UnimplementedClusterDiscoveryServiceServer
	endpointservice.UnimplementedEndpointDiscoveryServiceServer
	extensionservice.UnimplementedExtensionConfigDiscoveryServiceServer
	listenerservice.UnimplementedListenerDiscoveryServiceServer
	routeservice.UnimplementedRouteDiscoveryServiceServer
	secretservice.UnimplementedSecretDiscoveryServiceServer
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	sotw  sotw.Server
	delta delta.Server
}

func register(ctx context.Context, g *grpc.Server, c cache.Cache, log *eventLog) {
	s := &services{
		sotw: sotw.NewServer(ctx, c, log), delta: delta.NewServer(ctx, c, log),
	}
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
	clusterservice.RegisterClusterDiscoveryServiceServer(g, s)
	endpointservice.RegisterEndpointDiscoveryServiceServer(g, s)
	listenerservice.RegisterListenerDiscoveryServiceServer(g, s)
	routeservice.RegisterRouteDiscoveryServiceServer(g, s)
	secretservice.RegisterSecretDiscoveryServiceServer(g, s)
	extensionservice.RegisterExtensionConfigDiscoveryServiceServer(g, s)
}

const anyType = "" // of an aggregated stream

func (s *services) StreamAggregatedResources(
	st discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer,
) error {
	return s.sotw.StreamHandler(st, anyType)
}

func (s *services) DeltaAggregatedResources(
	st discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer,
) error {
	return s.delta.DeltaStreamHandler(st, anyType)
}

func (s *services) StreamClusters(st clusterservice.ClusterDiscoveryService_StreamClustersServer) error {
	return s.sotw.StreamHandler(st, source.ClusterType)
}

func (s *services) DeltaClusters(st clusterservice.ClusterDiscoveryService_DeltaClustersServer) error {
	return s.delta.DeltaStreamHandler(st, source.ClusterType)
}

func (s *services) StreamEndpoints(
	st endpointservice.EndpointDiscoveryService_StreamEndpointsServer,
) error {
	return s.sotw.StreamHandler(st, source.EndpointType)
}

func (s *services) DeltaEndpoints(
	st endpointservice.EndpointDiscoveryService_DeltaEndpointsServer,
) error {
	return s.delta.DeltaStreamHandler(st, source.EndpointType)
}

func (s *services) StreamListeners(
	st listenerservice.ListenerDiscoveryService_StreamListenersServer,
) error {
	return s.sotw.StreamHandler(st, source.ListenerType)
}

func (s *services) DeltaListeners(
	st listenerservice.ListenerDiscoveryService_DeltaListenersServer,
) error {
	return s.delta.DeltaStreamHandler(st, source.ListenerType)
}

func (s *services) StreamRoutes(st routeservice.RouteDiscoveryService_StreamRoutesServer) error {
	return s.sotw.StreamHandler(st, source.RouteType)
}

func (s *services) DeltaRoutes(st routeservice.RouteDiscoveryService_DeltaRoutesServer) error {
	return s.delta.DeltaStreamHandler(st, source.RouteType)
}

func (s *services) StreamSecrets(st secretservice.SecretDiscoveryService_StreamSecretsServer) error {
	return s.sotw.StreamHandler(st, source.SecretType)
}

func (s *services) DeltaSecrets(st secretservice.SecretDiscoveryService_DeltaSecretsServer) error {
	return s.delta.DeltaStreamHandler(st, source.SecretType)
}

func (s *services) StreamExtensionConfigs(
	st extensionservice.ExtensionConfigDiscoveryService_StreamExtensionConfigsServer,
) error {
	return s.sotw.StreamHandler(st, source.ExtensionType)
}

func (s *services) DeltaExtensionConfigs(
	st extensionservice.ExtensionConfigDiscoveryService_DeltaExtensionConfigsServer,
) error {
	return s.delta.DeltaStreamHandler(st, source.ExtensionType)
}
