package load

import "sidecar/api/stats"

// Traffic is the family of a cluster's statistics that traffic moves. Names are Envoy's
// (ALL_CLUSTER_TRAFFIC_STATS, ALL_CLUSTER_LB_STATS).
type Traffic struct {
	CxTotal               stats.Counter `stat:"upstream_cx_total"`
	CxHTTP1Total          stats.Counter `stat:"upstream_cx_http1_total"`
	CxHTTP2Total          stats.Counter `stat:"upstream_cx_http2_total"`
	CxConnectFail         stats.Counter `stat:"upstream_cx_connect_fail"`
	CxConnectTimeout      stats.Counter `stat:"upstream_cx_connect_timeout"`
	CxAttemptsExceeded    stats.Counter `stat:"upstream_cx_connect_attempts_exceeded"`
	CxOverflow            stats.Counter `stat:"upstream_cx_overflow"`
	CxPoolOverflow        stats.Counter `stat:"upstream_cx_pool_overflow"`
	CxNoneHealthy         stats.Counter `stat:"upstream_cx_none_healthy"`
	CxDestroy             stats.Counter `stat:"upstream_cx_destroy"`
	CxDestroyLocal        stats.Counter `stat:"upstream_cx_destroy_local"`
	CxDestroyRemote       stats.Counter `stat:"upstream_cx_destroy_remote"`
	CxDestroyActive       stats.Counter `stat:"upstream_cx_destroy_with_active_rq"`
	CxDestroyLocalActive  stats.Counter `stat:"upstream_cx_destroy_local_with_active_rq"`
	CxDestroyRemoteActive stats.Counter `stat:"upstream_cx_destroy_remote_with_active_rq"`
	CxCloseNotify         stats.Counter `stat:"upstream_cx_close_notify"`
	CxIdleTimeout         stats.Counter `stat:"upstream_cx_idle_timeout"`
	CxMaxRequests         stats.Counter `stat:"upstream_cx_max_requests"`
	CxMaxDuration         stats.Counter `stat:"upstream_cx_max_duration_reached"`
	CxProtocolError       stats.Counter `stat:"upstream_cx_protocol_error"`
	CxRxBytes             stats.Counter `stat:"upstream_cx_rx_bytes_total"`
	CxTxBytes             stats.Counter `stat:"upstream_cx_tx_bytes_total"`
	BindErrors            stats.Counter `stat:"bind_errors"`

	CxActive stats.Gauge `stat:"upstream_cx_active"`

	CxConnectMs stats.Histogram `stat:"upstream_cx_connect_ms,ms"`
	CxLengthMs  stats.Histogram `stat:"upstream_cx_length_ms,ms"`
	RqPerCx     stats.Histogram `stat:"upstream_rq_per_cx"`

	RqTotal               stats.Counter `stat:"upstream_rq_total"`
	RqCancelled           stats.Counter `stat:"upstream_rq_cancelled"`
	RqMaintenance         stats.Counter `stat:"upstream_rq_maintenance_mode"`
	RqMaxDuration         stats.Counter `stat:"upstream_rq_max_duration_reached"`
	RqPendingTotal        stats.Counter `stat:"upstream_rq_pending_total"`
	RqPendingOverflow     stats.Counter `stat:"upstream_rq_pending_overflow"`
	RqPendingFailureEject stats.Counter `stat:"upstream_rq_pending_failure_eject"`
	RqActiveOverflow      stats.Counter `stat:"upstream_rq_active_overflow"`
	RqTimeout             stats.Counter `stat:"upstream_rq_timeout"`
	RqPerTryTimeout       stats.Counter `stat:"upstream_rq_per_try_timeout"`
	RqPerTryIdleTimeout   stats.Counter `stat:"upstream_rq_per_try_idle_timeout"`
	RqRxReset             stats.Counter `stat:"upstream_rq_rx_reset"`
	RqTxReset             stats.Counter `stat:"upstream_rq_tx_reset"`
	RqRetry               stats.Counter `stat:"upstream_rq_retry"`
	RqRetrySuccess        stats.Counter `stat:"upstream_rq_retry_success"`
	RqRetryOverflow       stats.Counter `stat:"upstream_rq_retry_overflow"`
	RqRetryLimit          stats.Counter `stat:"upstream_rq_retry_limit_exceeded"`
	RqRetryBackoffExp     stats.Counter `stat:"upstream_rq_retry_backoff_exponential"`
	RqRetryBackoffRate    stats.Counter `stat:"upstream_rq_retry_backoff_ratelimited"`
	RetryOrShadowAbandon  stats.Counter `stat:"retry_or_shadow_abandoned"`
	RedirectSucceeded     stats.Counter `stat:"upstream_internal_redirect_succeeded_total"`
	RedirectFailed        stats.Counter `stat:"upstream_internal_redirect_failed_total"`

	FlowPaused  stats.Counter `stat:"upstream_flow_control_paused_reading_total"`
	FlowResumed stats.Counter `stat:"upstream_flow_control_resumed_reading_total"`
	FlowBacked  stats.Counter `stat:"upstream_flow_control_backed_up_total"`
	FlowDrained stats.Counter `stat:"upstream_flow_control_drained_total"`

	RqActive        stats.Gauge `stat:"upstream_rq_active"`
	RqPendingActive stats.Gauge `stat:"upstream_rq_pending_active"`

	LbHealthyPanic stats.Counter `stat:"lb_healthy_panic"`

	Rq         stats.Codes     `stat:"upstream_rq"`
	RqExternal stats.Codes     `stat:"external.upstream_rq"`
	RqInternal stats.Codes     `stat:"internal.upstream_rq"`
	RqCanary   stats.Codes     `stat:"canary.upstream_rq"`
	RqRetried  stats.Codes     `stat:"retry.upstream_rq"`
	Time       stats.Histogram `stat:"upstream_rq_time,ms"`
	TimeExt    stats.Histogram `stat:"external.upstream_rq_time,ms"`
	TimeInt    stats.Histogram `stat:"internal.upstream_rq_time,ms"`
	TimeCanary stats.Histogram `stat:"canary.upstream_rq_time,ms"`

	Default Open `stat:"circuit_breakers.default"`
	High    Open `stat:"circuit_breakers.high"`
}

// Open are the gauges that tell which limits of a priority are reached.
type Open struct {
	Cx      stats.Gauge `stat:"cx_open"`
	CxPool  stats.Gauge `stat:"cx_pool_open"`
	Pending stats.Gauge `stat:"rq_pending_open"`
	Rq      stats.Gauge `stat:"rq_open"`
	Retry   stats.Gauge `stat:"rq_retry_open"`
}

// Remaining are the gauges of what a limit leaves; kept for priorities with track_remaining.
type Remaining struct {
	Cx      stats.Gauge `stat:"remaining_cx"`
	Pending stats.Gauge `stat:"remaining_pending"`
	Rq      stats.Gauge `stat:"remaining_rq"`
	Retries stats.Gauge `stat:"remaining_retries"`
	CxPools stats.Gauge `stat:"remaining_cx_pools"`
}

// Sizes is the family of clusters with track_cluster_stats.request_response_sizes.
type Sizes struct {
	RequestHead    stats.Histogram `stat:"upstream_rq_headers_size"`
	RequestFields  stats.Histogram `stat:"upstream_rq_headers_count"`
	RequestBody    stats.Histogram `stat:"upstream_rq_body_size"`
	ResponseHead   stats.Histogram `stat:"upstream_rs_headers_size"`
	ResponseFields stats.Histogram `stat:"upstream_rs_headers_count"`
	ResponseBody   stats.Histogram `stat:"upstream_rs_body_size"`
}

// Membership is the family that every cluster has from its start: endpoints and their updates.
type Membership struct {
	Total         stats.Gauge   `stat:"membership_total"`
	Healthy       stats.Gauge   `stat:"membership_healthy"`
	Degraded      stats.Gauge   `stat:"membership_degraded"`
	Excluded      stats.Gauge   `stat:"membership_excluded"`
	MaxHostWeight stats.Gauge   `stat:"max_host_weight"`
	WarmingState  stats.Gauge   `stat:"warming_state"`
	Change        stats.Counter `stat:"membership_change"`
	// DefaultMatch counts hosts that none of transport_socket_matches takes.
	DefaultMatch stats.Counter `stat:"default.total_match_count"`
}

// Update is the family about endpoints that come from elsewhere: DNS, EDS and the connections
// themselves (ORIGINAL_DST). What a subscription counts (update_attempt and the like) is in
// source.Stats, bound beside it.
type Update struct {
	Empty           stats.Counter `stat:"update_empty"`
	NoRebuild       stats.Counter `stat:"update_no_rebuild"`
	AssignmentStale stats.Counter `stat:"assignment_stale"`
	TimeoutReceived stats.Counter `stat:"assignment_timeout_received"`
	UseCached       stats.Counter `stat:"assignment_use_cached"`
	DstHostInvalid  stats.Counter `stat:"original_dst_host_invalid"`
}
