// Package cluster is the upstream half of the proxy: it knows the clusters, chooses the host of a
// request, limits what a cluster may be burdened with, keeps the connections and counts.
//
// A Manager holds the clusters by name. The router asks it for one (Get), begins a stream on it
// (Cluster.NewStream) and keeps an Attempt for that; a TCP proxy does the same with Connect. A cluster
// that was replaced or removed goes on serving those who hold it.
//
// Configuration comes as protobuf: Compile checks a cluster without any side effect, Manager.Apply
// makes it live after its endpoints are known (warming). A cluster whose endpoints alone have changed
// is updated in place; hosts are kept by address, with their counters and connections.
//
// What thousands of clusters without traffic cost counts more than anything else here: settings and
// attributes that are equal are shared, and statistics, breakers, balancers and pools are made at
// their first use.
//
// Limitations: no zone aware routing, no host overrides, and no event logs of health.
package cluster
