package health

import "sidecar/api/stats"

// Stats are "cluster.NAME.health_check." (ALL_HEALTH_CHECKER_STATS).
type Stats struct {
	Attempt        stats.Counter `stat:"attempt"`
	Success        stats.Counter `stat:"success"`
	Failure        stats.Counter `stat:"failure"`
	NetworkFailure stats.Counter `stat:"network_failure"`
	PassiveFailure stats.Counter `stat:"passive_failure"`
	VerifyCluster  stats.Counter `stat:"verify_cluster"`
	Healthy        stats.Gauge   `stat:"healthy"`
	Degraded       stats.Gauge   `stat:"degraded"`
}
