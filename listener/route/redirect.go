package route

import (
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"sidecar/api/header"
	"sidecar/internal/config"
	"sidecar/internal/match"
)

// redirection is a RedirectAction, or the redirect to TLS that require_tls makes.
type redirection struct {
	scheme, host, port, path string // "" keeps the request's; port begins with a colon
	prefixRewrite            string
	regexRewrite             *match.Substitution
	stripQuery               bool
	toTLS                    bool
}

// Redirect returns the location that a request is redirected to. A rewritten path is also put into
// the request, with the old one in x-envoy-original-path if keepOriginal: log lines show it so.
// It allocates.
func (e *Entry) Redirect(h *header.Map, keepOriginal bool) string {
	r := e.redirect
	if r.toTLS {
		return "https://" + h.Value(header.Authority) + h.Value(header.Path)
	}
	switch {
	case r.regexRewrite != nil:
		full := h.Value(header.Path)
		path := withoutQuery(full)
		// An empty result counts as no rewrite, as in Envoy.
		if b := r.regexRewrite.AppendReplaced(nil, path); len(b) > 0 {
			setPath(h, string(b), full[len(path):], keepOriginal)
		}
	case r.prefixRewrite != "":
		full := h.Value(header.Path)
		setPath(h, r.prefixRewrite, full[e.matchedLen(full):], keepOriginal)
	}
	return r.location(h)
}

func (r *redirection) location(h *header.Map) string {
	scheme := r.scheme
	if scheme == "" {
		scheme = h.Value(header.Scheme)
	}
	host := r.host
	if host == "" {
		host = r.requestHost(h, scheme)
	}
	path := h.Value(header.Path)
	if r.path != "" {
		_, query, has := strings.Cut(path, "?")
		if path = r.path; has && !strings.Contains(r.path, "?") {
			path += "?" + query
		}
	}
	// The query of a path_redirect stays, strip_query or not.
	if r.stripQuery && !strings.Contains(r.path, "?") {
		path, _, _ = strings.Cut(path, "?")
	}
	return scheme + "://" + host + r.port + path
}

// requestHost is the request's host for a location: its port goes if another is configured, or if it
// was the default port of a scheme that changes.
func (r *redirection) requestHost(h *header.Map, scheme string) string {
	host := h.Value(header.Authority)
	i := strings.LastIndexByte(host, ':')
	if strings.HasPrefix(host, "[") {
		if i = strings.LastIndex(host, "]:"); i >= 0 {
			i++
		}
	}
	if i < 0 {
		return host
	}
	old := h.Value(header.XForwardedProto)
	if r.port != "" || scheme != old &&
		(old == "https" && host[i:] == ":443" || old == "http" && host[i:] == ":80") {
		return host[:i]
	}
	return host
}

func (c *compiler) redirection(p *config.Path, m *routev3.RedirectAction, e *Entry) {
	redirectFields.Check(p, m, c.errs)
	r := &redirection{
		scheme: m.GetSchemeRedirect(), host: m.GetHostRedirect(), path: m.GetPathRedirect(),
		prefixRewrite: m.GetPrefixRewrite(), stripQuery: m.GetStripQuery(),
	}
	if m.GetHttpsRedirect() {
		r.scheme = "https"
	}
	if port := m.GetPortRedirect(); port != 0 {
		r.port = ":" + strconv.FormatUint(uint64(port), 10)
	}
	if m.GetRegexRewrite() != nil {
		r.regexRewrite = match.CompileSubstitution(p.Field("regex_rewrite"), m.GetRegexRewrite(), c.errs)
	}
	e.Kind, e.redirect = Redirect, r
	switch m.GetResponseCode() {
	case routev3.RedirectAction_FOUND:
		e.Status = 302
	case routev3.RedirectAction_SEE_OTHER:
		e.Status = 303
	case routev3.RedirectAction_TEMPORARY_REDIRECT:
		e.Status = 307
	case routev3.RedirectAction_PERMANENT_REDIRECT:
		e.Status = 308
	case routev3.RedirectAction_MOVED_PERMANENTLY:
		e.Status = 301
	default:
		c.errs.Addf(p.Field("response_code"), "unknown value %d", m.GetResponseCode())
	}
}
