package server_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"sidecar/xds/xdstest"
)

// TestSocketMatch has endpoints change what their connections run on by metadata of their own, or of
// their locality.
func TestSocketMatch(t *testing.T) {
	t.Parallel()
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	up.Config.SetKeepAlivesEnabled(false)
	up.StartTLS()
	t.Cleanup(up.Close)
	srv := xdstest.New(t)
	const match = "filter_metadata: {envoy.transport_socket_match: {mode: %s}}"
	push := func(endpoint, locality string) {
		srv.Set(resource(t, &endpointv3.ClusterLoadAssignment{}, fmt.Sprintf(`
cluster_name: c
endpoints: [{lb_endpoints: [{endpoint: {address: %s}, metadata: {%s}}], metadata: {%s}}]
`, socketAddress(up.Listener.Addr().String()), endpoint, locality)))
	}
	push(fmt.Sprintf(match, "tls"), fmt.Sprintf(match, "plain"))
	srv.Set(resource(t, &clusterv3.Cluster{}, `
name: c
type: EDS
eds_cluster_config: {eds_config: `+adsSource+`}
transport_socket_matches:
- name: secured
  match: {mode: tls}
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext}
`))
	srv.Set(rdsListener(t, "l", "r", "", ""))
	srv.Set(routes(t, "r", "c"))
	p := live(t, adsBootstrap("GRPC", srv.Addr()))
	addr := p.waitListener("l")
	check := func(what string, want, secured, plain int) {
		t.Helper()
		p.waitStat("cluster.c.secured.total_match_count", secured)
		p.waitStat("cluster.c.default.total_match_count", plain)
		if a := p.get(addr, "/"); a.status != want {
			t.Errorf("%s: got %d %q", what, a.status, a.body)
		}
	}
	check("the endpoint's own", 200, 1, 0)
	push(fmt.Sprintf(match, "plain"), fmt.Sprintf(match, "none"))
	check("none that matches", 400, 1, 1)
	push("", fmt.Sprintf(match, "tls"))
	check("the locality's", 200, 2, 1)
}
