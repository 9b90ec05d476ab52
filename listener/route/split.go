package route

import (
	"math"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"sidecar/api/header"
	"sidecar/internal/config"
	"sidecar/internal/match"
	"sidecar/internal/mutate"
)

// split is a choice of clusters by weight: one entry for each, of the same route.
type split struct {
	entries []*Entry
	// ends are the running sums of the weights.
	ends   []uint64
	header string // names the header that brings the random value; "" if none does
}

// pick returns the entry that a random value selects.
func (s *split) pick(h *header.Map, random uint64) *Entry {
	if s.header != "" {
		if v, ok := h.Get(s.header); ok {
			if n, ok := parseUint(v); ok {
				random = n
			}
		}
	}
	random %= s.ends[len(s.ends)-1]
	for i, end := range s.ends {
		if random < end {
			return s.entries[i]
		}
	}
	return nil
}

// parseUint reads a decimal number as absl::SimpleAtoi does: blanks around it and a plus are fine.
func parseUint(s string) (n uint64, ok bool) {
	s = strings.TrimPrefix(strings.Trim(s, " \t"), "+")
	for i := range len(s) {
		d := uint64(s[i] - '0')
		if d > 9 || n > (math.MaxUint64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, s != ""
}

// split reads weighted_clusters: base is the route's own entry, which is copied for each cluster.
func (c *compiler) split(p *config.Path, m *routev3.WeightedCluster, base *Entry) *split {
	weightedFields.Check(p, m, c.errs)
	s := &split{header: match.HeaderName(m.GetHeaderName())}
	var sum uint64
	for i, w := range m.GetClusters() {
		at := p.Field("clusters").Index(i)
		clusterWeightFields.Check(at, w, c.errs)
		switch {
		case w.GetName() == "" && w.GetClusterHeader() == "":
			c.errs.Add(at, "At least one of name or cluster_header need to be specified")
		case w.GetName() != "" && w.GetClusterHeader() != "":
			c.errs.Add(at, "Only one of name or cluster_header can be specified")
		case w.GetName() != "":
			c.checkCluster(at.Field("name"), "weighted ", w.GetName())
		}
		if w.GetWeight() == nil {
			c.errs.Add(at.Field("weight"), "is required")
		}
		sum += uint64(w.GetWeight().GetValue())
		s.entries = append(s.entries, c.clusterEntry(at, w, base))
		s.ends = append(s.ends, sum)
	}
	switch {
	case sum == 0:
		c.errs.Add(p, "Sum of weights in the weighted_cluster must be greater than 0.")
		return nil
	case sum > math.MaxUint32:
		c.errs.Addf(p, "The sum of weights of all weighted clusters of route %s exceeds %d", base.name,
			uint32(math.MaxUint32))
		return nil
	}
	return s
}

func (c *compiler) clusterEntry(p *config.Path, w *routev3.WeightedCluster_ClusterWeight, base *Entry) *Entry {
	e := *base
	e.cluster = w.GetName()
	e.Criteria = base.Criteria.Merge(c.criteria(p.Field("metadata_match"), w.GetMetadataMatch()))
	e.clusterHeader = match.HeaderName(w.GetClusterHeader())
	e.clusterHost = w.GetHostRewriteLiteral()
	e.filters = c.filterConfigs(p, w.GetTypedPerFilterConfig(), base.filters)
	e.request[0] = mutate.Compile(p, "request_headers", w.GetRequestHeadersToAdd(),
		w.GetRequestHeadersToRemove(), c.format, c.errs)
	e.response[0] = mutate.Compile(p, "response_headers", w.GetResponseHeadersToAdd(),
		w.GetResponseHeadersToRemove(), c.format, c.errs)
	return &e
}
