package route

import (
	"strings"

	"sidecar/api/header"
	"sidecar/api/stream"
)

const originalHost = "x-envoy-original-host"

// FinalizeRequest changes a request head into what goes upstream, in Envoy's order: headers are
// added and removed, of the weighted cluster first, then host and path are rewritten. keepOriginal
// leaves what was rewritten in x-envoy-original-host and x-envoy-original-path (the router has it
// off with suppress_envoy_headers). It may be called once for a request.
func (e *Entry) FinalizeRequest(h *header.Map, info *stream.Info, keepOriginal bool) {
	e.request[0].Apply(h, info)
	if e.clusterHost != "" {
		h.SetStatic(header.Authority, e.clusterHost)
	}
	for _, m := range e.request[1:] {
		m.Apply(h, info)
	}
	if e.Action != nil {
		e.finalizeHost(h, info, keepOriginal)
		e.finalizePath(h, info, keepOriginal)
	}
}

// FinalizeResponse changes a response head into what goes downstream.
func (e *Entry) FinalizeResponse(h *header.Map, info *stream.Info) {
	for _, m := range &e.response {
		m.Apply(h, info)
	}
}

func (e *Entry) finalizeHost(h *header.Map, info *stream.Info, keepOriginal bool) {
	a := e.Action
	switch {
	case a.hostLiteral != "":
		e.RewriteHost(h, a.hostLiteral, keepOriginal)
	case a.hostHeader != "":
		v, _ := h.Get(a.hostHeader)
		e.RewriteHost(h, v, keepOriginal)
	case a.hostRegex != nil:
		b := a.hostRegex.AppendReplaced(nil, withoutQuery(h.Value(header.Path)))
		e.RewriteHost(h, string(b), keepOriginal)
	case a.hostFormat != nil:
		e.RewriteHost(h, string(a.hostFormat.Append(nil, info)), keepOriginal)
	}
}

// RewriteHost gives the request another host, as auto_host_rewrite does with the name of the
// upstream host, and appends the old one to x-forwarded-host if the route says so. An empty host
// changes nothing.
func (e *Entry) RewriteHost(h *header.Map, host string, keepOriginal bool) {
	if host == "" {
		return
	}
	old := h.Value(header.Authority)
	if keepOriginal {
		h.Set(originalHost, old)
	}
	if e.Action.appendXFH && old != "" && lastElement(h.Value(header.XForwardedHost)) != old {
		h.AddID(header.XForwardedHost, old)
	}
	h.SetID(header.Authority, host)
}

// lastElement is the last element of a list that isn't empty.
func lastElement(list string) string {
	list = strings.TrimRight(list, ",")
	return list[strings.LastIndexByte(list, ',')+1:]
}

func (e *Entry) finalizePath(h *header.Map, info *stream.Info, keepOriginal bool) {
	a := e.Action
	full := h.Value(header.Path)
	switch {
	case a.prefixRewrite != "":
		setPath(h, a.prefixRewrite, full[e.matchedLen(full):], keepOriginal)
	case a.regexRewrite != nil:
		path := withoutQuery(full)
		rewritePath(h, a.regexRewrite.AppendReplaced(nil, path), full[len(path):], keepOriginal)
	case a.pathFormat != nil:
		rewritePath(h, a.pathFormat.Append(nil, info), full[len(withoutQuery(full)):], keepOriginal)
	}
}

// matchedLen is how much of a path prefix_rewrite replaces: what the route matched, which for
// expressions and CONNECT is all but the query. Filters may have shortened the path since.
func (e *Entry) matchedLen(full string) int {
	if e.matched == matchedAll {
		return len(withoutQuery(full))
	}
	return min(e.matched, len(full))
}

func setPath(h *header.Map, front, back string, keepOriginal bool) {
	if keepOriginal {
		// The old path stays in the map's arena, so it needs no copy.
		h.SetStatic(header.XEnvoyOriginalPath, h.Value(header.Path))
	}
	h.SetConcat(header.Path, front, back)
}

// rewritePath is setPath for a path that was made from the request; an empty one counts as none.
func rewritePath(h *header.Map, path []byte, query string, keepOriginal bool) {
	if len(path) > 0 {
		setPath(h, string(path), query, keepOriginal)
	}
}
