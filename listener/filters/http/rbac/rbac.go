// Package rbac lets requests pass or refuses them by role-based access control policies
// (envoy.filters.http.rbac).
package rbac

import (
	"errors"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/rbac"
)

// Name is Envoy's name of the filter, and the namespace of its dynamic metadata.
const Name = "envoy.filters.http.rbac"

//nolint:gochecknoglobals // immutable tables
var (
	fields = config.Fields[*rbacv3.RBAC]{
		Used:    "rules rules_stat_prefix shadow_rules shadow_rules_stat_prefix track_per_rule_stats",
		Refused: "matcher shadow_matcher",
	}
	routeFields = config.Fields[*rbacv3.RBACPerRoute]{Used: "rbac"}
)

// Rules are the compiled configuration of the filter or of a route.
type Rules struct {
	rules, shadow             *rbac.Engine
	rulesPrefix, shadowPrefix string
	perRule                   bool
}

// Config is a compiled filter.
type Config struct {
	own   *Rules
	scope *stats.Scope
	count counters // of own
}

// counters are "http.PREFIX.rbac.".
type counters struct {
	allowed, denied             *stats.Counter
	shadowAllowed, shadowDenied *stats.Counter
}

func (c *Config) countersOf(r *Rules) counters {
	if r == c.own {
		return c.count
	}
	return bind(c.scope, r)
}

func bind(s *stats.Scope, r *Rules) counters {
	return counters{
		s.Counter(r.rulesPrefix + "allowed"), s.Counter(r.rulesPrefix + "denied"),
		s.Counter(r.shadowPrefix + "shadow_allowed"), s.Counter(r.shadowPrefix + "shadow_denied"),
	}
}

// Entry is the filter as the binary knows it.
func Entry() filter.HTTPEntry {
	e := filter.RegisterHTTP(Name, &rbacv3.RBAC{}, func(m *rbacv3.RBAC, c filter.Context) (any, error) {
		own, err := compile(m)
		if err != nil {
			return nil, err
		}
		x := &Config{own: own, scope: c.Scope.Sub(c.StatPrefix + "rbac")}
		x.count = bind(x.scope, own)
		return x, nil
	})
	e.Route = &rbacv3.RBACPerRoute{}
	e.CompileRoute = func(m proto.Message, _ filter.Context) (any, error) {
		r, ok := m.(*rbacv3.RBACPerRoute)
		if !ok {
			return nil, errors.New("is no RBACPerRoute")
		}
		var errs config.Errors
		routeFields.Check(nil, r, &errs)
		if r.GetRbac() == nil {
			return &Rules{}, errs.Err() // nothing is asked of the route's requests
		}
		rules, err := compile(r.GetRbac())
		errs.Wrap(config.Field("rbac"), err)
		return rules, errs.Err()
	}
	return e
}

func compile(m *rbacv3.RBAC) (*Rules, error) {
	var errs config.Errors
	fields.Check(nil, m, &errs)
	r := &Rules{
		rules:       rbac.Compile(config.Field("rules"), m.GetRules(), &errs),
		shadow:      rbac.Compile(config.Field("shadow_rules"), m.GetShadowRules(), &errs),
		rulesPrefix: m.GetRulesStatPrefix(), shadowPrefix: m.GetShadowRulesStatPrefix(),
		perRule: m.GetTrackPerRuleStats(),
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	return r, nil
}

// Retire implements filter.Retirer.
func (c *Config) Retire() { c.scope.Close() }

// NewFilter implements filter.Factory.
func (c *Config) NewFilter(s filter.Stream) any { return Filter{c, s} }

// Filter is that of one stream.
type Filter struct {
	cfg *Config
	s   filter.Stream
}

// OnRequestHeaders implements filter.RequestHeaders.
func (f Filter) OnRequestHeaders(t *stream.Turn, h *header.Map, _ bool) filter.Action {
	r := f.cfg.own
	if x, ok := f.s.RouteConfig().(*Rules); ok {
		r = x
	}
	if r.rules == nil && r.shadow == nil {
		return filter.Continue
	}
	count := f.cfg.countersOf(r)
	info := f.s.Info()
	subject := rbac.Subject{Headers: h, Info: info, Conn: info.Conn}
	if r.shadow != nil {
		allowed, policy, _ := r.shadow.Decide(&subject)
		rbac.Note(info, Name, r.shadowPrefix, "shadow", allowed, policy)
		pick(allowed, count.shadowAllowed, count.shadowDenied).Inc()
		f.perRule(r, policy, r.shadowPrefix, "shadow_", allowed)
	}
	if r.rules == nil {
		return filter.Continue
	}
	allowed, policy, matched := r.rules.Decide(&subject)
	if r.rules.Log() {
		rbac.NoteLog(info, matched)
	}
	rbac.Note(info, Name, r.rulesPrefix, "enforced", allowed, policy)
	pick(allowed, count.allowed, count.denied).Inc()
	f.perRule(r, policy, r.rulesPrefix, "", allowed)
	if allowed {
		return filter.Continue
	}
	f.s.Reply(t, &filter.Reply{
		Status: 403, Body: "RBAC: access denied", Details: rbac.Details(policy), GRPCStatus: -1,
	})
	return filter.Done
}

func pick(yes bool, a, b *stats.Counter) *stats.Counter {
	if yes {
		return a
	}
	return b
}

// perRule counts by policy, if asked to.
func (f Filter) perRule(r *Rules, policy, prefix, kind string, allowed bool) {
	if !r.perRule || policy == "" {
		return
	}
	result := "denied"
	if allowed {
		result = "allowed"
	}
	f.cfg.scope.Counter(prefix + "policy." + policy + "." + kind + result).Inc()
}
