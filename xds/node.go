package xds

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
)

// Node completes the bootstrap's node with what the binary says of itself: management servers
// choose what to send by it, so it says what Envoy 1.40 says. extensions lists the extensions that
// are built in.
func Node(bootstrap *corev3.Node, extensions []*corev3.Extension) *corev3.Node {
	n := &corev3.Node{}
	if bootstrap != nil {
		proto.Merge(n, bootstrap)
	}
	n.UserAgentName = "envoy"
	n.UserAgentVersionType = &corev3.Node_UserAgentBuildVersion{
		UserAgentBuildVersion: &corev3.BuildVersion{
			Version: &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: 40},
		},
	}
	n.Extensions = extensions
	// Endpoints' over-provisioning and load reports are as Envoy's, whose two features these are.
	n.ClientFeatures = []string{
		"envoy.lb.does_not_support_overprovisioning", "envoy.lrs.supports_send_all_clusters",
	}
	return n
}
