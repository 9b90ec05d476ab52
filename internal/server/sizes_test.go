package server_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestTrackSizes has a histogram for each size of the requests to a cluster that tracks them.
func TestTrackSizes(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 1000))
	}))
	t.Cleanup(srv.Close)
	p := live(t, versions(srv.Listener.Addr().String(), false, "")+"    track_cluster_stats: {request_response_sizes: true}\n")
	p.getAs(noReuse(t), p.listener("l"), "x")
	p.wait("the histograms", func() bool {
		text := p.adminGet("/stats/prometheus")
		for _, name := range []string{
			"upstream_rq_headers_size", "upstream_rq_headers_count", "upstream_rs_headers_size", "upstream_rs_headers_count",
		} {
			if !strings.Contains(text, "envoy_cluster_"+name+`_count{envoy_cluster_name="c"} 1`) {
				return false
			}
		}
		return strings.Contains(text, `envoy_cluster_upstream_rq_body_size_sum{envoy_cluster_name="c"} 0`) &&
			strings.Contains(text, `envoy_cluster_upstream_rs_body_size_sum{envoy_cluster_name="c"} 10`)
	})
}
