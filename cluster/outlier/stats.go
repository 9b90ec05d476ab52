package outlier

import "sidecar/api/stats"

// Stats are "cluster.NAME.outlier_detection." (ALL_OUTLIER_DETECTION_STATS).
type Stats struct {
	Active                stats.Gauge   `stat:"ejections_active"`
	Consecutive5xx        stats.Counter `stat:"ejections_consecutive_5xx"`
	Detected5xx           stats.Counter `stat:"ejections_detected_consecutive_5xx"`
	DetectedGateway       stats.Counter `stat:"ejections_detected_consecutive_gateway_failure"`
	DetectedLocal         stats.Counter `stat:"ejections_detected_consecutive_local_origin_failure"`
	DetectedDegradation   stats.Counter `stat:"ejections_detected_degradation"`
	DetectedFailures      stats.Counter `stat:"ejections_detected_failure_percentage"`
	DetectedLocalFailures stats.Counter `stat:"ejections_detected_local_origin_failure_percentage"`
	DetectedLocalSuccess  stats.Counter `stat:"ejections_detected_local_origin_success_rate"`
	DetectedSuccess       stats.Counter `stat:"ejections_detected_success_rate"`
	Enforced5xx           stats.Counter `stat:"ejections_enforced_consecutive_5xx"`
	EnforcedGateway       stats.Counter `stat:"ejections_enforced_consecutive_gateway_failure"`
	EnforcedLocal         stats.Counter `stat:"ejections_enforced_consecutive_local_origin_failure"`
	EnforcedFailures      stats.Counter `stat:"ejections_enforced_failure_percentage"`
	EnforcedLocalFailures stats.Counter `stat:"ejections_enforced_local_origin_failure_percentage"`
	EnforcedLocalSuccess  stats.Counter `stat:"ejections_enforced_local_origin_success_rate"`
	EnforcedSuccess       stats.Counter `stat:"ejections_enforced_success_rate"`
	EnforcedTotal         stats.Counter `stat:"ejections_enforced_total"`
	Overflow              stats.Counter `stat:"ejections_overflow"`
	SuccessRate           stats.Counter `stat:"ejections_success_rate"`
	Total                 stats.Counter `stat:"ejections_total"`
}

// cause is why a host is found to be an outlier.
type cause uint8

const (
	by5xx cause = iota
	byGateway
	byLocal
	bySuccessRate
	byLocalSuccessRate
	byFailures
	byLocalFailures
)

// enforcing is the share of the causes' detections that become ejections.
//
//nolint:gochecknoglobals // immutable table
var enforcing = [...]setting{
	by5xx: enforce5xx, byGateway: enforceGateway, byLocal: enforceLocal,
	bySuccessRate: enforceSuccessRate, byLocalSuccessRate: enforceLocalSuccessRate,
	byFailures: enforceFailures, byLocalFailures: enforceLocalFailures,
}

func (s *Stats) detected(c cause) *stats.Counter {
	return [...]*stats.Counter{
		by5xx: &s.Detected5xx, byGateway: &s.DetectedGateway, byLocal: &s.DetectedLocal,
		bySuccessRate: &s.DetectedSuccess, byLocalSuccessRate: &s.DetectedLocalSuccess,
		byFailures: &s.DetectedFailures, byLocalFailures: &s.DetectedLocalFailures,
	}[c]
}

func (s *Stats) enforced(c cause) *stats.Counter {
	return [...]*stats.Counter{
		by5xx: &s.Enforced5xx, byGateway: &s.EnforcedGateway, byLocal: &s.EnforcedLocal,
		bySuccessRate: &s.EnforcedSuccess, byLocalSuccessRate: &s.EnforcedLocalSuccess,
		byFailures: &s.EnforcedFailures, byLocalFailures: &s.EnforcedLocalFailures,
	}[c]
}
