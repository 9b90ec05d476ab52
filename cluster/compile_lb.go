package cluster

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	ringhashv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	wrrlocalityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"

	"sidecar/cluster/lb"
	"sidecar/internal/config"
)

var (
	commonLbFields = config.Fields[*clusterv3.Cluster_CommonLbConfig]{
		Used:    "healthy_panic_threshold locality_weighted_lb_config close_connections_on_host_set_change zone_aware_lb_config consistent_hashing_lb_config ignore_new_hosts_until_first_hc",
		Refused: "override_host_status",
		NoOp: map[string]string{
			"update_merge_window": "each update is applied as it comes; merging saves Envoy work on " +
				"every worker thread, of which there is none here",
		},
	}
	localityWeightedFields = config.Fields[*clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig]{}
	zoneAwareFields        = config.Fields[*clusterv3.Cluster_CommonLbConfig_ZoneAwareLbConfig]{
		Used: "fail_traffic_on_panic",
		NoOp: map[string]string{
			"routing_enabled":  "zone aware routing needs the bootstrap's local_cluster_name, which is refused",
			"min_cluster_size": "zone aware routing needs the bootstrap's local_cluster_name, which is refused",
		},
	}
	roundRobinFields   = config.Fields[*clusterv3.Cluster_RoundRobinLbConfig]{Used: "slow_start_config"}
	leastRequestFields = config.Fields[*clusterv3.Cluster_LeastRequestLbConfig]{
		Used: "choice_count active_request_bias slow_start_config",
	}
	biasFields    = config.Fields[*corev3.RuntimeDouble]{Used: "default_value runtime_key"}
	policiesField = config.Fields[*clusterv3.LoadBalancingPolicy]{Used: "policies"}
	policyField   = config.Fields[*clusterv3.LoadBalancingPolicy_Policy]{Used: "typed_extension_config"}
	typedField    = config.Fields[*corev3.TypedExtensionConfig]{
		Used: "typed_config", NoOp: map[string]string{"name": "the type alone says what it is, as in Envoy"},
	}

	extRoundRobinFields   = config.Fields[*roundrobinv3.RoundRobin]{Used: "locality_lb_config slow_start_config"}
	wrrLocalityFields     = config.Fields[*wrrlocalityv3.WrrLocality]{Used: "endpoint_picking_policy"}
	extRandomFields       = config.Fields[*randomv3.Random]{Used: "locality_lb_config"}
	extLeastRequestFields = config.Fields[*leastrequestv3.LeastRequest]{
		Used: "choice_count active_request_bias locality_lb_config enable_full_scan selection_method slow_start_config",
	}
	extLocalityFields         = config.Fields[*commonv3.LocalityLbConfig]{Used: "zone_aware_lb_config locality_weighted_lb_config"}
	extLocalityWeightedFields = config.Fields[*commonv3.LocalityLbConfig_LocalityWeightedLbConfig]{}
	extZoneAwareFields        = config.Fields[*commonv3.LocalityLbConfig_ZoneAwareLbConfig]{
		Used:    "fail_traffic_on_panic",
		Refused: "force_locality_direct_routing force_local_zone locality_basis",
		NoOp: map[string]string{
			"routing_enabled":  "zone aware routing needs the bootstrap's local_cluster_name, which is refused",
			"min_cluster_size": "zone aware routing needs the bootstrap's local_cluster_name, which is refused",
		},
	}
)

// balancing compiles lb_policy, or the list that takes its place.
func (c *compiler) balancing() {
	c.set.lb = lb.Config{PanicThreshold: 50, Choices: 2, ActiveBias: 1}
	c.commonLb(config.Field("common_lb_config"), c.msg.GetCommonLbConfig())
	p := config.Field("lb_policy")
	isDst := c.conf.Kind == OriginalDst
	own := isDst || c.conf.Kind == DynamicForward
	switch policy := c.msg.GetLbPolicy(); policy {
	case clusterv3.Cluster_ROUND_ROBIN:
		c.set.lb.Policy = lb.RoundRobin
	case clusterv3.Cluster_LEAST_REQUEST:
		c.set.lb.Policy = lb.LeastRequest
	case clusterv3.Cluster_RANDOM:
		c.set.lb.Policy = lb.Random
	case clusterv3.Cluster_RING_HASH:
		c.hashing(lb.RingHash)
	case clusterv3.Cluster_MAGLEV:
		c.hashing(lb.Maglev)
	case clusterv3.Cluster_CLUSTER_PROVIDED:
		if !own {
			c.errs.Addf(p, "CLUSTER_PROVIDED is for cluster type ORIGINAL_DST, not %s", c.msg.GetType())
		}
	case clusterv3.Cluster_LOAD_BALANCING_POLICY_CONFIG:
		if c.msg.GetLoadBalancingPolicy() == nil {
			c.errs.Add(config.Field("load_balancing_policy"), "is required with lb_policy LOAD_BALANCING_POLICY_CONFIG")
		}
	default:
		c.errs.Addf(p, "%s is not supported", policy)
	}
	if isDst && c.msg.GetLbPolicy() != clusterv3.Cluster_CLUSTER_PROVIDED {
		c.errs.Addf(p, "must be CLUSTER_PROVIDED for cluster type ORIGINAL_DST, not %s", c.msg.GetLbPolicy())
	}
	c.legacyLb()
	c.subsets(config.Field("lb_subset_config"), c.msg.GetLbSubsetConfig())
	c.policies(config.Field("load_balancing_policy"), c.msg.GetLoadBalancingPolicy())
}

func (c *compiler) commonLb(p *config.Path, m *clusterv3.Cluster_CommonLbConfig) {
	if m == nil {
		return
	}
	commonLbFields.Check(p, m, c.errs)
	threshold := config.Percent(p.Field("healthy_panic_threshold"), m.GetHealthyPanicThreshold(), 50, c.errs)
	c.set.lb.PanicThreshold = uint32(threshold)
	c.set.ignoreUntilChecked = m.GetIgnoreNewHostsUntilFirstHc()
	c.set.closeOnHostSetChange = m.GetCloseConnectionsOnHostSetChange()
	if w := m.GetLocalityWeightedLbConfig(); w != nil {
		localityWeightedFields.Check(p.Field("locality_weighted_lb_config"), w, c.errs)
		c.set.lb.LocalityWeighted = true
	}
	if z := m.GetZoneAwareLbConfig(); z != nil {
		zoneAwareFields.Check(p.Field("zone_aware_lb_config"), z, c.errs)
		c.set.lb.FailOnPanic = z.GetFailTrafficOnPanic()
	}
}

// legacyLb compiles the lb_config of lb_policy.
func (c *compiler) legacyLb() {
	if m := c.msg.GetRoundRobinLbConfig(); m != nil {
		p := config.Field("round_robin_lb_config")
		roundRobinFields.Check(p, m, c.errs)
		if s := m.GetSlowStartConfig(); s != nil {
			slowStartFields.Check(p.Field("slow_start_config"), s, c.errs)
			c.set.lb.SlowStart = c.slowStart(p.Field("slow_start_config"), s)
		}
	}
	if m := c.msg.GetLeastRequestLbConfig(); m != nil {
		p := config.Field("least_request_lb_config")
		leastRequestFields.Check(p, m, c.errs)
		c.set.lb.Choices = config.Value(m.GetChoiceCount(), 2)
		c.bias(p.Field("active_request_bias"), m.GetActiveRequestBias())
		if s := m.GetSlowStartConfig(); s != nil {
			slowStartFields.Check(p.Field("slow_start_config"), s, c.errs)
			c.set.lb.SlowStart = c.slowStart(p.Field("slow_start_config"), s)
		}
	}
}

func (c *compiler) bias(p *config.Path, m *corev3.RuntimeDouble) {
	if m == nil {
		return
	}
	if c.set.lb.ActiveBias = c.runtimeDouble(p, m, 1); !(c.set.lb.ActiveBias >= 0) {
		c.errs.Add(p.Field("default_value"), "must not be negative")
	}
}

// policies compiles the first policy of the list that is known.
func (c *compiler) policies(p *config.Path, m *clusterv3.LoadBalancingPolicy) {
	if m == nil {
		return
	}
	policiesField.Check(p, m, c.errs)
	p = p.Field("policies")
	for i, policy := range m.GetPolicies() {
		at := p.Index(i)
		policyField.Check(at, policy, c.errs)
		at = at.Field("typed_extension_config")
		typedField.Check(at, policy.GetTypedExtensionConfig(), c.errs)
		if c.policy(at.Field("typed_config"), policy.GetTypedExtensionConfig()) {
			return
		}
	}
	c.errs.Add(p, "has no policy that is supported (round_robin, least_request, random, "+
		"ring_hash, maglev, wrr_locality)")
}

func (c *compiler) policy(p *config.Path, ext *corev3.TypedExtensionConfig) bool {
	const prefix = "envoy.extensions.load_balancing_policies."
	a := ext.GetTypedConfig()
	switch config.TypeName(a) {
	case prefix + "round_robin.v3.RoundRobin":
		c.set.lb.Policy = lb.RoundRobin
		if m, ok := config.OpenAs[*roundrobinv3.RoundRobin](p, a, c.errs); ok {
			extRoundRobinFields.Check(p, m, c.errs)
			c.locality(p.Field("locality_lb_config"), m.GetLocalityLbConfig())
			c.extSlowStart(p.Field("slow_start_config"), m.GetSlowStartConfig())
		}
	case prefix + "random.v3.Random":
		c.set.lb.Policy = lb.Random
		if m, ok := config.OpenAs[*randomv3.Random](p, a, c.errs); ok {
			extRandomFields.Check(p, m, c.errs)
			c.locality(p.Field("locality_lb_config"), m.GetLocalityLbConfig())
		}
	case prefix + "least_request.v3.LeastRequest":
		c.set.lb.Policy = lb.LeastRequest
		if m, ok := config.OpenAs[*leastrequestv3.LeastRequest](p, a, c.errs); ok {
			c.leastRequest(p, m)
		}
	case prefix + "ring_hash.v3.RingHash":
		if m, ok := config.OpenAs[*ringhashv3.RingHash](p, a, c.errs); ok {
			c.extRingHash(p, m)
		}
	case prefix + "maglev.v3.Maglev":
		if m, ok := config.OpenAs[*maglevv3.Maglev](p, a, c.errs); ok {
			c.extMaglev(p, m)
		}
	case prefix + "wrr_locality.v3.WrrLocality":
		if m, ok := config.OpenAs[*wrrlocalityv3.WrrLocality](p, a, c.errs); ok {
			wrrLocalityFields.Check(p, m, c.errs)
			c.policies(p.Field("endpoint_picking_policy"), m.GetEndpointPickingPolicy())
			c.set.lb.LocalityWeighted = true
		}
	default:
		return false
	}
	return true
}

func (c *compiler) extSlowStart(p *config.Path, m *commonv3.SlowStartConfig) {
	if m != nil {
		extSlowStartFields.Check(p, m, c.errs)
		c.set.lb.SlowStart = c.slowStart(p, m)
	}
}

func (c *compiler) leastRequest(p *config.Path, m *leastrequestv3.LeastRequest) {
	extLeastRequestFields.Check(p, m, c.errs)
	c.set.lb.Choices = config.Value(m.GetChoiceCount(), 2)
	c.set.lb.FullScan = m.GetSelectionMethod() == leastrequestv3.LeastRequest_FULL_SCAN ||
		config.Value(m.GetEnableFullScan(), false) //nolint:staticcheck // deprecated, still read by Envoy
	c.bias(p.Field("active_request_bias"), m.GetActiveRequestBias())
	c.extSlowStart(p.Field("slow_start_config"), m.GetSlowStartConfig())
	c.locality(p.Field("locality_lb_config"), m.GetLocalityLbConfig())
}

func (c *compiler) locality(p *config.Path, m *commonv3.LocalityLbConfig) {
	if m == nil {
		return
	}
	extLocalityFields.Check(p, m, c.errs)
	if w := m.GetLocalityWeightedLbConfig(); w != nil {
		extLocalityWeightedFields.Check(p.Field("locality_weighted_lb_config"), w, c.errs)
		c.set.lb.LocalityWeighted = true
	}
	if z := m.GetZoneAwareLbConfig(); z != nil {
		extZoneAwareFields.Check(p.Field("zone_aware_lb_config"), z, c.errs)
		c.set.lb.FailOnPanic = z.GetFailTrafficOnPanic()
	}
}
