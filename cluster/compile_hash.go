package cluster

import (
	"math/big"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	ringhashv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/cluster/lb"
	"sidecar/internal/config"
)

var (
	ringHashFields = config.Fields[*clusterv3.Cluster_RingHashLbConfig]{
		Used: "minimum_ring_size hash_function maximum_ring_size",
	}
	maglevFields  = config.Fields[*clusterv3.Cluster_MaglevLbConfig]{Used: "table_size"}
	hashingFields = config.Fields[*clusterv3.Cluster_CommonLbConfig_ConsistentHashingLbConfig]{
		Used: "use_hostname_for_hashing hash_balance_factor",
	}
	slowStartFields = config.Fields[*clusterv3.Cluster_SlowStartConfig]{
		Used: "slow_start_window aggression min_weight_percent",
	}
	extRingHashFields = config.Fields[*ringhashv3.RingHash]{
		Used: `hash_function minimum_ring_size maximum_ring_size use_hostname_for_hashing
			hash_balance_factor consistent_hashing_lb_config locality_weighted_lb_config`,
	}
	extMaglevFields = config.Fields[*maglevv3.Maglev]{
		Used: "table_size consistent_hashing_lb_config locality_weighted_lb_config",
	}
	extHashingFields = config.Fields[*commonv3.ConsistentHashingLbConfig]{
		Used: "use_hostname_for_hashing hash_balance_factor", Refused: "hash_policy",
	}
	extSlowStartFields = config.Fields[*commonv3.SlowStartConfig]{
		Used: "slow_start_window aggression min_weight_percent",
	}
)

// newHashing are the defaults of consistent hashing.
func newHashing() *lb.Hashing {
	return &lb.Hashing{MinRing: lb.DefaultMinRing, MaxRing: lb.DefaultMaxRing, Table: lb.DefaultTable}
}

// hashing compiles the lb_config of lb_policy RING_HASH or MAGLEV.
func (c *compiler) hashing(policy lb.Policy) {
	h := newHashing()
	c.set.lb.Policy, c.set.lb.Hash = policy, h
	if policy == lb.RingHash {
		m, p := c.msg.GetRingHashLbConfig(), config.Field("ring_hash_lb_config")
		ringHashFields.Check(p, m, c.errs)
		h.Murmur = m.GetHashFunction() == clusterv3.Cluster_RingHashLbConfig_MURMUR_HASH_2
		c.ringSizes(p, m.GetMinimumRingSize(), m.GetMaximumRingSize())
	} else {
		m, p := c.msg.GetMaglevLbConfig(), config.Field("maglev_lb_config")
		maglevFields.Check(p, m, c.errs)
		c.tableSize(p, m.GetTableSize())
	}
	m := c.msg.GetCommonLbConfig().GetConsistentHashingLbConfig()
	p := config.Field("common_lb_config").Field("consistent_hashing_lb_config")
	hashingFields.Check(p, m, c.errs)
	c.commonHashing(p, m.GetUseHostnameForHashing(), m.GetHashBalanceFactor())
}

func (c *compiler) ringSizes(p *config.Path, least, most *wrapperspb.UInt64Value) {
	h := c.set.lb.Hash
	h.MinRing, h.MaxRing = config.Value(least, h.MinRing), config.Value(most, h.MaxRing)
	if h.MinRing > h.MaxRing {
		c.errs.Addf(p, "ring hash: minimum_ring_size (%d) > maximum_ring_size (%d)", h.MinRing, h.MaxRing)
	}
	if h.MaxRing > lb.DefaultMaxRing || h.MaxRing == 0 {
		c.errs.Addf(p.Field("maximum_ring_size"), "must be between 1 and %d", lb.DefaultMaxRing)
	}
}

func (c *compiler) tableSize(p *config.Path, size *wrapperspb.UInt64Value) {
	h := c.set.lb.Hash
	h.Table = config.Value(size, h.Table)
	if h.Table > lb.MaxTable || !new(big.Int).SetUint64(h.Table).ProbablyPrime(0) {
		c.errs.Add(p.Field("table_size"), "The table size of maglev must be prime number")
		h.Table = lb.DefaultTable
	}
}

func (c *compiler) commonHashing(p *config.Path, useHostname bool, factor *wrapperspb.UInt32Value) {
	h := c.set.lb.Hash
	h.UseHostname = h.UseHostname || useHostname
	if useHostname && c.conf.Kind != StrictDNS {
		c.errs.Addf(p.Field("use_hostname_for_hashing"),
			"Cannot use hostname for consistent hashing loadbalancing for a cluster that is not STRICT_DNS")
	}
	if factor != nil {
		h.BalanceFactor = factor.GetValue()
	}
}

// extRingHash and extMaglev compile the policies of load_balancing_policy.
func (c *compiler) extRingHash(p *config.Path, m *ringhashv3.RingHash) {
	extRingHashFields.Check(p, m, c.errs)
	c.set.lb.Policy, c.set.lb.Hash = lb.RingHash, newHashing()
	c.set.lb.Hash.Murmur = m.GetHashFunction() == ringhashv3.RingHash_MURMUR_HASH_2
	c.ringSizes(p, m.GetMinimumRingSize(), m.GetMaximumRingSize())
	c.commonHashing(p, m.GetUseHostnameForHashing(), m.GetHashBalanceFactor()) //nolint:staticcheck // deprecated, still read by Envoy
	c.extHashing(p, m.GetConsistentHashingLbConfig(), m.GetLocalityWeightedLbConfig())
}

func (c *compiler) extMaglev(p *config.Path, m *maglevv3.Maglev) {
	extMaglevFields.Check(p, m, c.errs)
	c.set.lb.Policy, c.set.lb.Hash = lb.Maglev, newHashing()
	c.tableSize(p, m.GetTableSize())
	c.extHashing(p, m.GetConsistentHashingLbConfig(), m.GetLocalityWeightedLbConfig())
}

func (c *compiler) extHashing(p *config.Path, m *commonv3.ConsistentHashingLbConfig,
	w *commonv3.LocalityLbConfig_LocalityWeightedLbConfig,
) {
	extHashingFields.Check(p.Field("consistent_hashing_lb_config"), m, c.errs)
	c.commonHashing(p.Field("consistent_hashing_lb_config"), m.GetUseHostnameForHashing(), m.GetHashBalanceFactor())
	extLocalityWeightedFields.Check(p.Field("locality_weighted_lb_config"), w, c.errs)
	c.set.lb.LocalityWeighted = w != nil
}

// slowStart compiles either of the two messages that there are of it.
func (c *compiler) slowStart(p *config.Path, m interface {
	GetSlowStartWindow() *durationpb.Duration
	GetAggression() *corev3.RuntimeDouble
	GetMinWeightPercent() *typev3.Percent
},
) *lb.SlowStart {
	s := &lb.SlowStart{
		Window:     config.Duration(p.Field("slow_start_window"), m.GetSlowStartWindow(), 0, c.errs),
		Aggression: c.runtimeDouble(p.Field("aggression"), m.GetAggression(), 1),
		MinWeight:  config.Percent(p.Field("min_weight_percent"), m.GetMinWeightPercent(), 10, c.errs) / 100,
	}
	if !(s.Aggression > 0) { // Envoy goes on with the default then
		s.Aggression = 1
	}
	if s.Window < time.Millisecond {
		return nil
	}
	return s
}

// runtimeDouble reads a number that a runtime key may replace. The layers of the runtime don't change
// while the process lives.
func (c *compiler) runtimeDouble(p *config.Path, m *corev3.RuntimeDouble, def float64) float64 {
	if m == nil {
		return def
	}
	biasFields.Check(p, m, c.errs)
	if c.env.RuntimeDouble != nil && m.GetRuntimeKey() != "" {
		if v, ok := c.env.RuntimeDouble(m.GetRuntimeKey()); ok {
			return v
		}
	}
	return m.GetDefaultValue()
}
