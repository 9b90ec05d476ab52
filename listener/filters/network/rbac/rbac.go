// Package rbac lets connections go on or closes them by role-based access control policies
// (envoy.filters.network.rbac), once their first bytes have come.
package rbac

import (
	"errors"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/config"
	"sidecar/internal/rbac"
)

// Name is Envoy's name of the filter, and the namespace of its dynamic metadata.
const Name = "envoy.filters.network.rbac"

//nolint:gochecknoglobals // immutable table
var fields = config.Fields[*rbacv3.RBAC]{
	Used:    "rules shadow_rules shadow_rules_stat_prefix stat_prefix enforcement_type",
	Refused: "matcher shadow_matcher delay_deny",
}

// Config is a compiled filter.
type Config struct {
	rules, shadow               *rbac.Engine
	shadowPrefix                string
	continuous                  bool
	scope                       *stats.Scope
	allowed, denied             *stats.Counter
	shadowAllowed, shadowDenied *stats.Counter
}

// Entry is the filter as the binary knows it.
func Entry() *filter.NetworkEntry {
	return &filter.NetworkEntry{
		Name: Name, Config: &rbacv3.RBAC{},
		Compile: func(m proto.Message, c filter.NetworkContext) (any, error) {
			msg, ok := m.(*rbacv3.RBAC)
			if !ok {
				return nil, errors.New("is no RBAC configuration")
			}
			return compile(msg, c)
		},
	}
}

func compile(m *rbacv3.RBAC, nc filter.NetworkContext) (any, error) {
	var errs config.Errors
	fields.Check(nil, m, &errs)
	c := &Config{
		rules:        rbac.Compile(config.Field("rules"), m.GetRules(), &errs),
		shadow:       rbac.Compile(config.Field("shadow_rules"), m.GetShadowRules(), &errs),
		shadowPrefix: m.GetShadowRulesStatPrefix(), continuous: m.GetEnforcementType() == rbacv3.RBAC_CONTINUOUS,
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	c.scope = nc.Scope.Sub(m.GetStatPrefix() + "rbac")
	c.allowed, c.denied = c.scope.Counter("allowed"), c.scope.Counter("denied")
	c.shadowAllowed = c.scope.Counter(c.shadowPrefix + "shadow_allowed")
	c.shadowDenied = c.scope.Counter(c.shadowPrefix + "shadow_denied")
	return c, nil
}

// Retire implements filter.Retirer.
func (c *Config) Retire() { c.scope.Close() }

// NewNetworkFilter implements filter.NetworkFactory.
func (c *Config) NewNetworkFilter(conn *filter.Connection) any { return &Filter{cfg: c, conn: conn} }

// Filter decides on one connection.
type Filter struct {
	cfg  *Config
	conn *filter.Connection
}

// OnRead implements wire.ReadTap. As in Envoy nothing is decided before the client has sent something.
func (f *Filter) OnRead(data *buf.Buffer, _ bool) (again bool) {
	c := f.cfg
	info := f.conn.Info.Record
	if info == nil {
		info = &stream.Info{}
		info.Reset(f.conn.Info.Start, f.conn.Info)
	}
	s := rbac.Subject{Info: info, Conn: f.conn.Info}
	if c.shadow != nil {
		allowed, policy, _ := c.shadow.Decide(&s)
		rbac.Note(info, Name, c.shadowPrefix, "shadow", allowed, policy)
		if allowed {
			c.shadowAllowed.Inc()
		} else {
			c.shadowDenied.Inc()
		}
	}
	if c.rules == nil {
		return c.continuous
	}
	allowed, policy, matched := c.rules.Decide(&s)
	if c.rules.Log() {
		rbac.NoteLog(info, matched)
	}
	rbac.Note(info, Name, "", "enforced", allowed, policy)
	if allowed {
		c.allowed.Inc()
		return c.continuous
	}
	c.denied.Inc()
	data.Reset()
	f.conn.Info.TerminationDetail = rbac.Details(policy)
	f.conn.Wire.Close()
	return false
}
