package route

import (
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster/lb"
	"sidecar/internal/format"
	"sidecar/internal/mutate"
)

// Kind is what a route does with a request.
type Kind uint8

// The kinds.
const (
	// Forward sends it to a cluster; Entry.Action says how.
	Forward Kind = iota
	// Redirect and DirectResponse answer with Entry.Status, Entry.Location and Entry.ResponseBody.
	Redirect
	DirectResponse
	// NonForwarding leaves the request to the filters; the router has nowhere to send it.
	NonForwarding
)

// Unset is a duration that the configuration doesn't give.
const Unset time.Duration = -1

// NoLimit is the buffer limit where the configuration sets none.
const NoLimit = ^uint64(0)

// Entry is the route of a request, with the cluster picked where there are several. It is shared by
// all streams and never changes: the exported fields are for reading only.
type Entry struct {
	Kind        Kind
	VirtualHost *VirtualHost
	// Action is nil unless Kind is Forward.
	Action *Action
	// Status is that of a redirect or direct response, ContentType that of its body; "" is the
	// default of local replies.
	Status      int
	ContentType string
	// StatPrefix, if not empty, names the route's own stats: vhost.NAME.route.STAT_PREFIX.
	StatPrefix string
	// Operation is what decorator says, unless it is not to be told to others; for tracing.
	Operation string
	// Metadata is filter_metadata in the form of stream.Info.
	Metadata map[string]map[string]any
	// BufferLimit is how many bytes of body are kept for retries and mirrors; NoLimit if not set.
	BufferLimit uint64
	// Criteria choose the subset of a cluster's hosts (metadata_match); nil for none.
	Criteria *lb.Criteria

	name          string
	cluster       string
	clusterHeader string
	matched       int // length of what the route matched of a path; matchedAll: all but the query
	redirect      *redirection
	body          string
	bodyFormat    *format.Substitution
	filters       []filterConfig
	request       [levels]*mutate.Headers
	response      [levels]*mutate.Headers
	clusterHost   string // host_rewrite_literal of the weighted cluster
}

const matchedAll = -1

// levels of header mutations, in the order in which they are applied: the weighted cluster's, then
// route, virtual host and table, or the other way round.
const levels = 4

// Name returns the route's name.
func (e *Entry) Name() string { return e.name }

// ClusterName returns the cluster as configured; "" where a header of the request names it, and
// where nothing is forwarded.
func (e *Entry) ClusterName() string { return e.cluster }

// Cluster returns the cluster for a request; "" if its cluster_header is missing. Envoy looks when
// the route is found, and so should the caller.
func (e *Entry) Cluster(h *header.Map) string {
	if e.clusterHeader == "" {
		return e.cluster
	}
	v, _ := h.Get(e.clusterHeader)
	return v
}

// ResponseBody returns the body of a direct response. A body_format is filled in from info, in
// whose LocalReplyBody the plain body is left.
func (e *Entry) ResponseBody(info *stream.Info) string {
	if e.bodyFormat == nil {
		return e.body
	}
	info.LocalReplyBody = e.body
	return string(e.bodyFormat.Append(nil, info))
}

// FilterConfig returns what typed_per_filter_config has for a filter, most specific first: weighted
// cluster, route, virtual host, table. nil if nothing.
func (e *Entry) FilterConfig(name string) any {
	for i := range e.filters {
		if e.filters[i].name == name && e.filters[i].compiled != nil {
			return e.filters[i].compiled
		}
	}
	return nil
}

// FilterDisabled tells whether the route switches a filter off or, where it is off by default, on.
func (e *Entry) FilterDisabled(name string) (disabled, said bool) {
	for i := range e.filters {
		if e.filters[i].name == name {
			return e.filters[i].disabled, true
		}
	}
	return false, false
}

// VirtualHost is what a virtual host says to all of its routes. Read only. It doesn't hold the
// routes: a stream that keeps its entry keeps no table alive.
type VirtualHost struct {
	Name     string
	Metadata map[string]map[string]any
	// IncludeAttemptCount asks for x-envoy-attempt-count in requests, ...InResponse in responses.
	IncludeAttemptCount           bool
	IncludeAttemptCountInResponse bool
	// IncludeIsTimeoutRetry asks for x-envoy-is-timeout-retry in retries.
	IncludeIsTimeoutRetry bool

	virtualClusters []virtualCluster
}

// OtherVirtualCluster is what VirtualCluster returns for requests that no virtual cluster takes.
const OtherVirtualCluster = "other"

// VirtualCluster returns the name of the virtual cluster that counts the request: the first whose
// headers match; "" if the virtual host has none.
func (v *VirtualHost) VirtualCluster(h *header.Map) string {
	for i := range v.virtualClusters {
		if v.virtualClusters[i].headers.Match(h) {
			return v.virtualClusters[i].name
		}
	}
	if len(v.virtualClusters) > 0 {
		return OtherVirtualCluster
	}
	return ""
}
