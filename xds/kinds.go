package xds

import (
	"sidecar/internal/config/source"
)

// kind is what the client knows of a resource type.
type kind struct {
	url string
	// rank orders requests of one stream: clusters before the endpoints they need, listeners before
	// their routes (Envoy's order of warming).
	rank int
	// full is true when a state-of-the-world response to a wildcard subscription lists everything,
	// so that what is missing was removed.
	full bool
	// service and noun make the methods of the type's own service: service/StreamNouns, DeltaNouns.
	service, noun string
	// singular is what one resource is called in errors.
	singular string
	// rejected begins the text of a NACK, as Envoy's does.
	rejected string
	// alone gives each subscription a stream of its own when the source isn't ADS.
	alone bool
}

const otherRank = 100

// kindOf returns what is known of a type URL. Any type can be subscribed to over ADS and from
// files.
func kindOf(url string) kind {
	k := kind{url: url, rank: otherRank, singular: "resource"}
	switch url {
	case source.ClusterType:
		k.rank, k.full, k.rejected = 0, true, "Error adding/updating cluster(s) "
		k.singular = "cluster"
		k.service, k.noun = "envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters"
	case source.EndpointType:
		k.rank = 1
		k.service, k.noun = "envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints"
	case source.ListenerType:
		k.rank, k.full, k.rejected = 2, true, "Error adding/updating listener(s) "
		k.singular = "listener"
		k.service, k.noun = "envoy.service.listener.v3.ListenerDiscoveryService", "Listeners"
	case source.RouteType:
		k.rank = 3
		k.service, k.noun = "envoy.service.route.v3.RouteDiscoveryService", "Routes"
	case source.ExtensionType:
		k.rank = 4
		k.service = "envoy.service.extension.v3.ExtensionConfigDiscoveryService"
		k.noun = "ExtensionConfigs"
	case source.SecretType:
		// Agents answer a stream with the one secret that it asks for.
		k.rank, k.alone = 5, true
		k.service, k.noun = "envoy.service.secret.v3.SecretDiscoveryService", "Secrets"
	}
	return k
}

const adsService = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"

func adsMethod(delta bool) string {
	if delta {
		return adsService + "DeltaAggregatedResources"
	}
	return adsService + "StreamAggregatedResources"
}

// method is that of the type's own service; empty when the type has none.
func (k *kind) method(delta bool) string {
	switch {
	case k.service == "":
		return ""
	case delta:
		return "/" + k.service + "/Delta" + k.noun
	}
	return "/" + k.service + "/Stream" + k.noun
}
