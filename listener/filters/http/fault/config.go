// Package fault delays, aborts and slows requests on purpose (envoy.filters.http.fault), as the
// configuration of the filter or the route says, or headers of the request.
//
// DIVERGES(fault-rate-limit): a response that is slowed down goes out in the pieces in which it came,
// each after the time that it takes at the limit; Envoy cuts it into pieces of 63 ms.
package fault

import (
	"cmp"
	"errors"
	"strings"
	"sync"
	"time"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/internal/config"
	"sidecar/internal/match"
)

// Name is Envoy's name of the filter.
const Name = "envoy.filters.http.fault"

//nolint:gochecknoglobals // immutable tables
var (
	fields = config.Fields[*faultv3.HTTPFault]{
		Used: "delay abort upstream_cluster headers downstream_nodes max_active_faults response_rate_limit " +
			"delay_percent_runtime abort_percent_runtime delay_duration_runtime abort_http_status_runtime " +
			"max_active_faults_runtime response_rate_limit_percent_runtime abort_grpc_status_runtime " +
			"disable_downstream_cluster_stats",
		Refused: "filter_metadata",
	}
	delayFields = config.Fields[*commonv3.FaultDelay]{Used: "fixed_delay header_delay percentage"}
	abortFields = config.Fields[*faultv3.FaultAbort]{
		Used: "http_status grpc_status header_abort percentage", Refused: "response_body",
	}
	limitFields = config.Fields[*commonv3.FaultRateLimit]{Used: "fixed_limit header_limit percentage"}
	fixedFields = config.Fields[*commonv3.FaultRateLimit_FixedLimit]{Used: "limit_kbps"}
)

// Env is what compiling may use.
type Env struct {
	Random func() uint64
	// Runtime and RuntimeNumber read the runtime; nil: there is none.
	Runtime       func(key string) (config.Fraction, bool)
	RuntimeNumber func(key string) (uint64, bool)
}

// Stats are "http.PREFIX.fault.".
type Stats struct {
	Aborts   stats.Counter `stat:"aborts_injected"`
	Delays   stats.Counter `stat:"delays_injected"`
	Limited  stats.Counter `stat:"response_rl_injected"`
	Overflow stats.Counter `stat:"faults_overflow"`
	Active   stats.Gauge   `stat:"active_faults"`
}

// Settings say what to do to which requests; those of a route take the place of the filter's.
type Settings struct {
	delay, abort, limit             bool
	delayByHeader, abortByHeader    bool
	limitByHeader                   bool
	delayTime                       time.Duration
	httpStatus                      int
	grpcStatus                      int // -1: none
	limitBytes                      uint64
	delayShare, abortShare, limitBy config.RuntimeFraction

	cluster   string
	headers   match.Headers
	nodes     map[string]bool
	maxActive uint64
	bounded   bool // by maxActive
	perNode   bool // count by downstream cluster, too

	delayKey, statusKey, grpcKey, activeKey string
}

// Config is a compiled filter.
type Config struct {
	env   Env
	own   *Settings
	stats *Stats
	scope *stats.Scope

	mu    sync.Mutex // guards below
	nodes map[string]bool
}

// The downstream clusters that are counted by name are bounded. DIVERGES(fault-nodes): Envoy counts
// every one that a client names.
const (
	maxNodes    = 256
	maxNodeName = 128
)

// counts tells whether a downstream cluster is counted by its name.
func (c *Config) counts(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.nodes[name] && len(c.nodes) < maxNodes && len(name) <= maxNodeName {
		if c.nodes == nil {
			c.nodes = map[string]bool{}
		}
		c.nodes[strings.Clone(name)] = true
	}
	return c.nodes[name]
}

// Entry is the filter as the binary knows it.
func Entry(env Env) filter.HTTPEntry {
	e := filter.RegisterHTTP(Name, &faultv3.HTTPFault{}, func(m *faultv3.HTTPFault, c filter.Context) (any, error) {
		own, err := compile(m, &env)
		if err != nil {
			return nil, err
		}
		scope := c.Scope.Sub(c.StatPrefix + "fault")
		return &Config{env: env, own: own, stats: stats.Bind[Stats](scope), scope: scope}, nil
	})
	e.Route = &faultv3.HTTPFault{}
	e.CompileRoute = func(m proto.Message, _ filter.Context) (any, error) {
		f, ok := m.(*faultv3.HTTPFault)
		if !ok {
			return nil, errors.New("is no fault configuration")
		}
		s, err := compile(f, &env)
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	return e
}

// Retire implements filter.Retirer.
func (c *Config) Retire() { c.scope.Close() }

func compile(m *faultv3.HTTPFault, env *Env) (*Settings, error) {
	var errs config.Errors
	fields.Check(nil, m, &errs)
	s := &Settings{
		cluster: m.GetUpstreamCluster(), headers: match.CompileHeaders(config.Field("headers"), m.GetHeaders(), &errs),
		maxActive: uint64(m.GetMaxActiveFaults().GetValue()), bounded: m.GetMaxActiveFaults() != nil, perNode: !m.GetDisableDownstreamClusterStats(),
		grpcStatus: -1,
		delayKey:   cmp.Or(m.GetDelayDurationRuntime(), "fault.http.delay.fixed_duration_ms"),
		statusKey:  cmp.Or(m.GetAbortHttpStatusRuntime(), "fault.http.abort.http_status"),
		grpcKey:    cmp.Or(m.GetAbortGrpcStatusRuntime(), "fault.http.abort.grpc_status"),
		activeKey:  cmp.Or(m.GetMaxActiveFaultsRuntime(), "fault.http.max_active_faults"),
	}
	for _, n := range m.GetDownstreamNodes() {
		if s.nodes == nil {
			s.nodes = map[string]bool{}
		}
		s.nodes[n] = true
	}
	if d := m.GetDelay(); d != nil {
		p := config.Field("delay")
		delayFields.Check(p, d, &errs)
		s.delay, s.delayByHeader = true, d.GetHeaderDelay() != nil
		s.delayTime = config.Duration(p.Field("fixed_delay"), d.GetFixedDelay(), 0, &errs)
		s.delayShare = env.percentage(p, d.GetPercentage(), m.GetDelayPercentRuntime(), "delay.fixed_delay_percent", &errs)
	}
	if a := m.GetAbort(); a != nil {
		p := config.Field("abort")
		abortFields.Check(p, a, &errs)
		s.abort, s.abortByHeader = true, a.GetHeaderAbort() != nil
		s.httpStatus = int(a.GetHttpStatus())
		if _, ok := a.GetErrorType().(*faultv3.FaultAbort_GrpcStatus); ok {
			s.grpcStatus = int(a.GetGrpcStatus())
		}
		s.abortShare = env.percentage(p, a.GetPercentage(), m.GetAbortPercentRuntime(), "abort.abort_percent", &errs)
	}
	if l := m.GetResponseRateLimit(); l != nil {
		p := config.Field("response_rate_limit")
		limitFields.Check(p, l, &errs)
		fixedFields.Check(p.Field("fixed_limit"), l.GetFixedLimit(), &errs)
		s.limit, s.limitByHeader = true, l.GetHeaderLimit() != nil
		s.limitBytes = l.GetFixedLimit().GetLimitKbps() << 10
		s.limitBy = env.percentage(p, l.GetPercentage(), m.GetResponseRateLimitPercentRuntime(),
			"rate_limit.response_percent", &errs)
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	return s, nil
}

func (e *Env) percentage(
	p *config.Path, m *typev3.FractionalPercent, key, def string, errs *config.Errors,
) config.RuntimeFraction {
	return config.RuntimeFraction{
		Default: config.FractionalPercent(p.Field("percentage"), m, config.Fraction{Denominator: 100}, errs),
		Key:     cmp.Or(key, "fault.http."+def), Lookup: e.Runtime,
	}
}
