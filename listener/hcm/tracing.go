package hcm

import (
	"strconv"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/internal/config"
	"sidecar/listener/route"
)

// Without a provider there is no tracer; what is left of tracing is that requests are marked.
const noTracer = "only read by tracers, of which there are none without a provider"

//nolint:gochecknoglobals // immutable table
var tracingFields = config.Fields[*hcmv3.HttpConnectionManager_Tracing]{
	Used:    "client_sampling random_sampling overall_sampling",
	Refused: "provider",
	NoOp: map[string]string{
		"verbose": noTracer, "max_path_tag_length": noTracer, "custom_tags": noTracer,
		"spawn_upstream_span": noTracer, "operation": noTracer, "upstream_operation": noTracer,
		"no_context_propagation": noTracer,
	},
}

// tracing marks requests for tracers along their way: in the request id, and with the name of the
// route's operation. nil: the manager does not.
type tracing struct {
	// Shares of 10,000 requests.
	client, random, overall uint64
	egress                  bool
	stats                   *tracingStats
}

// tracingStats are "http.PREFIX.tracing.".
type tracingStats struct {
	Random      stats.Counter `stat:"random_sampling"`
	Service     stats.Counter `stat:"service_forced"`
	Client      stats.Counter `stat:"client_enabled"`
	Untraceable stats.Counter `stat:"not_traceable"`
	HealthCheck stats.Counter `stat:"health_check"`
}

// outbound is core.v3.TrafficDirection's OUTBOUND.
const outbound = 2

func (c *Config) compileTracing(m *hcmv3.HttpConnectionManager_Tracing, env *Env, errs *config.Errors) {
	if m == nil {
		return
	}
	tracingFields.Check(config.Field("tracing"), m, errs)
	share := func(p interface{ GetValue() float64 }, set bool) uint64 {
		if !set {
			return 10_000
		}
		return uint64(max(0, p.GetValue()) * 100)
	}
	c.tracing = &tracing{
		client:  share(m.GetClientSampling(), m.GetClientSampling() != nil),
		random:  share(m.GetRandomSampling(), m.GetRandomSampling() != nil),
		overall: share(m.GetOverallSampling(), m.GetOverallSampling() != nil),
		egress:  env.Direction == outbound,
		stats:   stats.Bind[tracingStats](env.Scope.Sub(c.statPrefix + "tracing")),
	}
}

// The digit of a request id, which is a UUID, that says whether and why the request is traced.
const (
	reasonAt      = 14
	reasonNone    = '4'
	reasonSampled = '9'
	reasonForced  = 'a'
	reasonClient  = 'b'
	uuidLength    = 36
)

// mark writes to the request id whether the request is traced
// (ConnectionManagerUtility::mutateTracingRequestHeader).
func (s *Stream) mark(h *header.Map) {
	x := s.cfg.tracing
	if x == nil {
		return
	}
	id := h.Value(header.XRequestID)
	if len(id) != uuidLength {
		x.stats.Untraceable.Inc()
		return
	}
	n, err := strconv.ParseUint(id[:8], 16, 32)
	if err != nil {
		x.stats.Untraceable.Inc()
		return
	}
	n %= 10_000
	reason := id[reasonAt]
	switch reason {
	case reasonSampled, reasonForced, reasonClient:
	default:
		switch {
		case h.Has(header.XClientTraceID) && n < x.client:
			reason = reasonClient
		case h.Has(header.XEnvoyForceTrace):
			reason = reasonForced
		case n < x.random:
			reason = reasonSampled
		default:
			reason = reasonNone
		}
	}
	if reason != reasonNone && n >= x.overall {
		reason = reasonNone
	}
	x.count(reason)
	if reason != id[reasonAt] {
		s.scratch = append(s.scratch[:0], id...)
		s.scratch[reasonAt] = reason
		h.SetBytes(header.XRequestID, s.scratch)
	}
}

func (x *tracing) count(reason byte) {
	switch reason {
	case reasonSampled:
		x.stats.Random.Inc()
	case reasonForced:
		x.stats.Service.Inc()
	case reasonClient:
		x.stats.Client.Inc()
	default:
		x.stats.Untraceable.Inc()
	}
}

// decorate tells the next hop the name of the route's operation, or takes out what the hop before told
// (ConnectionManagerImpl::ActiveStream::traceRequest).
func (s *Stream) decorate(h *header.Map, e *route.Entry) {
	switch x := s.cfg.tracing; {
	case x == nil:
	case !x.egress:
		h.RemoveID(header.XEnvoyDecoratorOperation)
	case e.Operation != "":
		h.SetID(header.XEnvoyDecoratorOperation, e.Operation)
	}
}

// decorateResponse is decorate for the way back, on which the inbound side tells.
func (s *Stream) decorateResponse(h *header.Map) {
	switch x := s.cfg.tracing; {
	case x == nil:
	case x.egress:
		h.RemoveID(header.XEnvoyDecoratorOperation)
	case s.entry != nil && s.entry.Operation != "":
		h.SetID(header.XEnvoyDecoratorOperation, s.entry.Operation)
	}
}
