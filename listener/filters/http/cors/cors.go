// Package cors answers preflights and adds headers for requests across origins
// (envoy.filters.http.cors), as the policy of the route says.
package cors

import (
	"errors"

	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/config"
	"sidecar/internal/match"
)

// Name is Envoy's name of the filter.
const Name = "envoy.filters.http.cors"

// The headers of the Fetch standard that have no well-known index.
const (
	allowOrigin      = "access-control-allow-origin"
	allowCredentials = "access-control-allow-credentials"
	allowMethods     = "access-control-allow-methods"
	allowHeaders     = "access-control-allow-headers"
	exposeHeaders    = "access-control-expose-headers"
	maxAge           = "access-control-max-age"
	requestPrivate   = "access-control-request-private-network"
	allowPrivate     = "access-control-allow-private-network"
)

//nolint:gochecknoglobals // immutable tables
var (
	fields       = config.Fields[*corsv3.Cors]{}
	policyFields = config.Fields[*corsv3.CorsPolicy]{
		Used: "allow_origin_string_match allow_methods allow_headers expose_headers max_age allow_credentials " +
			"filter_enabled shadow_enabled allow_private_network_access forward_not_matching_preflights",
	}
)

// Env is what compiling may use.
type Env struct {
	Random func() uint64
	// Runtime reads a fraction of the runtime; nil: there is none.
	Runtime func(key string) (config.Fraction, bool)
}

// Stats are "http.PREFIX.cors.".
type Stats struct {
	Valid   stats.Counter `stat:"origin_valid"`
	Invalid stats.Counter `stat:"origin_invalid"`
}

// Config is a compiled filter.
type Config struct {
	env   Env
	stats *Stats
}

// Policy is the compiled policy of a route.
type Policy struct {
	origins                          []match.String
	methods, headers, expose, maxAge string
	credentials, private, forward    bool
	enabled, shadow                  config.RuntimeFraction
}

// Entry is the filter as the binary knows it.
func Entry(env Env) filter.HTTPEntry {
	e := filter.RegisterHTTP(Name, &corsv3.Cors{}, func(m *corsv3.Cors, c filter.Context) (any, error) {
		var errs config.Errors
		fields.Check(nil, m, &errs)
		return &Config{env: env, stats: stats.Bind[Stats](c.Scope.Sub(c.StatPrefix + "cors"))}, errs.Err()
	})
	e.Route = &corsv3.CorsPolicy{}
	e.CompileRoute = func(m proto.Message, _ filter.Context) (any, error) {
		p, ok := m.(*corsv3.CorsPolicy)
		if !ok {
			return nil, errors.New("is no CORS policy")
		}
		return compilePolicy(p, env)
	}
	return e
}

func compilePolicy(m *corsv3.CorsPolicy, env Env) (any, error) {
	var errs config.Errors
	policyFields.Check(nil, m, &errs)
	p := &Policy{
		methods: m.GetAllowMethods(), headers: m.GetAllowHeaders(), expose: m.GetExposeHeaders(),
		maxAge: m.GetMaxAge(), credentials: m.GetAllowCredentials().GetValue(),
		private: m.GetAllowPrivateNetworkAccess().GetValue(),
		forward: config.Value(m.GetForwardNotMatchingPreflights(), true),
	}
	for i, o := range m.GetAllowOriginStringMatch() {
		p.origins = append(p.origins, match.CompileString(config.Field("allow_origin_string_match").Index(i), o, &errs))
	}
	p.enabled = config.RuntimeFraction{Default: config.Fraction{Numerator: 1, Denominator: 1}}
	if f := m.GetFilterEnabled(); f != nil {
		p.enabled = config.CompileRuntimeFraction(config.Field("filter_enabled"), f, p.enabled.Default, env.Runtime, &errs)
	}
	if f := m.GetShadowEnabled(); f != nil {
		p.shadow = config.CompileRuntimeFraction(config.Field("shadow_enabled"), f, config.Fraction{}, env.Runtime, &errs)
	}
	return p, errs.Err()
}

// Filter is that of one stream.
type Filter struct {
	cfg    *Config
	s      filter.Stream
	policy *Policy // of a request across origins that is allowed
	origin string
}

//nolint:gochecknoglobals // free list
var filters = buf.Pool[Filter]{New: func() *Filter { return new(Filter) }}

// NewFilter implements filter.Factory.
func (c *Config) NewFilter(s filter.Stream) any {
	f := filters.Get()
	f.cfg, f.s = c, s
	return f
}

// OnRequestHeaders implements filter.RequestHeaders.
func (f *Filter) OnRequestHeaders(t *stream.Turn, h *header.Map, _ bool) filter.Action {
	origin := h.Value(header.Origin)
	if origin == "" {
		return filter.Continue
	}
	p, ok := f.s.RouteConfig().(*Policy)
	if !ok {
		return filter.Continue
	}
	enabled, shadow := p.enabled.Hit(f.cfg.env.Random()), p.shadow.Hit(f.cfg.env.Random())
	if !enabled && !shadow {
		return filter.Continue
	}
	allowed := p.allows(origin)
	if allowed {
		f.cfg.stats.Valid.Inc()
	} else {
		f.cfg.stats.Invalid.Inc()
	}
	if !enabled {
		return filter.Continue
	}
	if allowed {
		f.policy, f.origin = p, origin
	}
	if h.Value(header.Method) != "OPTIONS" || h.Value(header.AccessControlRequestMethod) == "" || (!allowed && p.forward) {
		return filter.Continue
	}
	private, _ := h.Get(requestPrivate)
	f.s.Reply(t, &filter.Reply{
		Status: 200, Details: "cors_response", GRPCStatus: -1,
		Headers: func(h *header.Map) {
			if allowed {
				p.preflight(h, private == "true")
			}
		},
	})
	return filter.Done
}

func (p *Policy) allows(origin string) bool {
	for i := range p.origins {
		if p.origins[i].Match(origin) {
			return true
		}
	}
	return false
}

// preflight adds what OnResponseHeaders, which sees the answer too, does not.
func (p *Policy) preflight(h *header.Map, private bool) {
	set := func(name, v string) {
		if v != "" {
			h.Set(name, v)
		}
	}
	set(allowMethods, p.methods)
	set(allowHeaders, p.headers)
	set(maxAge, p.maxAge)
	if private && p.private {
		h.Set(allowPrivate, "true")
	}
}

// OnResponseHeaders implements filter.ResponseHeaders.
func (f *Filter) OnResponseHeaders(_ *stream.Turn, h *header.Map, _ bool) filter.Action {
	if f.policy == nil {
		return filter.Continue
	}
	h.Set(allowOrigin, f.origin)
	if f.policy.credentials {
		h.Set(allowCredentials, "true")
	}
	if f.policy.expose != "" && f.s.Info().Details != "cors_response" {
		h.Set(exposeHeaders, f.policy.expose)
	}
	return filter.Continue
}

// OnDestroy implements filter.Destroyer.
func (f *Filter) OnDestroy(*stream.Turn) {
	*f = Filter{}
	filters.Put(f)
}
