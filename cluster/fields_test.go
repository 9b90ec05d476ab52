package cluster

import (
	"testing"

	"sidecar/cluster/health"
	"sidecar/cluster/outlier"
	"sidecar/internal/config/configtest"
)

func TestFieldsAccounted(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, configtest.Elsewhere{
		"envoy.config.core.v3.ConfigSource",         // internal/config/source
		"envoy.config.core.v3.HeaderValueOption",    // internal/mutate
		"envoy.type.matcher.v3.StringMatcher",       // internal/match
		"envoy.config.core.v3.Http2ProtocolOptions", // internal/config/protocol
	},
		subsetFields, selectorFields,
		health.Fields, health.HTTPFields, health.TCPFields, health.GRPCFields, health.PayloadFields,
		health.StatusFields, checkFields,
		outlier.Fields, ringHashFields, maglevFields, hashingFields, slowStartFields, extRingHashFields,
		extMaglevFields, extHashingFields, extSlowStartFields, wrrLocalityFields,
		clusterFields, metadataFields, addressFields, socketAddressFields, pipeFields,
		assignmentFields, policyFields, dropFields, localityFields, lbEndpointListFields,
		localityNameFields, lbEndpointFields, endpointFields, additionalAddressFields,
		networkFields, transportFields, socketMatchFields, autoFields, bindFields, extraSourceFields, upstreamFields, keepaliveFields,
		trackFields, forwardFields, dnsCacheFields, dnsBreakerFields, autoSNIFields, preconnectFields, breakersFields, thresholdsFields, budgetFields,
		commonLbFields, localityWeightedFields, zoneAwareFields, roundRobinFields, leastRequestFields,
		biasFields, policiesField, policyField, typedField, extRoundRobinFields, extRandomFields,
		extLeastRequestFields, extLocalityFields, extLocalityWeightedFields, extZoneAwareFields,
		httpOptionsFields, explicitFields, downstreamFields, commonFields, http1Fields,
		formatFields, properCaseFields,
		metadataKeyFields, segmentFields, edsFields, refreshFields, originalDstFields, clusterTypeFields, dnsClusterFields,
		dnsClusterRefreshFields, dnsResolutionFields, dnsOptionFields, caresFields, getaddrinfoFields,
		preserveCaseFields,
	)
}
