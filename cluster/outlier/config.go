package outlier

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/internal/config"
)

// Fields is the table of the message that Compile reads.
//
//nolint:gochecknoglobals // immutable table
var Fields = config.Fields[*clusterv3.OutlierDetection]{
	Used: `consecutive_5xx interval base_ejection_time max_ejection_percent enforcing_consecutive_5xx
		enforcing_success_rate success_rate_minimum_hosts success_rate_request_volume
		success_rate_stdev_factor consecutive_gateway_failure enforcing_consecutive_gateway_failure
		split_external_local_origin_errors consecutive_local_origin_failure
		enforcing_consecutive_local_origin_failure enforcing_local_origin_success_rate
		failure_percentage_threshold enforcing_failure_percentage
		enforcing_failure_percentage_local_origin failure_percentage_minimum_hosts
		failure_percentage_request_volume max_ejection_time max_ejection_time_jitter
		successful_active_health_check_uneject_host always_eject_one_host detect_degraded_hosts`,
	Refused: "monitors",
}

// setting is a number that the runtime may override.
type setting uint8

const (
	consecutive5xx setting = iota
	consecutiveGateway
	consecutiveLocal
	intervalMs
	baseEjectionMs
	maxEjectionMs
	jitterMs
	maxEjectionPercent
	enforce5xx
	enforceGateway
	enforceLocal
	enforceSuccessRate
	enforceLocalSuccessRate
	enforceFailures
	enforceLocalFailures
	successMinimumHosts
	successVolume
	successStdevFactor
	failureMinimumHosts
	failureVolume
	failureThreshold
	numSettings
)

// runtimeKeys and defaults are Envoy's.
//
//nolint:gochecknoglobals // immutable tables
var (
	runtimeKeys = [numSettings]string{
		consecutive5xx:          "outlier_detection.consecutive_5xx",
		consecutiveGateway:      "outlier_detection.consecutive_gateway_failure",
		consecutiveLocal:        "outlier_detection.consecutive_local_origin_failure",
		intervalMs:              "outlier_detection.interval_ms",
		baseEjectionMs:          "outlier_detection.base_ejection_time_ms",
		maxEjectionMs:           "outlier_detection.max_ejection_time_ms",
		jitterMs:                "outlier_detection.max_ejection_time_jitter_ms",
		maxEjectionPercent:      "outlier_detection.max_ejection_percent",
		enforce5xx:              "outlier_detection.enforcing_consecutive_5xx",
		enforceGateway:          "outlier_detection.enforcing_consecutive_gateway_failure",
		enforceLocal:            "outlier_detection.enforcing_consecutive_local_origin_failure",
		enforceSuccessRate:      "outlier_detection.enforcing_success_rate",
		enforceLocalSuccessRate: "outlier_detection.enforcing_local_origin_success_rate",
		enforceFailures:         "outlier_detection.enforcing_failure_percentage",
		enforceLocalFailures:    "outlier_detection.enforcing_failure_percentage_local_origin",
		successMinimumHosts:     "outlier_detection.success_rate_minimum_hosts",
		successVolume:           "outlier_detection.success_rate_request_volume",
		successStdevFactor:      "outlier_detection.success_rate_stdev_factor",
		failureMinimumHosts:     "outlier_detection.failure_percentage_minimum_hosts",
		failureVolume:           "outlier_detection.failure_percentage_request_volume",
		failureThreshold:        "outlier_detection.failure_percentage_threshold",
	}
	defaults = [numSettings]uint64{
		consecutive5xx: 5, consecutiveGateway: 5, consecutiveLocal: 5, maxEjectionPercent: 10,
		enforce5xx: 100, enforceLocal: 100, enforceSuccessRate: 100, enforceLocalSuccessRate: 100,
		successMinimumHosts: 5, successVolume: 100, successStdevFactor: 1900,
		failureMinimumHosts: 5, failureVolume: 50, failureThreshold: 85,
	}
)

// Envoy's defaults of the durations.
const (
	defaultInterval = 10 * time.Second
	defaultBase     = 30 * time.Second
	defaultMax      = 300 * time.Second
)

// Config is a compiled OutlierDetection. It never changes.
type Config struct {
	values     [numSettings]uint64
	splitLocal bool
	alwaysOne  bool
	uneject    bool
	degraded   bool
}

// UnejectsOnSuccess tells whether a successful active health check ends an ejection.
func (c *Config) UnejectsOnSuccess() bool { return c.uneject }

// DetectsDegraded tells whether responses are looked at for x-envoy-degraded.
func (c *Config) DetectsDegraded() bool { return c.degraded }

// Compile checks an OutlierDetection; nil gives nil.
func Compile(p *config.Path, m *clusterv3.OutlierDetection, errs *config.Errors) *Config {
	if m == nil {
		return nil
	}
	Fields.Check(p, m, errs)
	c := &Config{
		values: defaults, splitLocal: m.GetSplitExternalLocalOriginErrors(),
		alwaysOne: config.Value(m.GetAlwaysEjectOneHost(), false),
		uneject:   config.Value(m.GetSuccessfulActiveHealthCheckUnejectHost(), true),
		degraded:  config.Value(m.GetDetectDegradedHosts(), false),
	}
	for _, v := range []struct {
		to   setting
		from *wrapperspb.UInt32Value
	}{
		{consecutive5xx, m.GetConsecutive_5Xx()},
		{consecutiveGateway, m.GetConsecutiveGatewayFailure()},
		{consecutiveLocal, m.GetConsecutiveLocalOriginFailure()},
		{maxEjectionPercent, m.GetMaxEjectionPercent()},
		{enforce5xx, m.GetEnforcingConsecutive_5Xx()},
		{enforceGateway, m.GetEnforcingConsecutiveGatewayFailure()},
		{enforceLocal, m.GetEnforcingConsecutiveLocalOriginFailure()},
		{enforceSuccessRate, m.GetEnforcingSuccessRate()},
		{enforceLocalSuccessRate, m.GetEnforcingLocalOriginSuccessRate()},
		{enforceFailures, m.GetEnforcingFailurePercentage()},
		{enforceLocalFailures, m.GetEnforcingFailurePercentageLocalOrigin()},
		{successMinimumHosts, m.GetSuccessRateMinimumHosts()},
		{successVolume, m.GetSuccessRateRequestVolume()},
		{successStdevFactor, m.GetSuccessRateStdevFactor()},
		{failureMinimumHosts, m.GetFailurePercentageMinimumHosts()},
		{failureVolume, m.GetFailurePercentageRequestVolume()},
		{failureThreshold, m.GetFailurePercentageThreshold()},
	} {
		if v.from != nil {
			c.values[v.to] = uint64(v.from.GetValue())
		}
	}
	c.times(p, m, errs)
	return c
}

func (c *Config) times(p *config.Path, m *clusterv3.OutlierDetection, errs *config.Errors) {
	interval := config.Duration(p.Field("interval"), m.GetInterval(), defaultInterval, errs)
	base := config.Duration(p.Field("base_ejection_time"), m.GetBaseEjectionTime(), defaultBase, errs)
	limit := config.Duration(p.Field("max_ejection_time"), m.GetMaxEjectionTime(), max(base, defaultMax), errs)
	jitter := config.Duration(p.Field("max_ejection_time_jitter"), m.GetMaxEjectionTimeJitter(), 0, errs)
	if limit < base {
		errs.Add(p.Field("max_ejection_time"), "cannot be smaller than base_ejection_time")
	}
	for _, d := range []struct {
		to setting
		d  time.Duration
	}{{intervalMs, interval}, {baseEjectionMs, base}, {maxEjectionMs, limit}, {jitterMs, jitter}} {
		c.values[d.to] = uint64(d.d.Milliseconds())
	}
}
