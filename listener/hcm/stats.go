package hcm

import (
	"time"

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
	RqCompleted              stats.Counter   `stat:"downstream_rq_completed"`
	Rq1xx                    stats.Counter   `stat:"downstream_rq_1xx"`
	Rq2xx                    stats.Counter   `stat:"downstream_rq_2xx"`
	Rq3xx                    stats.Counter   `stat:"downstream_rq_3xx"`
	Rq4xx                    stats.Counter   `stat:"downstream_rq_4xx"`
	Rq5xx                    stats.Counter   `stat:"downstream_rq_5xx"`
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
}

// bugStats are Envoy's for what must not happen.
type bugStats struct {
	EnvoyBug stats.Counter `stat:"envoy_bug_failures"`
}

// ListenerStats are those that Envoy keeps by listener and manager, "listener.ADDR.http.PREFIX.".
type ListenerStats struct {
	RqCompleted stats.Counter `stat:"downstream_rq_completed"`
	Rq1xx       stats.Counter `stat:"downstream_rq_1xx"`
	Rq2xx       stats.Counter `stat:"downstream_rq_2xx"`
	Rq3xx       stats.Counter `stat:"downstream_rq_3xx"`
	Rq4xx       stats.Counter `stat:"downstream_rq_4xx"`
	Rq5xx       stats.Counter `stat:"downstream_rq_5xx"`
}

// countRequest counts a request as its first byte is read.
func (c *Conn) countRequest() {
	st := c.stats
	st.RqTotal.Inc()
	st.RqActive.Inc()
	if c.multiplexed() {
		st.RqHTTP2Total.Inc()
	} else {
		st.RqHTTP1Total.Inc()
	}
}

// OnProtocol implements h2.ProtocolHandler: the client speaks, though it may have no stream yet.
func (c *Conn) OnProtocol(p stream.Protocol) { c.countConnection(p) }

// countConnection counts the connection by its version, once; an HTTP/1 codec knows its minor version
// only when it has the head. It is called by the reader.
func (c *Conn) countConnection(p stream.Protocol) {
	if c.counted.Load() != 0 {
		return
	}
	if p < stream.HTTP2 {
		c.counted.Store(uint32(stream.HTTP11))
		c.stats.CxHTTP1Total.Inc()
		c.stats.CxHTTP1Active.Inc()
		return
	}
	c.counted.Store(uint32(p))
	c.stats.CxHTTP2Total.Inc()
	c.stats.CxHTTP2Active.Inc()
}

// countResponse charges the status of the response as it is sent
// (ConnectionManagerImpl::chargeStats).
func (s *Stream) countResponse() {
	if !s.info.HealthCheck {
		s.countStatus(s.info.Status)
	}
}

func (s *Stream) countStatus(status int) {
	st, ls := s.conn.stats, s.conn.lstats
	st.RqCompleted.Inc()
	ls.RqCompleted.Inc()
	switch status / 100 {
	case 1:
		st.Rq1xx.Inc()
		ls.Rq1xx.Inc()
	case 2:
		st.Rq2xx.Inc()
		ls.Rq2xx.Inc()
	case 3:
		st.Rq3xx.Inc()
		ls.Rq3xx.Inc()
	case 4:
		st.Rq4xx.Inc()
		ls.Rq4xx.Inc()
	case 5:
		st.Rq5xx.Inc()
		ls.Rq5xx.Inc()
	}
}

func (c *Conn) countFinished(t *stream.Turn, s *Stream) {
	c.stats.RqActive.Dec()
	if s.upgraded {
		c.stats.CxUpgradesActive.Dec()
	}
	if !s.requestWhole || !s.answered {
		// Envoy counts here whoever reset the stream, and resets those whose request is not whole.
		c.stats.RqRxReset.Inc()
	}
	c.stats.RqTime.Record(uint64(s.info.Since(t.Now()).Milliseconds()))
}

// countGone counts the end of the connection.
func (c *Conn) countGone() {
	st := c.stats
	st.CxActive.Dec()
	st.CxDestroy.Inc()
	active := c.endedActive.Load()
	if c.codec.Local() {
		st.CxDestroyLocal.Inc()
		if active {
			st.CxDestroyLocalActiveRq.Inc()
		}
	} else {
		st.CxDestroyRemote.Inc()
		if active {
			st.CxDestroyRemoteActiveRq.Inc()
		}
	}
	if active {
		st.CxDestroyActiveRq.Inc()
	}
	switch stream.Protocol(c.counted.Load()) {
	case stream.ProtocolNone:
	case stream.HTTP10, stream.HTTP11:
		st.CxHTTP1Active.Dec()
	case stream.HTTP2, stream.HTTP3:
		st.CxHTTP2Active.Dec()
	}
	if c.info.TLS != nil {
		st.CxSSLActive.Dec()
	}
	st.CxLength.Record(uint64(time.Since(c.info.Start).Milliseconds()))
}
