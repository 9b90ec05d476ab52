package route

import (
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/match"
	"sidecar/internal/mutate"
)

// redirection is a RedirectAction, or the redirect to TLS that require_tls makes.
type redirection struct {
	scheme, host, port, path string // "" keeps the request's; port begins with a colon
	prefixRewrite            string
	regexRewrite             *match.Substitution
	pathFormat               mutate.Formatter
	stripQuery               bool
	toTLS                    bool
}

// Location returns the location header of a route's own answer, "" if it has none. Redirects have
// one, so have direct responses with status 201 and 3xx, whose location is the request's own URL.
// Where a redirect rewrites the path, it does so in the request, and leaves the old one in
// x-envoy-original-path if keepOriginal: log lines show it. It allocates.
func (e *Entry) Location(h *header.Map, info *stream.Info, keepOriginal bool) string {
	r := e.redirect
	if r == nil {
		return ""
	}
	if r.toTLS {
		return "https://" + h.Value(header.Authority) + h.Value(header.Path)
	}
	full := h.Value(header.Path)
	switch {
	case r.regexRewrite != nil:
		path := withoutQuery(full)
		rewritePath(h, r.regexRewrite.AppendReplaced(nil, path), full[len(path):], keepOriginal)
	case r.pathFormat != nil:
		rewritePath(h, r.pathFormat.Append(nil, info), full[len(withoutQuery(full)):], keepOriginal)
	case r.prefixRewrite != "":
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

// requestHost is the request's host for a location: its port goes if another is configured, or if
// it was the default port of a scheme that changes.
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
		pathFormat: c.rewriteFormat(p.Field("path_rewrite"), m.GetPathRewrite(), true),
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
