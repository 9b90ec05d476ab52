package route

import (
	"strings"

	"sidecar/api/header"
	"sidecar/api/stream"
)

// Table is a compiled RouteConfiguration. It never changes.
type Table struct {
	// Metadata is filter_metadata in the form of stream.Info. Read only.
	Metadata map[string]map[string]any

	name                 string
	domains              domains
	ignorePathParameters bool
	internalOnlyHeaders  []string
}

// Name returns the name of the route configuration.
func (t *Table) Name() string { return t.name }

// InternalOnlyHeaders are the lower-case names of headers that only internal clients may send.
func (t *Table) InternalOnlyHeaders() []string { return t.internalOnlyHeaders }

// Load returns the table itself, so that a static one is used like a [Dynamic].
func (t *Table) Load() *Table { return t }

// Match returns the route of a request, nil if there is none. random decides fractions and weights;
// a stream keeps to one. Without x-forwarded-proto no route is found, as in Envoy.
func (t *Table) Match(h *header.Map, info *stream.Info, random uint64) *Entry {
	vh := t.domains.find(h)
	if vh == nil {
		return nil
	}
	scheme := h.Value(header.XForwardedProto)
	if scheme == "" {
		return nil
	}
	if scheme != "https" && (vh.requireTLS == tlsAll ||
		vh.requireTLS == tlsExternalOnly && h.Value(header.XEnvoyInternal) != "true") {
		return vh.tlsRedirect
	}
	q := request{h: h, info: info, random: random}
	q.full, q.hasPath = h.GetID(header.Path)
	q.path = withoutQuery(q.full)
	if t.ignorePathParameters {
		q.path, _, _ = strings.Cut(q.path, ";")
	}
	q.connect = h.Value(header.Method) == "CONNECT" ||
		strings.EqualFold(h.Value(header.Upgrade), "connect-udp")
	r := vh.paths.find(&q)
	switch {
	case r == nil:
		return nil
	case r.split != nil:
		return r.split.pick(h, random)
	}
	return r.entry
}

// withoutQuery cuts query and fragment off a path.
func withoutQuery(path string) string {
	if i := strings.IndexByte(path, '?'); i >= 0 {
		path = path[:i]
	}
	if i := strings.IndexByte(path, '#'); i >= 0 {
		path = path[:i]
	}
	return path
}

// host is a virtual host with its routes.
type host struct {
	paths       paths
	requireTLS  tlsRequirement
	tlsRedirect *Entry
}

type tlsRequirement uint8

const (
	tlsNone tlsRequirement = iota
	tlsExternalOnly
	tlsAll
)
