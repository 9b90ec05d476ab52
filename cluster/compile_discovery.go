package cluster

import (
	"net/netip"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dnscommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	getaddrinfov3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/getaddrinfo/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"sidecar/cluster/discover"
	"sidecar/internal/config"
	"sidecar/internal/config/source"
)

var (
	edsFields         = config.Fields[*clusterv3.Cluster_EdsClusterConfig]{Used: "eds_config service_name"}
	refreshFields     = config.Fields[*clusterv3.Cluster_RefreshRate]{Used: "base_interval max_interval"}
	originalDstFields = config.Fields[*clusterv3.Cluster_OriginalDstLbConfig]{
		Used: "use_http_header http_header_name upstream_port_override metadata_key",
	}
	metadataKeyFields = config.Fields[*metadatav3.MetadataKey]{Used: "key path"}
	segmentFields     = config.Fields[*metadatav3.MetadataKey_PathSegment]{Used: "key", Refused: "index"}
	clusterTypeFields = config.Fields[*clusterv3.Cluster_CustomClusterType]{
		Used: "name typed_config",
	}
	dnsClusterFields = config.Fields[*dnsv3.DnsCluster]{
		Used: `dns_refresh_rate dns_failure_refresh_rate respect_dns_ttl dns_jitter
			typed_dns_resolver_config dns_lookup_family all_addresses_in_single_endpoint
			dns_min_refresh_rate`,
	}
	dnsClusterRefreshFields = config.Fields[*dnsv3.DnsCluster_RefreshRate]{Used: "base_interval max_interval"}
	dnsResolutionFields     = config.Fields[*corev3.DnsResolutionConfig]{Used: "resolvers dns_resolver_options"}
	dnsOptionFields         = config.Fields[*corev3.DnsResolverOptions]{
		Used: "use_tcp_for_dns_lookups no_default_search_domain",
	}
	getaddrinfoFields = config.Fields[*getaddrinfov3.GetAddrInfoDnsResolverConfig]{
		Refused: "num_retries",
		NoOp: map[string]string{
			"num_resolver_threads": "lookups run on goroutines, with a limit of their own",
		},
	}
	caresFields = config.Fields[*caresv3.CaresDnsResolverConfig]{
		Used: `resolvers use_resolvers_as_fallback filter_unroutable_families dns_resolver_options
			query_timeout_seconds query_tries edns0_max_payload_size`,
		OffOnly: "rotate_nameservers",
		NoOp: map[string]string{
			"udp_max_queries":           "each query has a socket of its own, which is what a limit is for",
			"max_udp_channel_duration":  "each query has a socket of its own, so none gets old",
			"reinit_channel_on_timeout": "each query has a socket of its own, so there is no channel to renew",
			"qcache_max_ttl":            "answers are not cached apart from the clusters that asked",
		},
	}
)

// namedTypes are the kinds of clusters that cluster_type may name instead of type; they are configured by
// the fields of the cluster either way.
//
//nolint:gochecknoglobals // immutable table
var namedTypes = map[string]clusterv3.Cluster_DiscoveryType{
	"envoy.cluster.static":       clusterv3.Cluster_STATIC,
	"envoy.cluster.strict_dns":   clusterv3.Cluster_STRICT_DNS,
	"envoy.cluster.logical_dns":  clusterv3.Cluster_LOGICAL_DNS,
	"envoy.cluster.eds":          clusterv3.Cluster_EDS,
	"envoy.cluster.original_dst": clusterv3.Cluster_ORIGINAL_DST,
}

// discovery compiles how hosts are found: first of all, since other parts depend on the kind.
func (c *compiler) discovery() {
	if c.msg.GetName() == "" {
		c.errs.Add(config.Field("name"), "is required")
	}
	kind := c.msg.GetType()
	if ct := c.msg.GetClusterType(); ct != nil {
		named, ok := namedTypes[ct.GetName()]
		if !ok || ct.GetTypedConfig() != nil {
			c.clusterType(config.Field("cluster_type"), ct)
			return
		}
		clusterTypeFields.Check(config.Field("cluster_type"), ct, c.errs)
		kind = named
	}
	switch kind {
	case clusterv3.Cluster_STATIC:
		c.conf.Kind = Static
	case clusterv3.Cluster_STRICT_DNS:
		c.conf.Kind = StrictDNS
		c.legacyDNS()
	case clusterv3.Cluster_LOGICAL_DNS:
		c.conf.Kind = LogicalDNS
		c.legacyDNS()
	case clusterv3.Cluster_EDS:
		c.conf.Kind = EDS
		if c.env.NoEDS {
			c.errs.Add(config.Field("type"), "EDS is not available here")
		}
	case clusterv3.Cluster_ORIGINAL_DST:
		c.conf.Kind = OriginalDst
		c.originalDst()
	default:
		c.errs.Addf(config.Field("type"), "unknown value %d", c.msg.GetType())
	}
	c.edsConfig(config.Field("eds_cluster_config"), c.msg.GetEdsClusterConfig())
}

func (c *compiler) edsConfig(p *config.Path, m *clusterv3.Cluster_EdsClusterConfig) {
	if c.conf.Kind != EDS {
		if m != nil {
			c.errs.Add(p, "cannot set eds_cluster_config in a non-EDS cluster")
		}
		return
	}
	if m == nil {
		c.errs.Add(p, "is required")
		return
	}
	edsFields.Check(p, m, c.errs)
	src, err := source.Compile(m.GetEdsConfig(), p.Field("eds_config").String())
	c.errs.Wrap(nil, err)
	c.conf.eds = &edsConfig{source: src, service: m.GetServiceName()}
	if c.conf.eds.service == "" {
		c.conf.eds.service = c.conf.Name
	}
}

func (c *compiler) originalDst() {
	c.set.CleanupInterval = c.duration("cleanup_interval", c.msg.GetCleanupInterval(), 5*time.Second)
	if c.set.CleanupInterval == 0 {
		c.errs.Add(config.Field("cleanup_interval"), "must be positive")
	}
	p, m := config.Field("original_dst_lb_config"), c.msg.GetOriginalDstLbConfig()
	if m == nil {
		return
	}
	originalDstFields.Check(p, m, c.errs)
	o := &c.set.originalDst
	if m.GetUseHttpHeader() {
		o.header = strings.ToLower(m.GetHttpHeaderName())
		if o.header == "" {
			o.header = "x-envoy-original-dst-host"
		}
	} else if m.GetHttpHeaderName() != "" {
		c.errs.Add(p.Field("http_header_name"), "needs use_http_header")
	}
	if k := m.GetMetadataKey(); k != nil {
		at := p.Field("metadata_key")
		metadataKeyFields.Check(at, k, c.errs)
		o.space = k.GetKey()
		for i, s := range k.GetPath() {
			segmentFields.Check(at.Field("path").Index(i), s, c.errs)
			o.path = append(o.path, s.GetKey())
		}
	}
	if port := m.GetUpstreamPortOverride(); port != nil {
		if port.GetValue() > 65535 {
			c.errs.Addf(p.Field("upstream_port_override"), "must be at most 65535, not %d", port.GetValue())
		}
		o.port, o.hasPort = uint16(port.GetValue()), true
	}
}

// legacyDNS compiles the DNS fields of the cluster itself.
func (c *compiler) legacyDNS() {
	d := &dnsConfig{}
	c.conf.dns = d
	m := c.msg
	d.Refresh = c.duration("dns_refresh_rate", m.GetDnsRefreshRate(), 5*time.Second) //nolint:staticcheck // deprecated, still read by Envoy
	if d.Refresh < time.Millisecond {
		c.errs.Add(config.Field("dns_refresh_rate"), "must be at least 1ms")
	}
	d.Jitter = c.duration("dns_jitter", m.GetDnsJitter(), 0) //nolint:staticcheck // deprecated, still read by Envoy
	d.RespectTTL = m.GetRespectDnsTtl()                      //nolint:staticcheck // deprecated, still read by Envoy
	if r := m.GetDnsFailureRefreshRate(); r != nil {         //nolint:staticcheck // deprecated, still read by Envoy
		p := config.Field("dns_failure_refresh_rate")
		refreshFields.Check(p, r, c.errs)
		c.failureRate(p, r)
	}
	c.family(config.Field("dns_lookup_family"), int32(m.GetDnsLookupFamily()))
	c.resolver()
}

// failureRate reads a RefreshRate of either of the two messages that have one.
func (c *compiler) failureRate(p *config.Path, r interface {
	GetBaseInterval() *durationpb.Duration
	GetMaxInterval() *durationpb.Duration
},
) {
	d := c.conf.dns
	d.FailureBase = config.Duration(p.Field("base_interval"), r.GetBaseInterval(), 0, c.errs)
	d.FailureMax = config.Duration(p.Field("max_interval"), r.GetMaxInterval(), 10*d.FailureBase, c.errs)
	if d.FailureBase == 0 {
		c.errs.Add(p.Field("base_interval"), "must be positive")
	}
	if d.FailureMax < d.FailureBase {
		c.errs.Add(p, "must have max_interval greater than or equal to the base_interval")
	}
}

// family reads a DnsLookupFamily of either of the two enums; their first values agree.
func (c *compiler) family(p *config.Path, v int32) {
	switch f := clusterv3.Cluster_DnsLookupFamily(v); f {
	case clusterv3.Cluster_AUTO:
		c.conf.dns.Family = discover.Auto
	case clusterv3.Cluster_V4_ONLY:
		c.conf.dns.Family = discover.V4Only
	case clusterv3.Cluster_V6_ONLY:
		c.conf.dns.Family = discover.V6Only
	case clusterv3.Cluster_V4_PREFERRED:
		c.conf.dns.Family = discover.V4Preferred
	case clusterv3.Cluster_ALL:
		c.conf.dns.Family = discover.All
	default:
		c.errs.Addf(p, "unknown value %d", v)
	}
}

// newFamily translates DnsCluster's enum, which has an "unspecified" in front.
func newFamily(f dnscommonv3.DnsLookupFamily) int32 {
	if f == dnscommonv3.DnsLookupFamily_UNSPECIFIED {
		return int32(clusterv3.Cluster_AUTO)
	}
	return int32(f) - 1
}

// resolver compiles where to ask, from the newest of the fields that is set, as Envoy does.
func (c *compiler) resolver() {
	m := c.msg
	if tc := m.GetTypedDnsResolverConfig(); tc != nil {
		c.typedResolver(config.Field("typed_dns_resolver_config"), tc)
		return
	}
	r := &c.conf.dns.resolver
	if dc := m.GetDnsResolutionConfig(); dc != nil { //nolint:staticcheck // deprecated, still read by Envoy
		p := config.Field("dns_resolution_config")
		dnsResolutionFields.Check(p, dc, c.errs)
		c.servers(p.Field("resolvers"), dc.GetResolvers())
		c.dnsOptions(p.Field("dns_resolver_options"), dc.GetDnsResolverOptions())
		return
	}
	r.TCP = m.GetUseTcpForDnsLookups()                            //nolint:staticcheck // deprecated, still read by Envoy
	c.servers(config.Field("dns_resolvers"), m.GetDnsResolvers()) //nolint:staticcheck // deprecated, still read by Envoy
}

func (c *compiler) typedResolver(p *config.Path, tc *corev3.TypedExtensionConfig) {
	typedField.Check(p, tc, c.errs)
	p = p.Field("typed_config")
	const prefix = "envoy.extensions.network.dns_resolver."
	switch name := config.TypeName(tc.GetTypedConfig()); name {
	case prefix + "cares.v3.CaresDnsResolverConfig":
		m, ok := config.OpenAs[*caresv3.CaresDnsResolverConfig](p, tc.GetTypedConfig(), c.errs)
		if !ok {
			return
		}
		caresFields.Check(p, m, c.errs)
		r := &c.conf.dns.resolver
		c.servers(p.Field("resolvers"), m.GetResolvers())
		c.dnsOptions(p.Field("dns_resolver_options"), m.GetDnsResolverOptions())
		r.Fallback = m.GetUseResolversAsFallback()
		r.FilterUnroutable = m.GetFilterUnroutableFamilies()
		r.Timeout = time.Duration(config.Value(m.GetQueryTimeoutSeconds(), 0)) * time.Second
		r.Tries = int(config.Value(m.GetQueryTries(), 0))
		r.MaxPayload = uint16(min(config.Value(m.GetEdns0MaxPayloadSize(), 0), 65535))
	case prefix + "getaddrinfo.v3.GetAddrInfoDnsResolverConfig":
		// It reads resolv.conf and the hosts file, as this resolver does without any options.
		if m, ok := config.OpenAs[*getaddrinfov3.GetAddrInfoDnsResolverConfig](p, tc.GetTypedConfig(), c.errs); ok {
			getaddrinfoFields.Check(p, m, c.errs)
		}
	default:
		c.errs.Addf(p, "DNS resolver %s is not supported", name)
	}
}

func (c *compiler) dnsOptions(p *config.Path, o *corev3.DnsResolverOptions) {
	if o == nil {
		return
	}
	dnsOptionFields.Check(p, o, c.errs)
	c.conf.dns.resolver.TCP = o.GetUseTcpForDnsLookups()
	c.conf.dns.resolver.NoSearch = o.GetNoDefaultSearchDomain()
}

func (c *compiler) servers(p *config.Path, list []*corev3.Address) {
	for i, a := range list {
		addr, ok := compileAddress(p.Index(i), a, false, c.errs)
		if !ok {
			continue
		}
		if addr.addr.Pipe != "" {
			c.errs.Add(p.Index(i), "must be a socket address")
			continue
		}
		server := addr.addr.IP
		if server.Port() == 0 {
			server = netip.AddrPortFrom(server.Addr(), 53)
		}
		c.conf.dns.resolver.Servers = append(c.conf.dns.resolver.Servers, server)
	}
}

// clusterType compiles the extensions that are known.
func (c *compiler) clusterType(p *config.Path, ct *clusterv3.Cluster_CustomClusterType) {
	clusterTypeFields.Check(p, ct, c.errs)
	p = p.Field("typed_config")
	name := config.TypeName(ct.GetTypedConfig())
	if name == "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig" {
		if m, ok := config.OpenAs[*dfpv3.ClusterConfig](p, ct.GetTypedConfig(), c.errs); ok {
			c.forwardProxy(p, m)
		}
		return
	}
	if name != "envoy.extensions.clusters.dns.v3.DnsCluster" {
		c.errs.Addf(p, "cluster type %q (%s) is not supported", ct.GetName(), name)
		return
	}
	m, ok := config.OpenAs[*dnsv3.DnsCluster](p, ct.GetTypedConfig(), c.errs)
	if !ok {
		return
	}
	dnsClusterFields.Check(p, m, c.errs)
	c.conf.Kind = StrictDNS
	if m.GetAllAddressesInSingleEndpoint() {
		c.conf.Kind = LogicalDNS
	}
	d := &dnsConfig{}
	c.conf.dns = d
	d.Refresh = config.Duration(p.Field("dns_refresh_rate"), m.GetDnsRefreshRate(), 5*time.Second, c.errs)
	d.MinRefresh = config.Duration(p.Field("dns_min_refresh_rate"), m.GetDnsMinRefreshRate(), 0, c.errs)
	d.Jitter = config.Duration(p.Field("dns_jitter"), m.GetDnsJitter(), 0, c.errs)
	d.RespectTTL = m.GetRespectDnsTtl()
	if r := m.GetDnsFailureRefreshRate(); r != nil {
		at := p.Field("dns_failure_refresh_rate")
		dnsClusterRefreshFields.Check(at, r, c.errs)
		c.failureRate(at, r)
	}
	c.family(p.Field("dns_lookup_family"), newFamily(m.GetDnsLookupFamily()))
	if tc := m.GetTypedDnsResolverConfig(); tc != nil {
		c.typedResolver(p.Field("typed_dns_resolver_config"), tc)
	}
}
