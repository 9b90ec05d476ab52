// Package tcpproxy is the network filter envoy.filters.network.tcp_proxy: it connects a downstream
// connection to a host of a cluster and moves the bytes.
//
// Small messages are read and written; a transfer that keeps filling its buffers is spliced through a
// kernel pipe until it comes in small pieces again.
package tcpproxy

import (
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/internal/config"
	"sidecar/internal/format"
)

//nolint:gochecknoglobals // immutable tables
var (
	fields = config.Fields[*tcpv3.TcpProxy]{
		Used: "stat_prefix cluster weighted_clusters idle_timeout access_log max_connect_attempts hash_policy " +
			"max_downstream_connection_duration access_log_options access_log_flush_interval " +
			"flush_access_log_on_connected tunneling_config max_downstream_connection_duration_jitter_percentage",
		OffOnly: "check_drain_close",
		Refused: "on_demand metadata_match downstream_idle_timeout upstream_idle_timeout backoff_options " +
			"proxy_protocol_tlvs proxy_protocol_tlv_merge_policy upstream_connect_mode max_early_data_bytes",
	}
	weightedFields = config.Fields[*tcpv3.TcpProxy_WeightedCluster]{Used: "clusters"}
	weightFields   = config.Fields[*tcpv3.TcpProxy_WeightedCluster_ClusterWeight]{
		Used: "name weight", Refused: "metadata_match",
	}
	logFields = config.Fields[*tcpv3.TcpProxy_TcpAccessLogOptions]{
		Used: "access_log_flush_interval flush_access_log_on_connected flush_access_log_on_start",
	}
)

const defaultIdleTimeout = time.Hour

// Config is a compiled TCP proxy. It is immutable.
type Config struct {
	stats       *Stats
	clusters    Clusters
	logs        []AccessLog
	random      func() uint64
	weighted    []weighted
	total       uint64
	idleTimeout time.Duration
	maxDuration time.Duration
	jitter      float64 // of maxDuration, in percent
	tunnel      *tunneling
	maxAttempts int
	hash        *hashPolicy // nil: none
	// When to log besides the end.
	logOnStart, logOnConnected bool
	logInterval                time.Duration
	scope                      *stats.Scope
}

// Retire implements filter.Retirer.
func (c *Config) Retire() { c.scope.Close() }

type weighted struct {
	name   string
	weight uint64
}

// Clusters finds clusters by name.
type Clusters interface {
	Get(name string) *cluster.Cluster
}

// AccessLog writes one line; it must not block.
type AccessLog interface {
	Log(info *stream.Info)
}

// Stats are "tcp.PREFIX.".
type Stats struct {
	CxTotal     stats.Counter `stat:"downstream_cx_total"`
	DrainClose  stats.Counter `stat:"downstream_cx_drain_close"`
	Overload    stats.Counter `stat:"downstream_cx_overload_close"`
	EarlyData   stats.Counter `stat:"early_data_received_count_total"`
	RouteDelay  stats.Counter `stat:"route_delayed_total"`
	CxNoRoute   stats.Counter `stat:"downstream_cx_no_route"`
	RxBytes     stats.Counter `stat:"downstream_cx_rx_bytes_total"`
	TxBytes     stats.Counter `stat:"downstream_cx_tx_bytes_total"`
	RxBuffered  stats.Gauge   `stat:"downstream_cx_rx_bytes_buffered"`
	TxBuffered  stats.Gauge   `stat:"downstream_cx_tx_bytes_buffered"`
	FlowPaused  stats.Counter `stat:"downstream_flow_control_paused_reading_total"`
	FlowResumed stats.Counter `stat:"downstream_flow_control_resumed_reading_total"`
	IdleTimeout stats.Counter `stat:"idle_timeout"`
	MaxDuration stats.Counter `stat:"max_downstream_connection_duration"`
	FlushTotal  stats.Counter `stat:"upstream_flush_total"`
	FlushActive stats.Gauge   `stat:"upstream_flush_active"`
}

// Env is what compiling may use.
type Env struct {
	Clusters   Clusters
	Random     func() uint64
	Format     format.Options
	AccessLogs func(p *config.Path, logs []*accesslogv3.AccessLog, errs *config.Errors) []AccessLog
}

var (
	_ filter.NetworkTerminal = (*Config)(nil)
	_ filter.Retirer         = (*Config)(nil)
)

// Compile turns the configuration into a Config.
func Compile(m *tcpv3.TcpProxy, nc filter.NetworkContext, env Env) (*Config, error) {
	var errs config.Errors
	fields.Check(nil, m, &errs)
	c := &Config{
		clusters:    env.Clusters,
		random:      env.Random,
		idleTimeout: config.Duration(config.Field("idle_timeout"), m.GetIdleTimeout(), defaultIdleTimeout, &errs),
		maxDuration: config.Duration(config.Field("max_downstream_connection_duration"),
			m.GetMaxDownstreamConnectionDuration(), 0, &errs),
		jitter: config.Percent(config.Field("max_downstream_connection_duration_jitter_percentage"),
			m.GetMaxDownstreamConnectionDurationJitterPercentage(), 0, &errs),
		maxAttempts: int(config.Value(m.GetMaxConnectAttempts(), 1)),
		tunnel:      compileTunneling(m.GetTunnelingConfig(), &env, &errs),
	}
	switch {
	case m.GetWeightedClusters() != nil:
		p := config.Field("weighted_clusters")
		weightedFields.Check(p, m.GetWeightedClusters(), &errs)
		for i, w := range m.GetWeightedClusters().GetClusters() {
			weightFields.Check(p.Field("clusters").Index(i), w, &errs)
			c.weighted = append(c.weighted, weighted{w.GetName(), uint64(w.GetWeight())})
			c.total += uint64(w.GetWeight())
		}
	case m.GetCluster() != "":
		c.weighted, c.total = []weighted{{m.GetCluster(), 1}}, 1
	default:
		errs.Add(nil, "one of cluster and weighted_clusters is required")
	}
	c.hash = compileHash(config.Field("hash_policy"), m.GetHashPolicy(), &errs)
	if env.AccessLogs != nil {
		c.logs = env.AccessLogs(config.Field("access_log"), m.GetAccessLog(), &errs)
	}
	c.compileLogOptions(m, &errs)
	if err := errs.Err(); err != nil {
		return nil, err
	}
	c.scope = nc.Scope.Sub("tcp." + m.GetStatPrefix())
	c.stats = stats.Bind[Stats](c.scope)
	return c, nil
}

// compileLogOptions reads when to log, from access_log_options or the fields that it replaces.
func (c *Config) compileLogOptions(m *tcpv3.TcpProxy, errs *config.Errors) {
	o := m.GetAccessLogOptions()
	p := config.Field("access_log_options")
	logFields.Check(p, o, errs)
	if o != nil && m.GetFlushAccessLogOnConnected() {
		errs.Add(p, "Only one of flush_access_log_on_connected or access_log_options can be specified.")
	}
	if o != nil && m.GetAccessLogFlushInterval() != nil {
		errs.Add(p, "Only one of access_log_flush_interval or access_log_options can be specified.")
	}
	c.logOnStart = o.GetFlushAccessLogOnStart()
	c.logOnConnected = o.GetFlushAccessLogOnConnected() || m.GetFlushAccessLogOnConnected()
	c.logInterval = config.Duration(config.Field("access_log_flush_interval"), m.GetAccessLogFlushInterval(), 0, errs)
	if o != nil {
		c.logInterval = config.Duration(p.Field("access_log_flush_interval"), o.GetAccessLogFlushInterval(), 0, errs)
	}
}

// duration is how long a connection may last: up to the jitter longer than configured; 0 for ever.
func (c *Config) duration() time.Duration {
	d := c.maxDuration
	if more := uint64(float64(d) * c.jitter / 100); more > 0 {
		d += time.Duration(c.random() % more)
	}
	return d
}

// pick chooses a cluster by weight.
func (c *Config) pick() string {
	if len(c.weighted) == 1 {
		return c.weighted[0].name
	}
	n := c.random() % max(c.total, 1)
	for _, w := range c.weighted {
		if n < w.weight {
			return w.name
		}
		n -= w.weight
	}
	return c.weighted[len(c.weighted)-1].name
}
