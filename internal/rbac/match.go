package rbac

import (
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	templatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"sidecar/api/header"
	"sidecar/internal/config"
	"sidecar/internal/match"
)

var (
	permissionFields = config.Fields[*rbacv3.Permission]{
		Used: "and_rules or_rules any header url_path destination_ip destination_port destination_port_range " +
			"metadata not_rule requested_server_name uri_template",
		Refused: "matcher sourced_metadata",
	}
	principalFields = config.Fields[*rbacv3.Principal]{
		Used: "and_ids or_ids any authenticated source_ip direct_remote_ip remote_ip header url_path metadata " +
			"filter_state not_id",
		Refused: "sourced_metadata custom",
	}
	permissionSetFields = config.Fields[*rbacv3.Permission_Set]{Used: "rules"}
	principalSetFields  = config.Fields[*rbacv3.Principal_Set]{Used: "ids"}
	authenticatedFields = config.Fields[*rbacv3.Principal_Authenticated]{Used: "principal_name"}
	pathFields          = config.Fields[*matcherv3.PathMatcher]{Used: "path"}
	extensionFields     = config.Fields[*corev3.TypedExtensionConfig]{Used: "name typed_config"}
	templateFields      = config.Fields[*templatev3.UriTemplateMatchConfig]{Used: "path_template"}
)

// maxDepth bounds the nesting of rules, which are compiled by recursion.
const maxDepth = 64

func never(*Subject) bool { return false }

func permissions(p *config.Path, list []*rbacv3.Permission, errs *config.Errors, depth int) matcher {
	return match.Some(permissionList(p, list, errs, depth))
}

func permissionList(p *config.Path, list []*rbacv3.Permission, errs *config.Errors, depth int) []matcher {
	out := make([]matcher, 0, len(list))
	for i, m := range list {
		out = append(out, permission(p.Index(i), m, errs, depth+1))
	}
	return out
}

func permissionSet(p *config.Path, m *rbacv3.Permission_Set, errs *config.Errors, depth int) []matcher {
	permissionSetFields.Check(p, m, errs)
	return permissionList(p.Field("rules"), m.GetRules(), errs, depth)
}

func permission(p *config.Path, m *rbacv3.Permission, errs *config.Errors, depth int) matcher {
	if depth > maxDepth {
		errs.Add(p, "is nested too deeply")
		return never
	}
	permissionFields.Check(p, m, errs)
	switch r := m.GetRule().(type) {
	case *rbacv3.Permission_AndRules:
		return match.Every(permissionSet(p.Field("and_rules"), r.AndRules, errs, depth))
	case *rbacv3.Permission_OrRules:
		return match.Some(permissionSet(p.Field("or_rules"), r.OrRules, errs, depth))
	case *rbacv3.Permission_NotRule:
		inner := permission(p.Field("not_rule"), r.NotRule, errs, depth+1)
		return func(s *Subject) bool { return !inner(s) }
	case *rbacv3.Permission_Any:
		return func(*Subject) bool { return true }
	case *rbacv3.Permission_Header:
		h := match.CompileHeader(p.Field("header"), r.Header, errs)
		return func(s *Subject) bool { return s.Headers != nil && h.Match(s.Headers) }
	case *rbacv3.Permission_UrlPath:
		return urlPath(p.Field("url_path"), r.UrlPath, errs)
	case *rbacv3.Permission_UriTemplate:
		return uriTemplate(p.Field("uri_template"), r.UriTemplate, errs)
	case *rbacv3.Permission_DestinationIp:
		return cidr(p.Field("destination_ip"), r.DestinationIp, errs,
			func(s *Subject) netip.Addr { return s.Conn.Local.IP.Addr() })
	case *rbacv3.Permission_DestinationPort:
		return func(s *Subject) bool {
			return uint32(s.Conn.Local.IP.Port()) == r.DestinationPort && s.Conn.Local.IP.IsValid()
		}
	case *rbacv3.Permission_DestinationPortRange:
		start, end := r.DestinationPortRange.GetStart(), r.DestinationPortRange.GetEnd()
		return func(s *Subject) bool {
			port := int32(s.Conn.Local.IP.Port())
			return s.Conn.Local.IP.IsValid() && port >= start && port < end
		}
	case *rbacv3.Permission_Metadata:
		x := match.CompileMetadata(p.Field("metadata"), r.Metadata, errs)
		return func(s *Subject) bool { return x.Match(s.Info.Metadata) }
	case *rbacv3.Permission_RequestedServerName:
		x := match.CompileString(p.Field("requested_server_name"), r.RequestedServerName, errs)
		return func(s *Subject) bool { return x.Match(s.Conn.SNI) }
	}
	return never // refused above
}

func principals(p *config.Path, list []*rbacv3.Principal, errs *config.Errors, depth int) matcher {
	return match.Some(principalList(p, list, errs, depth))
}

func principalList(p *config.Path, list []*rbacv3.Principal, errs *config.Errors, depth int) []matcher {
	out := make([]matcher, 0, len(list))
	for i, m := range list {
		out = append(out, principal(p.Index(i), m, errs, depth+1))
	}
	return out
}

func principalSet(p *config.Path, m *rbacv3.Principal_Set, errs *config.Errors, depth int) []matcher {
	principalSetFields.Check(p, m, errs)
	return principalList(p.Field("ids"), m.GetIds(), errs, depth)
}

func principal(p *config.Path, m *rbacv3.Principal, errs *config.Errors, depth int) matcher {
	if depth > maxDepth {
		errs.Add(p, "is nested too deeply")
		return never
	}
	principalFields.Check(p, m, errs)
	switch r := m.GetIdentifier().(type) {
	case *rbacv3.Principal_AndIds:
		return match.Every(principalSet(p.Field("and_ids"), r.AndIds, errs, depth))
	case *rbacv3.Principal_OrIds:
		return match.Some(principalSet(p.Field("or_ids"), r.OrIds, errs, depth))
	case *rbacv3.Principal_NotId:
		inner := principal(p.Field("not_id"), r.NotId, errs, depth+1)
		return func(s *Subject) bool { return !inner(s) }
	case *rbacv3.Principal_Any:
		return func(*Subject) bool { return true }
	case *rbacv3.Principal_Authenticated_:
		return authenticated(p.Field("authenticated"), r.Authenticated, errs)
	case *rbacv3.Principal_SourceIp:
		return cidr(p.Field("source_ip"), r.SourceIp, errs,
			func(s *Subject) netip.Addr { return s.Conn.Remote.IP.Addr() })
	case *rbacv3.Principal_DirectRemoteIp:
		return cidr(p.Field("direct_remote_ip"), r.DirectRemoteIp, errs,
			func(s *Subject) netip.Addr { return s.Conn.Direct.IP.Addr() })
	case *rbacv3.Principal_RemoteIp:
		return cidr(p.Field("remote_ip"), r.RemoteIp, errs, func(s *Subject) netip.Addr { return s.Info.Remote })
	case *rbacv3.Principal_Header:
		h := match.CompileHeader(p.Field("header"), r.Header, errs)
		return func(s *Subject) bool { return s.Headers != nil && h.Match(s.Headers) }
	case *rbacv3.Principal_UrlPath:
		return urlPath(p.Field("url_path"), r.UrlPath, errs)
	case *rbacv3.Principal_Metadata:
		x := match.CompileMetadata(p.Field("metadata"), r.Metadata, errs)
		return func(s *Subject) bool { return x.Match(s.Info.Metadata) }
	case *rbacv3.Principal_FilterState:
		x := match.CompileFilterState(p.Field("filter_state"), r.FilterState, errs)
		return func(s *Subject) bool { return x.Match(s.Info) }
	}
	return never // refused above
}

// authenticated matches the names of the peer's certificate: its URI and DNS names, or else its
// subject (AuthenticatedMatcher::matches).
func authenticated(p *config.Path, m *rbacv3.Principal_Authenticated, errs *config.Errors) matcher {
	authenticatedFields.Check(p, m, errs)
	if m.GetPrincipalName() == nil {
		return func(s *Subject) bool { return s.Conn.TLS != nil }
	}
	name := match.CompileString(p.Field("principal_name"), m.GetPrincipalName(), errs)
	return func(s *Subject) bool {
		t := s.Conn.TLS
		if t == nil {
			return false
		}
		for _, list := range [2][]string{t.Peer.URISAN, t.Peer.DNSSAN} {
			if slices.ContainsFunc(list, name.Match) {
				return true
			}
		}
		return name.Match(t.Peer.Subject)
	}
}

func cidr(p *config.Path, m *corev3.CidrRange, errs *config.Errors, of func(s *Subject) netip.Addr) matcher {
	prefix := config.Prefix(p, m, errs)
	return func(s *Subject) bool { return prefix.Contains(of(s).Unmap()) }
}

// pathOf is the path of a request without its query and fragment.
func pathOf(s *Subject) (string, bool) {
	if s.Headers == nil {
		return "", false
	}
	path, ok := s.Headers.GetID(header.Path)
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		path = path[:i]
	}
	return path, ok
}

func urlPath(p *config.Path, m *matcherv3.PathMatcher, errs *config.Errors) matcher {
	pathFields.Check(p, m, errs)
	x := match.CompileString(p.Field("path"), m.GetPath(), errs)
	return func(s *Subject) bool {
		path, ok := pathOf(s)
		return ok && x.Match(path)
	}
}

func uriTemplate(p *config.Path, m *corev3.TypedExtensionConfig, errs *config.Errors) matcher {
	extensionFields.Check(p, m, errs)
	at := p.Field("typed_config")
	c, ok := config.OpenAs[*templatev3.UriTemplateMatchConfig](at, m.GetTypedConfig(), errs)
	if !ok {
		return never
	}
	templateFields.Check(at, c, errs)
	text, ok := templateRegex(c.GetPathTemplate())
	if !ok {
		errs.Addf(at.Field("path_template"), "%q is not a valid template", c.GetPathTemplate())
		return never
	}
	re := match.CompileRegex(at.Field("path_template"), &matcherv3.RegexMatcher{Regex: text}, errs)
	if re == nil {
		return never
	}
	return func(s *Subject) bool {
		path, ok := pathOf(s)
		return ok && re.Match(path)
	}
}

// What a "*" and a "**" of a template stand for.
const (
	oneSegment = `[a-zA-Z0-9\-._~%!$&'()+,;:@]+`
	anyText    = `[a-zA-Z0-9\-._~%!$&'()+,;:@=/]*`
)

// templateRegex turns a template such as /a/{name}/{rest=**} or /a/{*}/{**} into an expression.
func templateRegex(t string) (string, bool) {
	if !strings.HasPrefix(t, "/") {
		return "", false
	}
	var out strings.Builder
	for i := 0; i < len(t); {
		switch t[i] {
		case '{':
			n := strings.IndexByte(t[i:], '}')
			if n < 0 {
				return "", false
			}
			inner := t[i+1 : i+n]
			if _, pattern, has := strings.Cut(inner, "="); has {
				inner = pattern
			} else if inner != "*" && inner != "**" {
				inner = "*"
			}
			out.WriteString(wildcards(inner))
			i += n + 1
		case '*':
			n := 1
			if strings.HasPrefix(t[i:], "**") {
				n = 2
			}
			out.WriteString(wildcards(t[i : i+n]))
			i += n
		case '}':
			return "", false
		default:
			out.WriteString(quote(t[i]))
			i++
		}
	}
	return out.String(), true
}

func wildcards(pattern string) string {
	var out strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch {
		case strings.HasPrefix(pattern[i:], "**"):
			out.WriteString(anyText)
			i++
		case pattern[i] == '*':
			out.WriteString(oneSegment)
		default:
			out.WriteString(quote(pattern[i]))
		}
	}
	return out.String()
}

func quote(c byte) string {
	if strings.IndexByte(`\.+*?()|[]{}^$`, c) >= 0 {
		return `\` + string(rune(c))
	}
	return string(rune(c))
}
