package route

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/grpchttp"
	"sidecar/internal/match"
)

// request is what rules look at. It lives on the stack of Match.
type request struct {
	h      *header.Map
	info   *stream.Info
	random uint64
	full   string // the path with its query
	path   string // without
	// connect: the method is CONNECT, or UDP is to be tunnelled.
	connect bool
	hasPath bool
}

// rule is one route of a virtual host.
type rule struct {
	path  pathMatch
	when  *conditions // nil: none but the path
	entry *Entry
	split *split // nil unless the route has weighted clusters
}

type pathKind uint8

const (
	pathPrefix pathKind = iota
	pathExact
	pathSeparated
	pathRegex
	pathConnect
)

// pathMatch is the path_specifier of a route.
type pathMatch struct {
	text string
	re   *match.Regex
	kind pathKind
	fold bool
}

// key is what every path that matches begins with.
func (m *pathMatch) key() string {
	if m.kind == pathRegex {
		return m.re.Prefix()
	}
	return m.text
}

func (m *pathMatch) matches(q *request) bool {
	if m.kind == pathConnect {
		return q.connect
	}
	if !q.hasPath {
		return false
	}
	switch m.kind {
	case pathPrefix:
		return m.begins(q.path)
	case pathExact:
		return len(q.path) == len(m.text) && m.begins(q.path)
	case pathSeparated:
		return m.begins(q.path) && (len(q.path) == len(m.text) || q.path[len(m.text)] == '/')
	case pathRegex:
		return m.re.Match(q.path)
	case pathConnect:
	}
	return false
}

func (m *pathMatch) begins(path string) bool {
	if !m.fold {
		return strings.HasPrefix(path, m.text)
	}
	return len(path) >= len(m.text) && match.EqualFold(path[:len(m.text)], m.text)
}

// conditions are what a route asks for besides its path; all must hold.
type conditions struct {
	runtime     *config.RuntimeFraction
	headers     match.Headers
	queries     []match.Query
	cookies     []match.Cookie
	metadata    []match.Metadata
	filterState []match.FilterState
	tls         *routeTLS
	grpc        bool
}

// routeTLS compares with what the client presented; nil members ask nothing.
type routeTLS struct{ presented, validated *bool }

func (r *rule) matches(q *request) bool {
	return r.path.matches(q) && (r.when == nil || r.when.hold(q))
}

func (c *conditions) hold(q *request) bool {
	if c.runtime != nil && !c.runtime.Hit(q.random) || c.grpc && !grpchttp.IsRequest(q.h) || !c.headers.Match(q.h) {
		return false
	}
	for i := range c.queries {
		if !c.queries[i].Match(q.full) {
			return false
		}
	}
	for i := range c.cookies {
		if !c.cookies[i].Match(q.h) {
			return false
		}
	}
	if c.tls != nil && !c.tls.match(q.info) {
		return false
	}
	for i := range c.metadata {
		if !c.metadata[i].Match(q.info.Metadata) {
			return false
		}
	}
	for i := range c.filterState {
		if !c.filterState[i].Match(q.info) {
			return false
		}
	}
	return true
}

func (t *routeTLS) match(info *stream.Info) bool {
	var tls stream.TLSInfo
	if info.Conn != nil && info.Conn.TLS != nil {
		tls = *info.Conn.TLS
	}
	return (t.presented == nil || *t.presented == tls.PeerPresented) &&
		(t.validated == nil || *t.validated == tls.PeerValidated)
}

func (c *compiler) runtimeFraction(p *config.Path, m runtimeFractional) *config.RuntimeFraction {
	f := config.CompileRuntimeFraction(p, m, config.Fraction{}, c.env.Runtime, c.errs)
	return &f
}

// pathMatch reads the path_specifier.
func (c *compiler) pathMatch(p *config.Path, m *routev3.RouteMatch) (pm pathMatch) {
	pm.fold = !config.Value(m.GetCaseSensitive(), true)
	switch v := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		pm.kind, pm.text = pathPrefix, v.Prefix
	case *routev3.RouteMatch_Path:
		pm.kind, pm.text = pathExact, v.Path
	case *routev3.RouteMatch_PathSeparatedPrefix:
		pm.kind, pm.text = pathSeparated, v.PathSeparatedPrefix
	case *routev3.RouteMatch_SafeRegex:
		// case_sensitive has no say over expressions.
		pm.kind, pm.fold = pathRegex, false
		pm.re = match.CompileRegex(p.Field("safe_regex"), v.SafeRegex, c.errs)
	case *routev3.RouteMatch_ConnectMatcher_:
		pm.kind = pathConnect
	}
	return pm
}

// conditions reads all of a RouteMatch but its path_specifier.
func (c *compiler) conditions(p *config.Path, m *routev3.RouteMatch) *conditions {
	out := &conditions{headers: match.CompileHeaders(p.Field("headers"), m.GetHeaders(), c.errs)}
	used := out.headers != nil
	if rf := m.GetRuntimeFraction(); rf != nil {
		used = true
		out.runtime = c.runtimeFraction(p.Field("runtime_fraction"), rf)
	}
	if m.GetGrpc() != nil {
		used, out.grpc = true, true
	}
	for i, q := range m.GetQueryParameters() {
		used = true
		out.queries = append(out.queries, match.CompileQuery(p.Field("query_parameters").Index(i), q, c.errs))
	}
	for i, k := range m.GetCookies() {
		used = true
		out.cookies = append(out.cookies, match.CompileCookie(p.Field("cookies").Index(i), k, c.errs))
	}
	if t := m.GetTlsContext(); t != nil {
		used = true
		tlsMatchFields.Check(p.Field("tls_context"), t, c.errs)
		out.tls = &routeTLS{presented: boolOf(t.GetPresented()), validated: boolOf(t.GetValidated())}
	}
	for i, d := range m.GetDynamicMetadata() {
		used = true
		at := p.Field("dynamic_metadata").Index(i)
		out.metadata = append(out.metadata, match.CompileMetadata(at, d, c.errs))
	}
	for i, f := range m.GetFilterState() {
		used = true
		at := p.Field("filter_state").Index(i)
		out.filterState = append(out.filterState, match.CompileFilterState(at, f, c.errs))
	}
	if !used {
		return nil
	}
	return out
}
