package cluster

import (
	"time"

	"sidecar/api/stream"
	"sidecar/cluster/dial"
	"sidecar/cluster/discover"
	"sidecar/cluster/dnscache"
	"sidecar/cluster/health"
	"sidecar/cluster/host"
	"sidecar/cluster/lb"
	"sidecar/cluster/load"
	"sidecar/cluster/outlier"
	"sidecar/internal/config/protocol"
	"sidecar/internal/config/source"
)

// Kind is how a cluster finds its hosts (Cluster.DiscoveryType).
type Kind uint8

// The kinds of clusters.
const (
	Static Kind = iota
	StrictDNS
	LogicalDNS
	EDS
	OriginalDst
	DynamicForward
)

// Unlisted tells that a cluster's hosts come to be as requests ask for them, so that it may serve
// though it has none.
func (k Kind) Unlisted() bool { return k == OriginalDst || k == DynamicForward }

// Config is a compiled cluster. It never changes.
type Config struct {
	// Name is the cluster's name, AltStatName what it is called in statistics ("" for the same).
	Name, AltStatName string
	Kind              Kind
	// Settings are shared between clusters that were configured alike.
	*Settings
	// Metadata is the cluster's filter_metadata.
	Metadata host.Metadata

	transports *transports // nil: plaintext
	eds        *edsConfig
	dns        *dnsConfig
	dnsCache   *dnscache.Config // of a dynamic forward proxy
	assignment assignment
	digest     source.Digest
	// body is digest without the endpoints: equal ones can be updated in place.
	body source.Digest
	raw  []byte
}

// ObservabilityName is the name in statistics and logs (alt_stat_name, else the name).
func (c *Config) ObservabilityName() string {
	if c.AltStatName != "" {
		return c.AltStatName
	}
	return c.Name
}

// Settings are all of a cluster but its name and its hosts. They never change.
type Settings struct {
	// BufferLimit is per_connection_buffer_limit_bytes.
	BufferLimit uint32
	HTTP        HTTPOptions
	// CleanupInterval is how long an ORIGINAL_DST host is kept unused.
	CleanupInterval time.Duration

	dial                     dial.Options
	lb                       lb.Config
	limits                   [2]load.Limits
	maxRequestsPerConnection uint64
	idleTimeout, maxDuration time.Duration
	originalDst              originalDst
	closeOnHostSetChange     bool
	closeOnFailure           bool
	outlier                  *outlier.Config // nil: none
	health                   *health.Config  // nil: none
	ignoreHealthOnRemoval    bool
	ignoreUntilChecked       bool // ignore_new_hosts_until_first_hc
	skipWarmOnInit           bool
	trackRemaining           bool
	trackSizes               bool    // track_cluster_stats.request_response_sizes
	perDownstream            bool    // connection_pool_per_downstream_connection
	preconnect               float64 // per_upstream_preconnect_ratio
	predictive               float64 // predictive_preconnect_ratio
}

// HTTPOptions are what the codec of upstream connections is told.
type HTTPOptions struct {
	// ProperCase writes header names as Content-Type, not content-type.
	ProperCase bool
	// PreserveCase keeps the case that the peer wrote (preserve_case).
	PreserveCase bool
	// Trailers lets trailers pass.
	Trailers bool
	// MaxResponseHeaders and MaxResponseHeadersKB limit a response head; 0 is the codec's default.
	MaxResponseHeaders, MaxResponseHeadersKB uint32
	// MaxStreamDuration of a request; 0 is none.
	MaxStreamDuration time.Duration
	// HTTP2 says that the hosts speak HTTP/2; Downstream that they speak whatever the request came with.
	// Auto goes by what a connection negotiates (ALPN).
	HTTP2, Downstream, Auto bool
	// Protocol are the options of HTTP/2's connections.
	Protocol protocol.HTTP2
	AutoSNI  AutoSNI
}

// Version tells what version of HTTP a request is sent with, as far as that is known before there is a
// connection: one that negotiates it may turn out to speak HTTP/1.1.
func (o *HTTPOptions) Version(downstream stream.Protocol) stream.Protocol {
	if o.multiplexed(downstream) {
		return stream.HTTP2
	}
	return stream.HTTP11
}

// multiplexed tells whether a request is sent over a connection that carries many of them.
func (o *HTTPOptions) multiplexed(downstream stream.Protocol) bool {
	return o.HTTP2 || o.Auto || o.Downstream && downstream >= stream.HTTP2
}

type edsConfig struct {
	source  *source.ConfigSource
	service string
}

type dnsConfig struct {
	discover.Options
	resolver discover.ResolverOptions
}

// assignment is a compiled ClusterLoadAssignment.
type assignment struct {
	localities []localityConfig
	policy     host.Policy
	staleAfter time.Duration
}

type localityConfig struct {
	locality *host.Locality
	weight   uint32
	priority uint32
	hosts    []endpointConfig
}

type endpointConfig struct {
	// addr is zero for a DNS name, which is in name with port then.
	addr     addrConfig
	more     []addrConfig
	hostname string
	attr     *host.Attributes
}
