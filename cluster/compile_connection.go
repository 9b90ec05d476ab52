package cluster

import (
	"net"
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"sidecar/cluster/load"
	"sidecar/internal/config"
)

var (
	bindFields = config.Fields[*corev3.BindConfig]{
		Used:    "source_address freebind additional_source_addresses extra_source_addresses",
		Refused: "socket_options local_address_selector",
		OffOnly: "validate_network_namespaces",
	}
	extraSourceFields = config.Fields[*corev3.ExtraSourceAddress]{Used: "address", Refused: "socket_options"}
	upstreamFields    = config.Fields[*clusterv3.UpstreamConnectionOptions]{
		Used:    "tcp_keepalive",
		OffOnly: "set_local_interface_name_on_upstream_connections",
		Refused: "happy_eyeballs_config",
	}
	keepaliveFields = config.Fields[*corev3.TcpKeepalive]{
		Used: "keepalive_probes keepalive_time keepalive_interval",
	}
	breakersFields = config.Fields[*clusterv3.CircuitBreakers]{
		Used: "thresholds per_host_thresholds",
	}
	thresholdsFields = config.Fields[*clusterv3.CircuitBreakers_Thresholds]{
		Used: "priority max_connections max_pending_requests max_requests max_retries retry_budget " +
			"track_remaining max_connection_pools",
	}
	hostThresholdsFields = config.Fields[*clusterv3.CircuitBreakers_Thresholds]{
		Used: "priority max_connections",
		// Envoy: "currently only the max_connections field is supported for per-host limits".
		Refused: "max_pending_requests max_requests max_retries retry_budget track_remaining " +
			"max_connection_pools",
	}
	preconnectFields = config.Fields[*clusterv3.Cluster_PreconnectPolicy]{
		Used:    "per_upstream_preconnect_ratio predictive_preconnect_ratio",
		Refused: "preconnect_enabled_metadata",
	}
	budgetFields = config.Fields[*clusterv3.CircuitBreakers_Thresholds_RetryBudget]{
		Used: "budget_percent min_retry_concurrency", Refused: "budget_interval",
	}
)

// Bind is a compiled BindConfig.
type Bind struct {
	freebind bool
	sources  []netip.AddrPort
}

// CompileBind compiles the upstream_bind_config of the cluster manager; nil gives nil.
func CompileBind(p *config.Path, b *corev3.BindConfig, errs *config.Errors) *Bind {
	if b == nil {
		return nil
	}
	c := &compiler{errs: errs, set: &Settings{}}
	c.bind(p, b)
	return &Bind{freebind: c.set.dial.Freebind, sources: c.set.dial.Sources}
}

// bind compiles upstream_bind_config: one source address, and one more of the other family.
func (c *compiler) bind(p *config.Path, b *corev3.BindConfig) {
	if b == nil {
		return
	}
	bindFields.Check(p, b, c.errs)
	c.set.dial.Freebind = config.Value(b.GetFreebind(), false)
	c.source(p.Field("source_address"), b.GetSourceAddress())
	for i, a := range b.GetAdditionalSourceAddresses() { //nolint:staticcheck // deprecated, still read by Envoy
		c.source(p.Field("additional_source_addresses").Index(i), a)
	}
	for i, a := range b.GetExtraSourceAddresses() {
		at := p.Field("extra_source_addresses").Index(i)
		extraSourceFields.Check(at, a, c.errs)
		c.source(at.Field("address"), a.GetAddress())
	}
	seen := map[bool]bool{}
	for _, s := range c.set.dial.Sources {
		if seen[s.Addr().Is4()] {
			c.errs.Add(p, "has two source addresses of one IP family")
		}
		seen[s.Addr().Is4()] = true
	}
}

func (c *compiler) source(p *config.Path, sa *corev3.SocketAddress) {
	if sa == nil {
		return
	}
	socketAddressFields.Check(p, sa, c.errs)
	ip, err := netip.ParseAddr(sa.GetAddress())
	if err != nil || sa.GetPortValue() > 65535 {
		c.errs.Addf(p.Field("address"), "malformed IP address: %s", sa.GetAddress())
		return
	}
	c.set.dial.Sources = append(c.set.dial.Sources, netip.AddrPortFrom(ip.Unmap(), uint16(sa.GetPortValue())))
}

func (c *compiler) upstreamOptions(p *config.Path, o *clusterv3.UpstreamConnectionOptions) {
	if o == nil {
		return
	}
	upstreamFields.Check(p, o, c.errs)
	k := o.GetTcpKeepalive()
	if k == nil {
		return
	}
	keepaliveFields.Check(p.Field("tcp_keepalive"), k, c.errs)
	// -1 leaves a value to the operating system, as Envoy does with what is not set.
	seconds := func(v interface{ GetValue() uint32 }, set bool) time.Duration {
		if !set {
			return -1
		}
		return time.Duration(v.GetValue()) * time.Second
	}
	c.set.dial.KeepAlive = net.KeepAliveConfig{
		Enable:   true,
		Idle:     seconds(k.GetKeepaliveTime(), k.GetKeepaliveTime() != nil),
		Interval: seconds(k.GetKeepaliveInterval(), k.GetKeepaliveInterval() != nil),
		Count:    -1,
	}
	if k.GetKeepaliveProbes() != nil {
		c.set.dial.KeepAlive.Count = int(min(k.GetKeepaliveProbes().GetValue(), 1<<15))
	}
}

// limits compiles circuit_breakers; of two thresholds for one priority the first counts, as in Envoy.
func (c *compiler) limits() {
	c.set.limits = [2]load.Limits{load.DefaultLimits(), load.DefaultLimits()}
	p, cb := config.Field("circuit_breakers"), c.msg.GetCircuitBreakers()
	if cb == nil {
		return
	}
	breakersFields.Check(p, cb, c.errs)
	var seen [2]bool
	for i, th := range cb.GetThresholds() {
		at := p.Field("thresholds").Index(i)
		thresholdsFields.Check(at, th, c.errs)
		if th.GetPriority() > corev3.RoutingPriority_HIGH || th.GetPriority() < 0 {
			c.errs.Addf(at.Field("priority"), "unknown value %d", th.GetPriority())
			continue
		}
		if seen[th.GetPriority()] {
			continue
		}
		seen[th.GetPriority()] = true
		c.set.limits[th.GetPriority()] = c.thresholds(at, th)
		c.set.trackRemaining = c.set.trackRemaining || th.GetTrackRemaining()
	}
	c.hostLimits(p.Field("per_host_thresholds"), cb.GetPerHostThresholds())
}

// hostLimits compiles per_host_thresholds, of which the first for a priority counts.
func (c *compiler) hostLimits(p *config.Path, list []*clusterv3.CircuitBreakers_Thresholds) {
	var seen [2]bool
	for i, th := range list {
		at := p.Index(i)
		hostThresholdsFields.Check(at, th, c.errs)
		if th.GetPriority() > corev3.RoutingPriority_HIGH || th.GetPriority() < 0 {
			c.errs.Addf(at.Field("priority"), "unknown value %d", th.GetPriority())
			continue
		}
		if !seen[th.GetPriority()] {
			seen[th.GetPriority()] = true
			l := &c.set.limits[th.GetPriority()]
			l.PerHost = config.Value(th.GetMaxConnections(), l.PerHost)
		}
	}
}

// preconnecting compiles preconnect_policy.
func (c *compiler) preconnecting(p *config.Path, m *clusterv3.Cluster_PreconnectPolicy) {
	if m == nil {
		return
	}
	preconnectFields.Check(p, m, c.errs)
	c.set.preconnect = config.Value(m.GetPerUpstreamPreconnectRatio(), 1) // 1 to 3, by the validation
	c.set.predictive = config.Value(m.GetPredictivePreconnectRatio(), 1)
}

func (c *compiler) thresholds(p *config.Path, th *clusterv3.CircuitBreakers_Thresholds) load.Limits {
	l := load.DefaultLimits()
	l.Connections = config.Value(th.GetMaxConnections(), l.Connections)
	l.Pending = config.Value(th.GetMaxPendingRequests(), l.Pending)
	l.Requests = config.Value(th.GetMaxRequests(), l.Requests)
	l.Retries = config.Value(th.GetMaxRetries(), l.Retries)
	l.Pools = config.Value(th.GetMaxConnectionPools(), l.Pools)
	l.TrackRemaining = th.GetTrackRemaining()
	if b := th.GetRetryBudget(); b != nil {
		p = p.Field("retry_budget")
		budgetFields.Check(p, b, c.errs)
		l.HasBudget = true
		l.BudgetPercent = config.Percent(p.Field("budget_percent"), b.GetBudgetPercent(), 20, c.errs)
		l.MinRetries = config.Value(b.GetMinRetryConcurrency(), 3)
	}
	return l
}
