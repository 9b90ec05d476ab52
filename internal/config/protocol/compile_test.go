package protocol_test

import (
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"sidecar/internal/config"
	"sidecar/internal/config/protocol"
)

func compile(t *testing.T, text string) (protocol.HTTP2, error) {
	t.Helper()
	j, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var m *corev3.Http2ProtocolOptions
	if text != "" {
		m = &corev3.Http2ProtocolOptions{}
		if err := protojson.Unmarshal(j, m); err != nil {
			t.Fatal(err)
		}
	}
	var errs config.Errors
	o := protocol.CompileHTTP2(config.Field("h2"), m, &errs)
	return o, errs.Err()
}

func TestCompileHTTP2(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       func(o *protocol.HTTP2)
	}{
		{"nothing", "", func(*protocol.HTTP2) {}},
		{"an empty message", "{}", func(*protocol.HTTP2) {}},
		{
			"limits", `{hpack_table_size: 0, max_concurrent_streams: 5, initial_stream_window_size: 65535,
initial_connection_window_size: 65536, max_outbound_frames: 7, max_outbound_control_frames: 8,
max_consecutive_inbound_frames_with_empty_payload: 0, max_inbound_priority_frames_per_stream: 9,
max_inbound_window_update_frames_per_data_frame_sent: 1, max_header_field_size_kb: 2,
stream_reset_burst: 3, stream_reset_rate: 4, max_metadata_size: 5, use_oghttp2_codec: true}`,
			func(o *protocol.HTTP2) {
				o.TableSize, o.MaxConcurrentStreams, o.StreamWindow, o.ConnectionWindow = 0, 5, 65535, 65536
				o.MaxOutbound, o.MaxOutboundControl, o.MaxEmptyFrames, o.MaxPriorityPerStream = 7, 8, 0, 9
				o.MaxWindowUpdatePerData, o.MaxFieldSize, o.ResetBurst, o.ResetRate = 1, 2048, 3, 4
			},
		},
		{
			"switches", `{allow_connect: true, disallow_obs_text: true, enable_huffman_encoding: false,
stream_error_on_invalid_http_messaging: true}`,
			func(o *protocol.HTTP2) {
				o.AllowConnect, o.RejectObsText, o.HuffmanOff, o.StreamErrorOnInvalid = true, true, true, true
			},
		},
		{
			"the override of stream errors wins",
			"{stream_error_on_invalid_http_messaging: true, override_stream_error_on_invalid_http_message: false}",
			func(*protocol.HTTP2) {},
		},
		{
			"keepalive", `connection_keepalive: {interval: 30s, timeout: 5s, interval_jitter: {value: 0}, connection_idle_interval: 7s}`,
			func(o *protocol.HTTP2) {
				o.Keepalive = protocol.Keepalive{
					Idle:     7 * time.Second,
					Interval: 30 * time.Second, Timeout: 5 * time.Second,
				}
			},
		},
		{
			"keepalive with the default jitter", "connection_keepalive: {timeout: 5s}",
			func(o *protocol.HTTP2) { o.Keepalive.Timeout = 5 * time.Second },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := compile(t, tt.text)
			if err != nil {
				t.Fatal(err)
			}
			want := protocol.DefaultHTTP2()
			tt.want(&want)
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestCompileHTTP2_Errors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"streams", "max_concurrent_streams: 0", "h2.max_concurrent_streams: must be from 1 to 2147483647"},
		{"a small window", "initial_stream_window_size: 65534", "h2.initial_stream_window_size: must be from 65535"},
		{"frames", "max_outbound_frames: 0", "h2.max_outbound_frames: must be from 1"},
		{"METADATA", "allow_metadata: true", "h2.allow_metadata: is not supported"},
		{
			"settings", "custom_settings_parameters: [{identifier: 10, value: 1}]",
			"h2.custom_settings_parameters: is not supported",
		},
		{"no timeout", "connection_keepalive: {interval: 1s}", "h2.connection_keepalive.timeout: is required"},
		{
			"a short interval", "connection_keepalive: {interval: 0s, timeout: 1s}",
			"h2.connection_keepalive.interval: must be at least 1ms",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := compile(t, tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}
