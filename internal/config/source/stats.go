package source

import "sidecar/api/stats"

// Stats are the statistics of one subscription, by Envoy's names. The consumer binds them below its
// own prefix: cluster_manager.cds., listener_manager.lds., http.PREFIX.rds.NAME., cluster.NAME.,
// extension_config_discovery.http_filter.NAME. and so on.
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
	// Version is the xxHash64 of the last accepted version_info.
	Version stats.Gauge `stat:"version"`
}
