// Package rbac decides by Envoy's role-based access control policies, for HTTP requests and for
// connections.
package rbac

import (
	"maps"
	"slices"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
)

var (
	rulesFields = config.Fields[*rbacv3.RBAC]{
		Used: "action policies", Refused: "audit_logging_options",
	}
	policyFields = config.Fields[*rbacv3.Policy]{
		Used: "permissions principals", Refused: "condition checked_condition cel_config",
	}
)

// Subject is what is decided on. Headers is nil for connections.
type Subject struct {
	Headers *header.Map
	Info    *stream.Info
	Conn    *stream.ConnInfo
}

// matcher is one permission or principal.
type matcher func(s *Subject) bool

// Engine is a compiled set of rules. It is immutable; the nil engine has no rules.
type Engine struct {
	action   rbacv3.RBAC_Action
	policies []policy
}

type policy struct {
	name                    string
	permissions, principals matcher
}

// Compile turns rules into an Engine; nil for nil.
func Compile(p *config.Path, m *rbacv3.RBAC, errs *config.Errors) *Engine {
	if m == nil {
		return nil
	}
	rulesFields.Check(p, m, errs)
	e := &Engine{action: m.GetAction()}
	// Envoy keeps policies in the order of their names.
	for _, name := range slices.Sorted(maps.Keys(m.GetPolicies())) {
		at := p.Field("policies").Key(name)
		c := m.GetPolicies()[name]
		policyFields.Check(at, c, errs)
		e.policies = append(e.policies, policy{
			name:        name,
			permissions: permissions(at.Field("permissions"), c.GetPermissions(), errs, 0),
			principals:  principals(at.Field("principals"), c.GetPrincipals(), errs, 0),
		})
	}
	return e
}

// Log tells that the rules only mark what they match for the access log.
func (e *Engine) Log() bool { return e.action == rbacv3.RBAC_LOG }

// Decide tells whether the subject may pass; policy is the one that matched, "" if none did.
func (e *Engine) Decide(s *Subject) (allowed bool, policy string, matched bool) {
	for i := range e.policies {
		p := &e.policies[i]
		if p.permissions(s) && p.principals(s) {
			policy, matched = p.name, true
			break
		}
	}
	switch e.action {
	case rbacv3.RBAC_ALLOW:
		return matched, policy, matched
	case rbacv3.RBAC_DENY:
		return !matched, policy, matched
	default:
		return true, policy, matched
	}
}

// Details are the response code details, or those of the end of a connection, of what was denied.
func Details(policy string) string {
	if policy == "" {
		policy = "none"
	}
	clean := strings.Map(func(r rune) rune {
		if r == ' ' || r == '\t' || r == '\n' || r == '\v' || r == '\f' || r == '\r' {
			return '_'
		}
		return r
	}, policy)
	return "rbac_access_denied_matched_policy[" + clean + "]"
}

// The values of the dynamic metadata that a decision leaves.
const (
	LogNamespace = "envoy.common"
	LogKey       = "access_log_hint"
)

// Note writes a decision to dynamic metadata: kind is "shadow" or "enforced", with a prefix.
func Note(info *stream.Info, namespace, prefix, kind string, allowed bool, policy string) {
	m := space(info, namespace)
	result := "denied"
	if allowed {
		result = "allowed"
	}
	m[prefix+kind+"_engine_result"] = result
	if policy != "" {
		m[prefix+kind+"_effective_policy_id"] = policy
	}
}

// NoteLog writes what rules with the action LOG have found.
func NoteLog(info *stream.Info, hint bool) { space(info, LogNamespace)[LogKey] = hint }

func space(info *stream.Info, namespace string) map[string]any {
	if info.Metadata == nil {
		info.Metadata = map[string]map[string]any{}
	}
	if info.Metadata[namespace] == nil {
		info.Metadata[namespace] = map[string]any{}
	}
	return info.Metadata[namespace]
}
