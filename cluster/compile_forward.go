package cluster

import (
	"math"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	dnscachev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/dynamic_forward_proxy/v3"

	"sidecar/cluster/dnscache"
	"sidecar/internal/config"
)

//nolint:gochecknoglobals // immutable tables
var (
	forwardFields = config.Fields[*dfpv3.ClusterConfig]{
		Used:    "dns_cache_config allow_insecure_cluster_options",
		OffOnly: "allow_coalesced_connections",
		Refused: "sub_clusters_config",
	}
	// DNSCacheFields are those of the DNS cache that clusters and filters share.
	dnsCacheFields = config.Fields[*dnscachev3.DnsCacheConfig]{
		Used: `name dns_lookup_family dns_refresh_rate dns_min_refresh_rate host_ttl max_hosts
			disable_dns_refresh_on_failure dns_failure_refresh_rate dns_cache_circuit_breaker
			use_tcp_for_dns_lookups dns_resolution_config typed_dns_resolver_config
			preresolve_hostnames dns_query_timeout`,
		Refused: "key_value_config resolved_address_filter",
	}
	dnsBreakerFields = config.Fields[*dnscachev3.DnsCacheCircuitBreakers]{Used: "max_pending_requests"}
)

// forwardProxy compiles cluster type envoy.clusters.dynamic_forward_proxy.
func (c *compiler) forwardProxy(p *config.Path, m *dfpv3.ClusterConfig) {
	forwardFields.Check(p, m, c.errs)
	c.conf.Kind = DynamicForward
	c.conf.dnsCache = CompileDNSCache(p.Field("dns_cache_config"), m.GetDnsCacheConfig(), c.errs)
	c.insecure = m.GetAllowInsecureClusterOptions()
	if err := c.env.Caches.Check(c.conf.dnsCache); err != nil {
		c.errs.Wrap(p.Field("dns_cache_config"), err)
	}
}

// forwardOptions holds Envoy's rule that a dynamic forward proxy names the host in TLS and checks the
// name, which it does by itself unless it is told what to do.
func (c *compiler) forwardOptions() {
	if c.conf.Kind != DynamicForward {
		return
	}
	options := c.msg.GetTypedExtensionProtocolOptions()[httpOptionsName] != nil
	auto := &c.set.HTTP.AutoSNI
	if !options && c.msg.GetUpstreamHttpProtocolOptions() == nil { //nolint:staticcheck // still read by Envoy
		auto.ServerName, auto.SANs = true, true
	}
	if !c.insecure && (!auto.ServerName || !auto.SANs) {
		c.errs.Add(nil, "dynamic_forward_proxy cluster must have auto_sni and auto_san_validation true "+
			"unless allow_insecure_cluster_options is set.")
	}
}

// CompileDNSCache compiles the configuration of a DNS cache, of a cluster or of a filter that uses one.
// What is wrong goes to errs.
func CompileDNSCache(p *config.Path, m *dnscachev3.DnsCacheConfig, errs *config.Errors) *dnscache.Config {
	out := &dnscache.Config{Name: m.GetName()}
	if m == nil {
		errs.Add(p, "is required")
		return out
	}
	dnsCacheFields.Check(p, m, errs)
	// What it has in common with DNS clusters is compiled as theirs.
	c := &compiler{errs: errs, conf: &Config{dns: &dnsConfig{}}, set: &Settings{}}
	c.family(p.Field("dns_lookup_family"), int32(m.GetDnsLookupFamily()))
	if r := m.GetDnsFailureRefreshRate(); r != nil {
		at := p.Field("dns_failure_refresh_rate")
		refreshFields.Check(at, r, errs)
		c.failureRate(at, r)
	}
	c.cacheResolver(p, m)
	d := c.conf.dns
	out.Family, out.Resolver = d.Family, d.resolver
	out.FailureBase, out.FailureMax = d.FailureBase, d.FailureMax
	out.Refresh = config.Duration(p.Field("dns_refresh_rate"), m.GetDnsRefreshRate(), time.Minute, errs)
	out.MinRefresh = config.Duration(p.Field("dns_min_refresh_rate"), m.GetDnsMinRefreshRate(), 5*time.Second, errs)
	out.HostTTL = config.Duration(p.Field("host_ttl"), m.GetHostTtl(), 5*time.Minute, errs)
	out.QueryTimeout = config.Duration(p.Field("dns_query_timeout"), m.GetDnsQueryTimeout(), 5*time.Second, errs)
	out.MaxHosts = config.Value(m.GetMaxHosts(), 1024)
	out.MaxPending = 1024
	if b := m.GetDnsCacheCircuitBreaker(); b != nil {
		dnsBreakerFields.Check(p.Field("dns_cache_circuit_breaker"), b, errs)
		out.MaxPending = min(config.Value(b.GetMaxPendingRequests(), 1024), math.MaxInt32)
	}
	out.ForgetFailures = m.GetDisableDnsRefreshOnFailure()
	for i, a := range m.GetPreresolveHostnames() {
		at := p.Field("preresolve_hostnames").Index(i)
		out.Preresolve = append(out.Preresolve, preresolve(at, a, errs))
	}
	return out
}

func preresolve(p *config.Path, a *corev3.SocketAddress, errs *config.Errors) dnscache.Name {
	socketAddressFields.Check(p, a, errs)
	if a.GetPortValue() > 65535 {
		errs.Add(p.Field("port_value"), "must be at most 65535")
	}
	return dnscache.Name{Host: a.GetAddress(), Port: uint16(a.GetPortValue())}
}

// cacheResolver compiles where to ask, as resolver does for the fields of a cluster.
func (c *compiler) cacheResolver(p *config.Path, m *dnscachev3.DnsCacheConfig) {
	if tc := m.GetTypedDnsResolverConfig(); tc != nil {
		c.typedResolver(p.Field("typed_dns_resolver_config"), tc)
		return
	}
	if dc := m.GetDnsResolutionConfig(); dc != nil { //nolint:staticcheck // deprecated, still read by Envoy
		at := p.Field("dns_resolution_config")
		dnsResolutionFields.Check(at, dc, c.errs)
		c.servers(at.Field("resolvers"), dc.GetResolvers())
		c.dnsOptions(at.Field("dns_resolver_options"), dc.GetDnsResolverOptions())
		return
	}
	c.conf.dns.resolver.TCP = m.GetUseTcpForDnsLookups() //nolint:staticcheck // deprecated, still read by Envoy
}
