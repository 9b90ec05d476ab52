package hcm

import (
	"sidecar/api/stats"
	"sidecar/api/stream"
)

// Stats are those of one stat_prefix, "http.PREFIX." (Envoy: ConnectionManagerNamedStats).
type Stats struct {
	CxTotal                  stats.Counter   `stat:"downstream_cx_total"`
	CxActive                 stats.Gauge     `stat:"downstream_cx_active"`
	CxDestroy                stats.Counter   `stat:"downstream_cx_destroy"`
	CxDestroyLocal           stats.Counter   `stat:"downstream_cx_destroy_local"`
	CxDestroyLocalActiveRq   stats.Counter   `stat:"downstream_cx_destroy_local_active_rq"`
	CxDestroyRemote          stats.Counter   `stat:"downstream_cx_destroy_remote"`
	CxDestroyRemoteActiveRq  stats.Counter   `stat:"downstream_cx_destroy_remote_active_rq"`
	CxDestroyActiveRq        stats.Counter   `stat:"downstream_cx_destroy_active_rq"`
	CxHTTP1Total             stats.Counter   `stat:"downstream_cx_http1_total"`
	CxHTTP1Active            stats.Gauge     `stat:"downstream_cx_http1_active"`
	CxHTTP2Total             stats.Counter   `stat:"downstream_cx_http2_total"`
	CxHTTP2Active            stats.Gauge     `stat:"downstream_cx_http2_active"`
	CxProtocolError          stats.Counter   `stat:"downstream_cx_protocol_error"`
	CxIdleTimeout            stats.Counter   `stat:"downstream_cx_idle_timeout"`
	CxDrainClose             stats.Counter   `stat:"downstream_cx_drain_close"`
	CxMaxDuration            stats.Counter   `stat:"downstream_cx_max_duration_reached"`
	CxMaxRequests            stats.Counter   `stat:"downstream_cx_max_requests_reached"`
	CxOverloadKeepalive      stats.Counter   `stat:"downstream_cx_overload_disable_keepalive"`
	CxDelayedCloseTimeout    stats.Counter   `stat:"downstream_cx_delayed_close_timeout"`
	CxRxBytes                stats.Counter   `stat:"downstream_cx_rx_bytes_total"`
	CxTxBytes                stats.Counter   `stat:"downstream_cx_tx_bytes_total"`
	CxSSLTotal               stats.Counter   `stat:"downstream_cx_ssl_total"`
	CxSSLActive              stats.Gauge     `stat:"downstream_cx_ssl_active"`
	CxUpgradesTotal          stats.Counter   `stat:"downstream_cx_upgrades_total"`
	CxUpgradesActive         stats.Gauge     `stat:"downstream_cx_upgrades_active"`
	CxLength                 stats.Histogram `stat:"downstream_cx_length_ms,ms"`
	RqTotal                  stats.Counter   `stat:"downstream_rq_total"`
	RqActive                 stats.Gauge     `stat:"downstream_rq_active"`
	RqHTTP1Total             stats.Counter   `stat:"downstream_rq_http1_total"`
	RqHTTP2Total             stats.Counter   `stat:"downstream_rq_http2_total"`
	RqHTTP3Total             stats.Counter   `stat:"downstream_rq_http3_total"`
	RqCodes                  stats.Codes     `stat:"downstream_rq"`
	RqTime                   stats.Histogram `stat:"downstream_rq_time,ms"`
	RqRxReset                stats.Counter   `stat:"downstream_rq_rx_reset"`
	RqTxReset                stats.Counter   `stat:"downstream_rq_tx_reset"`
	RqTooLarge               stats.Counter   `stat:"downstream_rq_too_large"`
	RqTimeout                stats.Counter   `stat:"downstream_rq_timeout"`
	RqHeaderTimeout          stats.Counter   `stat:"downstream_rq_header_timeout"`
	RqIdleTimeout            stats.Counter   `stat:"downstream_rq_idle_timeout"`
	RqMaxDuration            stats.Counter   `stat:"downstream_rq_max_duration_reached"`
	RqNonRelativePath        stats.Counter   `stat:"downstream_rq_non_relative_path"`
	RqFailedPathNorm         stats.Counter   `stat:"downstream_rq_failed_path_normalization"`
	RqRedirectedPathNorm     stats.Counter   `stat:"downstream_rq_redirected_with_normalized_path"`
	RqOverloadClose          stats.Counter   `stat:"downstream_rq_overload_close"`
	RqTooManyPremature       stats.Counter   `stat:"downstream_rq_too_many_premature_resets"`
	RqResponseBeforeComplete stats.Counter   `stat:"downstream_rq_response_before_rq_complete"`
	WsOnNonWs                stats.Counter   `stat:"downstream_rq_ws_on_non_ws_route"`
	RsTooLarge               stats.Counter   `stat:"rs_too_large"`

	// Router's, in the same prefix.
	RqTotalRouter    stats.Counter `stat:"rq_total"`
	NoRoute          stats.Counter `stat:"no_route"`
	NoCluster        stats.Counter `stat:"no_cluster"`
	RqDirectResponse stats.Counter `stat:"rq_direct_response"`
	RqRedirect       stats.Counter `stat:"rq_redirect"`
	RqResetAfterHead stats.Counter `stat:"rq_reset_after_downstream_response_started"`
}

// ListenerStats are those that Envoy keeps by listener and manager, "listener.ADDR.http.PREFIX.".
type ListenerStats struct {
	RqCodes stats.Codes `stat:"downstream_rq"`
}

func (c *Conn) countRequest(s *Stream) {
	st := c.stats
	st.RqTotal.Inc()
	st.RqActive.Inc()
	switch s.info.Protocol {
	case stream.HTTP2:
		st.RqHTTP2Total.Inc()
	case stream.HTTP3:
		st.RqHTTP3Total.Inc()
	default:
		st.RqHTTP1Total.Inc()
	}
	s.counted = true
}

// countResponse charges the status of the response as it is sent
// (ConnectionManagerImpl::chargeStats).
func (s *Stream) countResponse() {
	if s.info.HealthCheck {
		return
	}
	s.conn.stats.RqCodes.Inc(s.info.Status)
	s.conn.lstats.RqCodes.Inc(s.info.Status)
}

func (c *Conn) countFinished(t *stream.Turn, s *Stream) {
	if s.counted {
		c.stats.RqActive.Dec()
	}
	s.counted = false
	c.stats.RqTime.Record(uint64(s.info.Since(t.Now()).Milliseconds()))
}
