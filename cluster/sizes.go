package cluster

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"sidecar/internal/config"
)

//nolint:gochecknoglobals // immutable table
var trackFields = config.Fields[*clusterv3.TrackClusterStats]{
	Used: "request_response_sizes", OffOnly: "timeout_budgets per_endpoint_stats",
}

// Sizes are those of one attempt, in bytes; Fields are the numbers of headers.
type Sizes struct {
	RequestHead, RequestFields   int
	ResponseHead, ResponseFields int // 0: there was no response
	RequestBody, ResponseBody    uint64
}

// ChargeSizes records the sizes of an attempt that has ended, if the cluster tracks them.
func (c *Cluster) ChargeSizes(s *Sizes) {
	if !c.conf.Load().trackSizes {
		return
	}
	h := c.sizes.Get()
	h.RequestHead.Record(uint64(s.RequestHead))
	h.RequestFields.Record(uint64(s.RequestFields))
	h.RequestBody.Record(s.RequestBody)
	if s.ResponseHead > 0 {
		h.ResponseHead.Record(uint64(s.ResponseHead))
		h.ResponseFields.Record(uint64(s.ResponseFields))
		h.ResponseBody.Record(s.ResponseBody)
	}
}

func (c *compiler) track() {
	if m := c.msg.GetTrackClusterStats(); m != nil {
		trackFields.Check(config.Field("track_cluster_stats"), m, c.errs)
		c.set.trackSizes = m.GetRequestResponseSizes()
	}
}
