package cluster_test

import (
	"fmt"
	"runtime"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/cluster"
)

// istioCluster is a cluster as a mesh's control plane writes it.
const istioCluster = `
type: EDS
eds_cluster_config: {eds_config: {ads: {}, initial_fetch_timeout: 0s}}
connect_timeout: 10s
lb_policy: LEAST_REQUEST
circuit_breakers: {thresholds: [{max_connections: 4294967295, max_pending_requests: 4294967295,
  max_requests: 4294967295, max_retries: 4294967295, track_remaining: true}]}
common_lb_config: {locality_weighted_lb_config: {}}
metadata: {filter_metadata: {istio: {services: [{host: %q, name: %q, namespace: shop}]}}}
`

// TestSize holds the heap that clusters without traffic take. The whole process may grow by 12 KB for
// a cluster with two hosts and its virtual host; ours is the larger part of that.
func TestSize(t *testing.T) {
	const n = 500
	for name, tt := range map[string]struct {
		make func(i int) string
		most uint64
	}{
		"static": {most: 2560, make: func(i int) string {
			name := fmt.Sprintf("service-%d.shop.svc.cluster.local", i)
			return static(name, port(uint16(i)), port(uint16(i+1)))
		}},
		"eds with metadata": {most: 4608, make: func(i int) string {
			name := fmt.Sprintf("outbound|80||service-%d.shop.svc.cluster.local", i)
			return "name: \"" + name + "\"" + fmt.Sprintf(istioCluster, name, name)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			msgs := make([][]byte, n)
			for i := range msgs {
				raw, err := proto.Marshal(parse(t, tt.make(i)))
				if err != nil {
					t.Fatal(err)
				}
				msgs[i] = raw
			}
			before := heap()
			for i, raw := range msgs {
				msg := &clusterv3.Cluster{}
				if err := proto.Unmarshal(raw, msg); err != nil {
					t.Fatal(err)
				}
				conf, err := cluster.Compile(msg, r.Env())
				if err != nil {
					t.Fatal(err)
				}
				r.Apply(conf, false, "")
				if name != "static" {
					_ = r.subs.last().answer("x", assignment(t, fmt.Sprintf("cluster_name: %q\nendpoints:\n"+
						"- locality: {region: r, zone: z}\n  lb_endpoints:\n"+
						"  - endpoint: {address: {socket_address: {address: 10.0.%d.%d, port_value: 80}}}\n"+
						"  - endpoint: {address: {socket_address: {address: 10.1.%d.%d, port_value: 80}}}\n",
						msg.GetName(), i/256, i%256, i/256, i%256)))
				}
			}
			each := (heap() - before) / n
			t.Logf("%d bytes a cluster", each)
			if each > tt.most {
				t.Errorf("a cluster takes %d bytes of heap, more than %d", each, tt.most)
			}
			if c := r.Get(parse(t, tt.make(7)).GetName()); c == nil || len(c.Hosts().Hosts) != 2 {
				t.Fatal("the clusters are not there")
			}
			runtime.KeepAlive(msgs)
		})
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
