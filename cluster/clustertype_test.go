package cluster_test

import (
	"testing"

	"sidecar/cluster"
)

// TestClusterType_Named has cluster_type name a kind that type could.
func TestClusterType_Named(t *testing.T) {
	t.Parallel()
	const endpoint = "\nload_assignment: {cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: " +
		"{socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}"
	for name, x := range map[string]struct {
		more string
		want cluster.Kind
	}{
		"static":       {endpoint, cluster.Static},
		"strict_dns":   {endpoint + "\ndns_refresh_rate: 9s", cluster.StrictDNS},
		"logical_dns":  {endpoint, cluster.LogicalDNS},
		"eds":          {"\neds_cluster_config: {eds_config: {ads: {}}}", cluster.EDS},
		"original_dst": {"\nlb_policy: CLUSTER_PROVIDED", cluster.OriginalDst},
	} {
		conf, err := cluster.Compile(parse(t, "name: a\ncluster_type: {name: envoy.cluster."+name+"}"+x.more), cluster.Env{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if conf.Kind != x.want {
			t.Errorf("%s: kind %d, want %d", name, conf.Kind, x.want)
		}
	}
}
