package istiostats

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"sidecar/api/filter"
	statspb "sidecar/api/sidecar/istio/stats"
	"sidecar/api/stats"
	"sidecar/internal/config"
	"sidecar/internal/workload"
)

// Name is Istio's name of the filter.
const Name = "istio.stats"

//nolint:gochecknoglobals // immutable tables
var (
	fields = config.Fields[*statspb.PluginConfig]{
		Used: "disable_host_header_fallback tcp_reporting_duration metrics reporter rotation_interval " +
			"graceful_deletion_interval",
		Refused: "definitions",
		NoOp: map[string]string{
			"debug":               "deprecated, Istio's filter has no use for it either",
			"max_peer_cache_size": "deprecated, Istio's filter has no use for it either",
			"stat_prefix":         "deprecated, Istio's filter has no use for it either",
			"field_separator":     "deprecated, Istio's filter has no use for it either",
			"value_separator":     "deprecated, Istio's filter has no use for it either",
		},
	}
	metricFields = config.Fields[*statspb.MetricConfig]{
		Used: "dimensions name tags_to_remove drop",
		NoOp: map[string]string{"match": "Istio's filter has no use for it either"},
	}
)

// The defaults of Istio's filter.
const (
	defaultReporting = 5 * time.Second
	defaultDeletion  = 5 * time.Minute
)

// The metrics. The first four are of HTTP streams, the next two of gRPC calls, the rest of connections.
const (
	requests = iota
	duration
	requestBytes
	responseBytes
	requestMessages
	responseMessages
	opened
	closed
	sentBytes
	receivedBytes
	numMetrics
)

type metricSpec struct {
	name string
	kind stats.Kind
	unit stats.Unit
}

func specs() [numMetrics]metricSpec {
	return [numMetrics]metricSpec{
		requests:         {"requests_total", stats.KindCounter, stats.Unspecified},
		duration:         {"request_duration_milliseconds", stats.KindHistogram, stats.Milliseconds},
		requestBytes:     {"request_bytes", stats.KindHistogram, stats.Bytes},
		responseBytes:    {"response_bytes", stats.KindHistogram, stats.Bytes},
		requestMessages:  {"request_messages_total", stats.KindCounter, stats.Unspecified},
		responseMessages: {"response_messages_total", stats.KindCounter, stats.Unspecified},
		opened:           {"tcp_connections_opened_total", stats.KindCounter, stats.Unspecified},
		closed:           {"tcp_connections_closed_total", stats.KindCounter, stats.Unspecified},
		sentBytes:        {"tcp_sent_bytes_total", stats.KindCounter, stats.Unspecified},
		receivedBytes:    {"tcp_received_bytes_total", stats.KindCounter, stats.Unspecified},
	}
}

// metric is one metric with the changes that the configuration makes to its dimensions.
type metric struct {
	vector *stats.Vector
	drop   bool
	// removed are dimensions left out; override take the place of their values, extra come behind.
	removed  [numDimensions]bool
	override [numDimensions]expression
	extra    []extraDimension
}

type extraDimension struct {
	name  string
	value expression
}

// Config is a compiled filter of either form.
type Config struct {
	env          Env
	local        *workload.Workload
	inbound      bool
	hostFallback bool
	reporting    time.Duration
	metrics      [numMetrics]metric
	ticker       *rotation
}

// Env is what compiling may use.
type Env struct {
	NodeID string
	Node   *structpb.Struct // the node's metadata
	Store  *stats.Store
	// Version is that of Istio, from the node's metadata.
	Version string
}

// inboundDirection is core.v3.TrafficDirection's INBOUND.
const inboundDirection = 1

// Entry is the HTTP filter as the binary knows it.
func Entry(env Env) filter.HTTPEntry {
	return filter.RegisterHTTP(Name, &statspb.PluginConfig{},
		func(m *statspb.PluginConfig, c filter.Context) (any, error) {
			x, err := compile(m, c.Direction, env)
			if err != nil {
				return nil, err
			}
			return &HTTP{x}, nil
		})
}

// CompileNetwork compiles the network filter.
func CompileNetwork(m *statspb.PluginConfig, c filter.NetworkContext, env Env) (any, error) {
	x, err := compile(m, c.Direction, env)
	if err != nil {
		return nil, err
	}
	return &Network{x}, nil
}

func compile(m *statspb.PluginConfig, direction int32, env Env) (*Config, error) {
	var errs config.Errors
	fields.Check(nil, m, &errs)
	if m.GetReporter() != statspb.Reporter_UNSPECIFIED {
		errs.Addf(config.Field("reporter"), "%s is not supported", m.GetReporter())
	}
	c := &Config{
		env: env, local: workload.FromNode(env.Node, nil), inbound: direction == inboundDirection,
		hostFallback: !m.GetDisableHostHeaderFallback(),
		reporting: config.Duration(config.Field("tcp_reporting_duration"), m.GetTcpReportingDuration(),
			defaultReporting, &errs),
	}
	for i, s := range specs() {
		c.metrics[i].vector = env.Store.NewVector("istiocustom.istio_"+s.name, s.kind, s.unit)
	}
	for i, o := range m.GetMetrics() {
		c.change(config.Field("metrics").Index(i), o, &errs)
	}
	every := config.Duration(config.Field("rotation_interval"), m.GetRotationInterval(), 0, &errs)
	grace := config.Duration(config.Field("graceful_deletion_interval"), m.GetGracefulDeletionInterval(),
		defaultDeletion, &errs)
	if err := errs.Err(); err != nil {
		return nil, err
	}
	if every > 0 {
		c.ticker = &rotation{every: every, grace: grace}
	}
	build := env.Store.NewVector("istiocustom.istio_build", stats.KindGauge, stats.Unspecified)
	version := cmp.Or(env.Version, unknown)
	build.Gauge([]byte(version), func() []stats.Tag {
		return []stats.Tag{{Name: "component", Value: "proxy"}, {Name: "tag", Value: version}}
	}).Set(1)
	return c, nil
}

// change applies one override to the metrics that it is about.
func (c *Config) change(p *config.Path, o *statspb.MetricConfig, errs *config.Errors) {
	metricFields.Check(p, o, errs)
	names := make([]string, 0, len(o.GetDimensions()))
	for n := range o.GetDimensions() {
		names = append(names, n)
	}
	slices.Sort(names)
	compiled := map[string]expression{}
	for _, n := range names {
		compiled[n] = compileExpression(p.Field("dimensions").Key(n), o.GetDimensions()[n], errs)
	}
	// A name that is none of them is of a metric that nobody defines: Istio's filter takes it, too.
	for i, s := range specs() {
		if o.GetName() != "" && o.GetName() != s.name && o.GetName() != strings.TrimSuffix(s.name, "_total") {
			continue
		}
		c.metrics[i].change(o, names, compiled)
	}
}

func (m *metric) change(o *statspb.MetricConfig, names []string, compiled map[string]expression) {
	m.drop = m.drop || o.GetDrop()
	for _, tag := range o.GetTagsToRemove() {
		if d := dimensionOf(tag); d >= 0 {
			m.removed[d] = true
		}
		m.extra = slices.DeleteFunc(m.extra, func(x extraDimension) bool { return x.name == tag })
	}
	for _, n := range names {
		if d := dimensionOf(n); d >= 0 {
			m.override[d], m.removed[d] = compiled[n], false
			continue
		}
		m.extra = slices.DeleteFunc(m.extra, func(x extraDimension) bool { return x.name == n })
		m.extra = append(m.extra, extraDimension{n, compiled[n]})
	}
}
