package source

import "sidecar/api/stats"

// Stats are the statistics of one subscription, by Envoy's names. The consumer binds them below its
// own prefix: cluster_manager.cds, listener_manager.lds, http.PREFIX.rds.NAME, cluster.NAME,
// extension_config_discovery.http_filter.NAME and so on.
type Stats struct {
	// UpdateAttempt counts answers, failures, and the start of the subscription.
	UpdateAttempt stats.Counter `stat:"update_attempt"`
	// UpdateSuccess counts responses that were accepted.
	UpdateSuccess stats.Counter `stat:"update_success"`
	// UpdateFailure counts lost streams and unreadable files.
	UpdateFailure stats.Counter `stat:"update_failure"`
	// UpdateRejected counts responses of which at least one resource was rejected.
	UpdateRejected stats.Counter `stat:"update_rejected"`
	// InitFetchTimeout counts first fetches that did not come in time.
	InitFetchTimeout stats.Counter `stat:"init_fetch_timeout"`
	// UpdateTime is when the last response was accepted, in milliseconds since the epoch.
	UpdateTime stats.Gauge `stat:"update_time"`
	// UpdateDuration is the time from a response to the end of its application.
	UpdateDuration stats.Histogram `stat:"update_duration,ms"`
	// Version is a hash of the last accepted version_info.
	Version stats.Gauge `stat:"version"`
	// VersionText is the last accepted version_info.
	VersionText stats.Text `stat:"version_text"`
}

// ControlPlaneStats are those of one stream to a management server; they belong below the prefix
// control_plane.
type ControlPlaneStats struct {
	// ConnectedState is 1 while the stream is open.
	ConnectedState stats.Gauge `stat:"connected_state"`
	// PendingRequests waits for the rate limit.
	PendingRequests stats.Gauge `stat:"pending_requests"`
	// RateLimitEnforced counts requests that had to wait.
	RateLimitEnforced stats.Counter `stat:"rate_limit_enforced"`
	// Identifier is what the server calls itself.
	Identifier stats.Text `stat:"identifier"`
}

// ControlPlane binds the stream's statistics below a subscription's scope, if the source has a stream
// of its own; else it returns nil.
func (c *ConfigSource) ControlPlane(scope *stats.Scope) *ControlPlaneStats {
	if c == nil || c.Kind != KindGRPC {
		return nil
	}
	return stats.Bind[ControlPlaneStats](scope.Sub("control_plane"))
}
