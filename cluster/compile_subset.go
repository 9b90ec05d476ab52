package cluster

import (
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"sidecar/api/stats"
	"sidecar/cluster/lb"
	"sidecar/internal/config"
)

var (
	subsetFields = config.Fields[*clusterv3.Cluster_LbSubsetConfig]{
		Used: `fallback_policy default_subset subset_selectors locality_weight_aware scale_locality_weight
			panic_mode_any list_as_any`,
		OffOnly: "metadata_fallback_policy",
	}
	selectorFields = config.Fields[*clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector]{
		Used: "keys single_host_per_subset fallback_policy fallback_keys_subset",
	}
)

// subsets compiles lb_subset_config, which does nothing without selectors, as in Envoy.
func (c *compiler) subsets(p *config.Path, m *clusterv3.Cluster_LbSubsetConfig) {
	if m == nil {
		return
	}
	subsetFields.Check(p, m, c.errs)
	out := &lb.Subsets{
		LocalityWeights: m.GetLocalityWeightAware(), ScaleWeights: m.GetScaleLocalityWeight(),
		PanicAny: m.GetPanicModeAny(), ListAsAny: m.GetListAsAny(),
		Default: lb.NewCriteria(m.GetDefaultSubset().AsMap()),
	}
	switch m.GetFallbackPolicy() {
	case clusterv3.Cluster_LbSubsetConfig_ANY_ENDPOINT:
		out.Fallback = lb.FallbackAny
	case clusterv3.Cluster_LbSubsetConfig_DEFAULT_SUBSET:
		out.Fallback = lb.FallbackDefault
	case clusterv3.Cluster_LbSubsetConfig_NO_FALLBACK:
		out.Fallback = lb.FallbackNone
	}
	for i, s := range m.GetSubsetSelectors() {
		out.Selectors = append(out.Selectors, c.subsetSelector(p.Field("subset_selectors").Index(i), s))
	}
	if len(out.Selectors) == 0 {
		return
	}
	if c.conf.Kind == OriginalDst || c.msg.GetLbPolicy() == clusterv3.Cluster_CLUSTER_PROVIDED {
		c.errs.Add(p, "cannot be combined with lb_policy CLUSTER_PROVIDED")
	}
	c.set.lb.Subsets = out
}

func (c *compiler) subsetSelector(p *config.Path, m *clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector) lb.Selector {
	selectorFields.Check(p, m, c.errs)
	sel := lb.Selector{Keys: sortedKeys(m.GetKeys()), Single: m.GetSingleHostPerSubset()}
	if len(sel.Keys) == 0 {
		c.errs.Add(p.Field("keys"), "must not be empty")
	}
	if sel.Single && len(sel.Keys) != 1 {
		c.errs.Add(p, "subset selector: single_host_per_subset requires exactly one key")
	}
	by := m.GetFallbackKeysSubset()
	if m.GetFallbackPolicy() != clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_KEYS_SUBSET {
		if len(by) > 0 {
			c.errs.Add(p.Field("fallback_keys_subset"), "can be set only for KEYS_SUBSET fallback_policy")
		}
	}
	switch m.GetFallbackPolicy() {
	case clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_NO_FALLBACK:
		sel.Fallback = lb.FallbackNone
	case clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_ANY_ENDPOINT:
		sel.Fallback = lb.FallbackAny
	case clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_DEFAULT_SUBSET:
		sel.Fallback = lb.FallbackDefault
	case clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_KEYS_SUBSET:
		sel.Fallback, sel.FallbackBy = lb.FallbackKeys, sortedKeys(by)
		c.fallbackKeys(p.Field("fallback_keys_subset"), &sel)
	case clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_NOT_DEFINED:
	}
	return sel
}

// fallbackKeys: fewer keys each time, so that falling back ends.
func (c *compiler) fallbackKeys(p *config.Path, sel *lb.Selector) {
	missing := slices.ContainsFunc(sel.FallbackBy, func(k string) bool { return !slices.Contains(sel.Keys, k) })
	switch {
	case len(sel.FallbackBy) == 0:
		c.errs.Add(p, "cannot be empty")
	case missing:
		c.errs.Add(p, "must be a subset of selector keys")
	case len(sel.FallbackBy) == len(sel.Keys):
		c.errs.Add(p, "cannot be equal to keys")
	}
}

func sortedKeys(keys []string) []string {
	out := slices.Clone(keys)
	slices.Sort(out)
	return slices.Compact(out)
}

// subsetStats are of clusters with subsets (ALL_CLUSTER_LB_STATS).
type subsetStats struct {
	Active        stats.Gauge   `stat:"lb_subsets_active"`
	Created       stats.Counter `stat:"lb_subsets_created"`
	Removed       stats.Counter `stat:"lb_subsets_removed"`
	Selected      stats.Counter `stat:"lb_subsets_selected"`
	Fallback      stats.Counter `stat:"lb_subsets_fallback"`
	FallbackPanic stats.Counter `stat:"lb_subsets_fallback_panic"`
	Duplicates    stats.Gauge   `stat:"lb_subsets_single_host_per_subset_duplicate"`
}

func bindSubsets(scope *stats.Scope) lb.SubsetStats {
	s := stats.Bind[subsetStats](scope)
	return lb.SubsetStats{
		Created: s.Created.Inc, Removed: s.Removed.Inc, Selected: s.Selected.Inc,
		Fallback: s.Fallback.Inc, FallbackPanic: s.FallbackPanic.Inc,
		Active:     func(n int) { s.Active.Set(int64(n)) },
		Duplicates: func(n int) { s.Duplicates.Set(int64(n)) },
	}
}

// Divided tells whether hosts are chosen from subsets, so that Context.Criteria are asked for.
func (c *Cluster) Divided() bool { return c.conf.Load().lb.Subsets != nil }
