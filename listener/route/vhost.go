package route

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"sidecar/internal/config"
	"sidecar/internal/format"
	"sidecar/internal/match"
	"sidecar/internal/mutate"
)

type virtualCluster struct {
	name    string
	headers match.Headers
}

// inherited is what routes take from their virtual host.
type inherited struct {
	host              *VirtualHost
	filters           []filterConfig
	request, response *mutate.Headers
	retry             *RetryPolicy
	mirrors           []Mirror
	bufferLimit       uint64
}

// host reads a VirtualHost with its routes.
func (c *compiler) host(p *config.Path, m *routev3.VirtualHost) *host {
	virtualHostFields.Check(p, m, c.errs)
	in := &inherited{
		host:        c.virtualHost(p, m),
		filters:     c.filterConfigs(p, m.GetTypedPerFilterConfig(), c.filters),
		mirrors:     c.mirrors(p, m.GetRequestMirrorPolicies()),
		bufferLimit: NoLimit,
	}
	in.request = mutate.Compile(p, "request_headers", m.GetRequestHeadersToAdd(),
		m.GetRequestHeadersToRemove(), c.format, c.errs)
	in.response = mutate.Compile(p, "response_headers", m.GetResponseHeadersToAdd(),
		m.GetResponseHeadersToRemove(), c.format, c.errs)
	if m.GetRetryPolicy() != nil {
		in.retry = c.retryPolicy(p.Field("retry_policy"), m.GetRetryPolicy())
	}
	if in.mirrors == nil {
		in.mirrors = c.mirrored
	}
	if l := m.GetPerRequestBufferLimitBytes(); l != nil { //nolint:staticcheck // old control planes send it
		in.bufferLimit = uint64(l.GetValue())
	}
	if l := m.GetRequestBodyBufferLimit(); l != nil {
		in.bufferLimit = l.GetValue()
	}
	h := &host{}
	c.requireTLS(p.Field("require_tls"), m.GetRequireTls(), in.host, h)
	rules := make([]rule, len(m.GetRoutes()))
	for i, r := range m.GetRoutes() {
		c.rule(p.Field("routes").Index(i), r, in, &rules[i])
	}
	if c.errs.Len() == 0 {
		h.paths = newPaths(rules)
	}
	return h
}

func (c *compiler) virtualHost(p *config.Path, m *routev3.VirtualHost) *VirtualHost {
	v := &VirtualHost{
		Name:                          m.GetName(),
		Metadata:                      c.metadata(p.Field("metadata"), m.GetMetadata()),
		IncludeAttemptCount:           m.GetIncludeRequestAttemptCount(),
		IncludeAttemptCountInResponse: m.GetIncludeAttemptCountInResponse(),
		IncludeIsTimeoutRetry:         m.GetIncludeIsTimeoutRetryHeader(),
	}
	for i, vc := range m.GetVirtualClusters() {
		at := p.Field("virtual_clusters").Index(i)
		virtualClusterFields.Check(at, vc, c.errs)
		if len(vc.GetHeaders()) == 0 {
			c.errs.Add(at, "virtual clusters must define 'headers'")
		}
		v.virtualClusters = append(v.virtualClusters, virtualCluster{
			name: vc.GetName(), headers: match.CompileHeaders(at.Field("headers"), vc.GetHeaders(), c.errs),
		})
	}
	return v
}

func (c *compiler) requireTLS(
	p *config.Path, req routev3.VirtualHost_TlsRequirementType, v *VirtualHost, h *host,
) {
	switch req {
	case routev3.VirtualHost_NONE:
		return
	case routev3.VirtualHost_EXTERNAL_ONLY:
		h.requireTLS = tlsExternalOnly
	case routev3.VirtualHost_ALL:
		h.requireTLS = tlsAll
	default:
		c.errs.Addf(p, "unknown value %d", req)
	}
	h.tlsRedirect = &Entry{
		Kind: Redirect, VirtualHost: v, Status: 301, BufferLimit: NoLimit,
		redirect: &redirection{toTLS: true},
	}
}

// operation is the name that a decorator has told to the next hop.
func operation(m *routev3.Decorator) string {
	if !config.Value(m.GetPropagate(), true) {
		return ""
	}
	return m.GetOperation()
}

// rule reads a Route.
func (c *compiler) rule(p *config.Path, m *routev3.Route, in *inherited, r *rule) {
	routeFields.Check(p, m, c.errs)
	matchFields.Check(p.Field("match"), m.GetMatch(), c.errs)
	decoratorFields.Check(p.Field("decorator"), m.GetDecorator(), c.errs)
	r.path = c.pathMatch(p.Field("match"), m.GetMatch())
	r.when = c.conditions(p.Field("match"), m.GetMatch())
	e := &Entry{
		Operation:   operation(m.GetDecorator()),
		VirtualHost: in.host, StatPrefix: m.GetStatPrefix(), BufferLimit: in.bufferLimit,
		Metadata: c.metadata(p.Field("metadata"), m.GetMetadata()),
		name:     m.GetName(), matched: len(r.path.text),
		filters: c.filterConfigs(p, m.GetTypedPerFilterConfig(), in.filters),
	}
	if r.path.kind == pathRegex || r.path.kind == pathConnect {
		e.matched = matchedAll
	}
	if l := m.GetPerRequestBufferLimitBytes(); l != nil { //nolint:staticcheck // old control planes send it
		e.BufferLimit = uint64(l.GetValue())
	}
	if l := m.GetRequestBodyBufferLimit(); l != nil {
		e.BufferLimit = l.GetValue()
	}
	c.mutations(p, m, in, e)
	r.entry = e
	switch a := m.GetAction().(type) {
	case *routev3.Route_Route:
		c.action(p.Field("route"), a.Route, in, e)
		if w := a.Route.GetWeightedClusters(); w != nil {
			r.split = c.split(p.Field("route.weighted_clusters"), w, e)
		}
	case *routev3.Route_Redirect:
		c.redirection(p.Field("redirect"), a.Redirect, e)
	case *routev3.Route_DirectResponse:
		c.directResponse(p.Field("direct_response"), a.DirectResponse, e)
	case *routev3.Route_NonForwardingAction:
		e.Kind = NonForwarding
	}
}

// mutations puts the header mutations of route, virtual host and table in their order: the last one
// wins, which is the table's unless most_specific_header_mutations_wins.
func (c *compiler) mutations(p *config.Path, m *routev3.Route, in *inherited, e *Entry) {
	request := mutate.Compile(p, "request_headers", m.GetRequestHeadersToAdd(),
		m.GetRequestHeadersToRemove(), c.format, c.errs)
	response := mutate.Compile(p, "response_headers", m.GetResponseHeadersToAdd(),
		m.GetResponseHeadersToRemove(), c.format, c.errs)
	e.request = [levels]*mutate.Headers{nil, request, in.request, c.request}
	e.response = [levels]*mutate.Headers{nil, response, in.response, c.response}
	if c.mostSpecificWins {
		e.request[1], e.request[3] = e.request[3], e.request[1]
		e.response[1], e.response[3] = e.response[3], e.response[1]
	}
}

func (c *compiler) directResponse(p *config.Path, m *routev3.DirectResponseAction, e *Entry) {
	directResponseFields.Check(p, m, c.errs)
	e.Kind, e.Status = DirectResponse, int(m.GetStatus())
	// Of these the location is the request's own URL, as in Envoy.
	if e.Status == 201 || e.Status/100 == 3 {
		e.redirect = &redirection{}
	}
	if body := m.GetBody(); body != nil && !isEmptyInline(body) {
		if b, ok := config.ReadDataSource(p.Field("body"), body, c.maxBody, c.errs); ok {
			e.body = string(b)
		}
	}
	if f := m.GetBodyFormat(); f != nil {
		if s := format.CompileAt(p.Field("body_format"), f, c.env.Format, c.errs); s != nil {
			e.bodyFormat, e.ContentType = s, s.ContentType()
		}
	}
}
