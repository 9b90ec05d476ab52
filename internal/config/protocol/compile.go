package protocol

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/internal/config"
)

//nolint:gochecknoglobals // immutable tables
var (
	http2Fields = config.Fields[*corev3.Http2ProtocolOptions]{
		Used: "hpack_table_size max_concurrent_streams initial_stream_window_size " +
			"initial_connection_window_size allow_connect max_outbound_frames " +
			"max_outbound_control_frames max_consecutive_inbound_frames_with_empty_payload " +
			"max_inbound_priority_frames_per_stream " +
			"max_inbound_window_update_frames_per_data_frame_sent " +
			"stream_error_on_invalid_http_messaging override_stream_error_on_invalid_http_message " +
			"connection_keepalive enable_huffman_encoding max_header_field_size_kb disallow_obs_text " +
			"stream_reset_burst stream_reset_rate",
		OffOnly: "allow_metadata",
		Refused: "custom_settings_parameters",
		NoOp: map[string]string{
			"use_oghttp2_codec": "chooses between two codecs of Envoy; ours has one",
			"max_metadata_size": "only read with allow_metadata, which is refused",
		},
	}
	keepaliveFields = config.Fields[*corev3.KeepaliveSettings]{
		Used: "interval timeout interval_jitter connection_idle_interval",
	}
)

// The ranges of fields, by http.proto's own constraints.
const (
	minWindow  = 1<<16 - 1
	maxInt31   = 1<<31 - 1
	maxFieldKB = 8192 // as max_request_headers_kb, which bounds it anyway
)

// CompileHTTP2 compiles the options of HTTP/2 connections; a nil message gives Envoy's defaults. What
// is wrong goes to errs, below p.
func CompileHTTP2(p *config.Path, m *corev3.Http2ProtocolOptions, errs *config.Errors) HTTP2 {
	http2Fields.Check(p, m, errs)
	o := DefaultHTTP2()
	o.AllowConnect = m.GetAllowConnect()
	o.RejectObsText = m.GetDisallowObsText().GetValue()
	o.HuffmanOff = !config.Value(m.GetEnableHuffmanEncoding(), true)
	// Deprecated, and overridden by its successor.
	o.StreamErrorOnInvalid = config.Value(m.GetOverrideStreamErrorOnInvalidHttpMessage(),
		m.GetStreamErrorOnInvalidHttpMessaging()) //nolint:staticcheck // Envoy still reads it
	for _, f := range []struct {
		name     string
		value    *wrapperspb.UInt32Value
		to       *uint32
		min, max uint32
	}{
		{"hpack_table_size", m.GetHpackTableSize(), &o.TableSize, 0, 1<<32 - 1},
		{"max_concurrent_streams", m.GetMaxConcurrentStreams(), &o.MaxConcurrentStreams, 1, maxInt31},
		{"initial_stream_window_size", m.GetInitialStreamWindowSize(), &o.StreamWindow, minWindow, maxInt31},
		{
			"initial_connection_window_size", m.GetInitialConnectionWindowSize(), &o.ConnectionWindow,
			minWindow, maxInt31,
		},
		{"max_outbound_frames", m.GetMaxOutboundFrames(), &o.MaxOutbound, 1, 1<<32 - 1},
		{"max_outbound_control_frames", m.GetMaxOutboundControlFrames(), &o.MaxOutboundControl, 1, 1<<32 - 1},
		{
			"max_consecutive_inbound_frames_with_empty_payload",
			m.GetMaxConsecutiveInboundFramesWithEmptyPayload(), &o.MaxEmptyFrames, 0, 1<<32 - 1,
		},
		{
			"max_inbound_priority_frames_per_stream", m.GetMaxInboundPriorityFramesPerStream(),
			&o.MaxPriorityPerStream, 0, 1<<32 - 1,
		},
		{
			"max_inbound_window_update_frames_per_data_frame_sent",
			m.GetMaxInboundWindowUpdateFramesPerDataFrameSent(), &o.MaxWindowUpdatePerData, 1, 1<<32 - 1,
		},
	} {
		if v, ok := bounded(p.Field(f.name), f.value, f.min, f.max, errs); ok {
			*f.to = v
		}
	}
	if v, ok := bounded(p.Field("max_header_field_size_kb"), m.GetMaxHeaderFieldSizeKb(), 1, maxFieldKB, errs); ok {
		o.MaxFieldSize = v << 10
	}
	o.ResetBurst = config.Value(m.GetStreamResetBurst(), o.ResetBurst)
	o.ResetRate = config.Value(m.GetStreamResetRate(), o.ResetRate)
	if k := m.GetConnectionKeepalive(); k != nil {
		o.Keepalive = compileKeepalive(p.Field("connection_keepalive"), k, errs)
	}
	return o
}

// bounded reads a number; false if it isn't set or is out of range.
func bounded(p *config.Path, v *wrapperspb.UInt32Value, low, high uint32, errs *config.Errors) (uint32, bool) {
	if v == nil {
		return 0, false
	}
	if n := v.GetValue(); n < low || n > high {
		errs.Addf(p, "must be from %d to %d", low, high)
		return 0, false
	}
	return v.GetValue(), true
}

func compileKeepalive(p *config.Path, m *corev3.KeepaliveSettings, errs *config.Errors) Keepalive {
	keepaliveFields.Check(p, m, errs)
	k := Keepalive{
		Interval: config.Duration(p.Field("interval"), m.GetInterval(), 0, errs),
		Timeout:  config.Duration(p.Field("timeout"), m.GetTimeout(), 0, errs),
		Idle:     config.Duration(p.Field("connection_idle_interval"), m.GetConnectionIdleInterval(), 0, errs),
		Jitter:   config.Percent(p.Field("interval_jitter"), m.GetIntervalJitter(), DefaultHTTP2().Keepalive.Jitter, errs),
	}
	if m.GetTimeout() == nil {
		errs.Add(p.Field("timeout"), "is required")
	}
	for _, d := range []struct {
		name string
		d    time.Duration
		set  bool
	}{
		{"interval", k.Interval, m.GetInterval() != nil},
		{"timeout", k.Timeout, m.GetTimeout() != nil},
		{"connection_idle_interval", k.Idle, m.GetConnectionIdleInterval() != nil},
	} {
		if d.set && d.d < time.Millisecond {
			errs.Add(p.Field(d.name), "must be at least 1ms")
		}
	}
	return k
}
