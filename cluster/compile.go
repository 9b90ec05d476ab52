package cluster

import (
	"crypto/sha256"
	"log/slog"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/cluster/dnscache"
	"sidecar/cluster/health"
	"sidecar/cluster/host"
	"sidecar/cluster/outlier"
	"sidecar/internal/config"
	"sidecar/internal/config/source"
)

var clusterFields = config.Fields[*clusterv3.Cluster]{
	Used: `name alt_stat_name type cluster_type eds_cluster_config connect_timeout
		per_connection_buffer_limit_bytes lb_policy load_assignment max_requests_per_connection
		circuit_breakers common_http_protocol_options http_protocol_options http2_protocol_options
		track_cluster_stats upstream_http_protocol_options connection_pool_per_downstream_connection preconnect_policy
		typed_extension_protocol_options dns_refresh_rate dns_jitter dns_failure_refresh_rate
		respect_dns_ttl dns_lookup_family use_tcp_for_dns_lookups dns_resolvers dns_resolution_config
		filters typed_dns_resolver_config cleanup_interval upstream_bind_config common_lb_config
		transport_socket transport_socket_matches metadata upstream_connection_options round_robin_lb_config
		least_request_lb_config original_dst_lb_config load_balancing_policy wait_for_warm_on_init
		ring_hash_lb_config maglev_lb_config
		outlier_detection close_connections_on_host_health_failure health_checks
		ignore_health_on_host_removal lb_subset_config`,
	OffOnly: `protocol_selection track_timeout_budgets`,
	Refused: `transport_socket_matcher stats_matcher
		per_connection_buffer_high_watermark_timeout
		lrs_server
		lrs_report_endpoint_metrics upstream_config
		queuing_policies`,
	NoOp: map[string]string{},
}

var metadataFields = config.Fields[*corev3.Metadata]{
	Used: "filter_metadata",
	NoOp: map[string]string{
		"typed_filter_metadata": "nothing here reads typed metadata; Envoy too skips types it has no reader for",
	},
}

// Env is what compiling may use: nothing in it is opened or started.
type Env struct {
	// Intern shares equal settings between clusters; nil shares nothing.
	Intern *Intern
	// NoEDS refuses EDS clusters: there is nobody to subscribe to.
	NoEDS bool
	// Transports makes transport sockets, by the full name of the configuration message.
	Transports map[string]*filter.TransportEntry
	// Caches are the DNS caches of dynamic forward proxies; nil shares none.
	Caches *dnscache.Caches
	// Network are the network filters, by the full name of the configuration message.
	Network map[string]*filter.NetworkEntry
	// Scope and Log are those of the process, for transport sockets.
	Scope *stats.Scope
	Log   *slog.Logger
	// RuntimeDouble looks a number of the runtime up; nil knows none.
	RuntimeDouble func(key string) (float64, bool)
	// Bind is cluster_manager.upstream_bind_config, for clusters without one of their own.
	Bind *Bind
}

// Intern shares what is equal between the clusters of a process. The zero value is ready.
type Intern struct {
	settings interner[source.Digest, Settings]
	attrs    interner[attrKey, host.Attributes]
}

// compiler is the state of one Compile.
type compiler struct {
	msg  *clusterv3.Cluster
	env  Env
	errs *config.Errors
	conf *Config
	set  *Settings
	// insecure is allow_insecure_cluster_options.
	insecure bool
}

// Compile checks a cluster and compiles it. It has no side effects, and names everything that is
// wrong with its field path.
func Compile(msg *clusterv3.Cluster, env Env) (*Config, error) {
	var errs config.Errors
	if env.Intern == nil {
		env.Intern = &Intern{}
	}
	c := &compiler{msg: msg, env: env, errs: &errs, set: &Settings{}}
	c.conf = &Config{Name: msg.GetName(), AltStatName: msg.GetAltStatName()}
	config.Validate(nil, msg, &errs)
	clusterFields.Check(nil, msg, &errs)
	c.discovery()
	c.conf.Metadata = compileMetadata(config.Field("metadata"), msg.GetMetadata(), &errs)
	c.connections()
	c.http()
	c.forwardOptions()
	c.track()
	c.balancing()
	c.limits()
	c.set.outlier = outlier.Compile(config.Field("outlier_detection"), msg.GetOutlierDetection(), &errs)
	c.set.health = health.Compile(config.Field("health_checks"), msg.GetHealthChecks(), c.set.HTTP.HTTP2, &errs)
	c.set.ignoreHealthOnRemoval = msg.GetIgnoreHealthOnHostRemoval()
	c.set.closeOnFailure = msg.GetCloseConnectionsOnHostHealthFailure()
	c.endpoints()
	c.serialize()
	if err := errs.Err(); err != nil {
		return nil, err
	}
	// What the settings are made of is the body without the names, so its digest is their key.
	c.conf.Settings = env.Intern.settings.get(c.settingsKey(), func() *Settings { return c.set })
	return c.conf, nil
}

// serialize keeps the bytes for config_dump and works out what changes can be made in place.
func (c *compiler) serialize() {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.msg)
	if err != nil {
		c.errs.Addf(nil, "%w", err)
		return
	}
	c.conf.raw = raw
	c.conf.digest = digest(raw)
	c.conf.body = c.conf.digest
	if la := c.msg.GetLoadAssignment(); la != nil && c.conf.Kind == Static {
		c.conf.body = c.digestWithout(func(m *clusterv3.Cluster) { m.LoadAssignment = nil })
	}
}

func (c *compiler) settingsKey() source.Digest {
	return c.digestWithout(func(m *clusterv3.Cluster) {
		m.Name, m.AltStatName, m.LoadAssignment, m.EdsClusterConfig, m.Metadata = "", "", nil, nil, nil
		m.TransportSocket, m.TransportSocketMatches = nil, nil // each cluster has its own
	})
}

// digestWithout is the digest of the message with some fields taken away; the copy is shallow.
func (c *compiler) digestWithout(strip func(*clusterv3.Cluster)) source.Digest {
	shallow := &clusterv3.Cluster{}
	dst := shallow.ProtoReflect()
	c.msg.ProtoReflect().Range(func(fd protoField, v protoValue) bool {
		dst.Set(fd, v)
		return true
	})
	strip(shallow)
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(shallow)
	if err != nil {
		c.errs.Addf(nil, "%w", err)
	}
	return digest(raw)
}

func digest(raw []byte) source.Digest {
	sum := sha256.Sum256(raw)
	return source.Digest(sum[:16])
}

// connections compiles how connections are made and how long they are kept.
func (c *compiler) connections() {
	msg, s := c.msg, c.set
	s.dial.Timeout = c.duration("connect_timeout", msg.GetConnectTimeout(), 5*time.Second)
	if msg.GetConnectTimeout() != nil && s.dial.Timeout == 0 {
		c.errs.Add(config.Field("connect_timeout"), "must be positive")
	}
	s.BufferLimit = config.Value(msg.GetPerConnectionBufferLimitBytes(), 1<<20)
	s.perDownstream = msg.GetConnectionPoolPerDownstreamConnection()
	c.preconnecting(config.Field("preconnect_policy"), msg.GetPreconnectPolicy())
	s.skipWarmOnInit = !config.Value(msg.GetWaitForWarmOnInit(), true)
	c.transports()
	if c.env.Bind != nil && msg.GetUpstreamBindConfig() == nil {
		s.dial.Freebind, s.dial.Sources = c.env.Bind.freebind, c.env.Bind.sources
	}
	c.bind(config.Field("upstream_bind_config"), msg.GetUpstreamBindConfig())
	c.upstreamOptions(config.Field("upstream_connection_options"), msg.GetUpstreamConnectionOptions())
}

func (c *compiler) duration(field string, d *durationpb.Duration, def time.Duration) time.Duration {
	return config.Duration(config.Field(field), d, def, c.errs)
}

func compileMetadata(p *config.Path, m *corev3.Metadata, errs *config.Errors) host.Metadata {
	if m == nil {
		return nil
	}
	metadataFields.Check(p, m, errs)
	if m.GetTypedFilterMetadata()[proxyTLVs] != nil {
		errs.Add(p.Field("typed_filter_metadata").Key(proxyTLVs), "is not supported")
	}
	if len(m.GetFilterMetadata()) == 0 {
		return nil
	}
	out := make(host.Metadata, len(m.GetFilterMetadata()))
	for name, st := range m.GetFilterMetadata() {
		out[name] = st.AsMap()
	}
	return out
}

// proxyTLVs is where Envoy reads TLVs of a host, which the PROXY header here does not have.
const proxyTLVs = "envoy.transport_sockets.proxy_protocol"

// endpoints compiles load_assignment, where the kind of cluster has one.
func (c *compiler) endpoints() {
	p, la := config.Field("load_assignment"), c.msg.GetLoadAssignment()
	switch c.conf.Kind {
	case Static:
		c.conf.assignment = compileAssignment(p, la, c.env, false, c.errs)
	case StrictDNS, LogicalDNS:
		if la == nil {
			c.errs.Add(p, "is required")
			return
		}
		c.conf.assignment = compileAssignment(p, la, c.env, true, c.errs)
		if c.conf.Kind == LogicalDNS {
			c.oneEndpoint(p, la)
		}
	case EDS, OriginalDst, DynamicForward:
		if la != nil {
			c.errs.Addf(p, "must be empty for cluster type %s", c.msg.GetType())
		}
	}
}

// oneEndpoint holds Envoy's rule for LOGICAL_DNS.
func (c *compiler) oneEndpoint(p *config.Path, la *endpointv3.ClusterLoadAssignment) {
	if len(la.GetEndpoints()) != 1 || len(la.GetEndpoints()[0].GetLbEndpoints()) != 1 {
		c.errs.Add(p, "LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint")
	}
}
