package cluster

import (
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/stream"
	"sidecar/internal/config"
)

// TestCompile_HTTP2 reads the options from either place.
func TestCompile_HTTP2(t *testing.T) {
	t.Parallel()
	options := &corev3.Http2ProtocolOptions{
		MaxConcurrentStreams: wrapperspb.UInt32(7),
		ConnectionKeepalive: &corev3.KeepaliveSettings{
			Interval: durationpb.New(30 * time.Second), Timeout: durationpb.New(5 * time.Second),
		},
	}
	extension := func(m *httpv3.HttpProtocolOptions) *clusterv3.Cluster {
		a, err := anypb.New(m)
		if err != nil {
			t.Fatal(err)
		}
		return &clusterv3.Cluster{
			Name: "c", TypedExtensionProtocolOptions: map[string]*anypb.Any{httpOptionsName: a},
		}
	}
	for _, tt := range []struct {
		name            string
		msg             *clusterv3.Cluster
		for1, for2, set bool
	}{
		{"none", &clusterv3.Cluster{Name: "c"}, false, false, false},
		{
			"old field", &clusterv3.Cluster{Name: "c", Http2ProtocolOptions: options}, //nolint:staticcheck // still in use
			true, true, true,
		},
		{"explicit", extension(&httpv3.HttpProtocolOptions{
			UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
				ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
					ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
						Http2ProtocolOptions: options,
					},
				},
			},
		}), true, true, true},
		{"downstream", extension(&httpv3.HttpProtocolOptions{
			UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
				UseDownstreamProtocolConfig: &httpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
					Http2ProtocolOptions: options,
				},
			},
		}), false, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conf, err := Compile(tt.msg, Env{})
			if err != nil {
				t.Fatal(err)
			}
			h := &conf.HTTP
			if h.multiplexed(stream.HTTP11) != tt.for1 || h.multiplexed(stream.HTTP2) != tt.for2 {
				t.Errorf("got %+v", h)
			}
			if tt.set && (h.Protocol.Keepalive.Interval != 30*time.Second || h.Protocol.MaxConcurrentStreams != 7) {
				t.Errorf("got %+v", h.Protocol)
			}
		})
	}
}

func TestCompileBind(t *testing.T) {
	t.Parallel()
	var errs config.Errors
	b := CompileBind(config.Field("cluster_manager.upstream_bind_config"), &corev3.BindConfig{
		SourceAddress: &corev3.SocketAddress{Address: "127.0.0.2"},
	}, &errs)
	if err := errs.Err(); err != nil {
		t.Fatal(err)
	}
	conf, err := Compile(&clusterv3.Cluster{Name: "a"}, Env{Bind: b})
	if err != nil {
		t.Fatal(err)
	}
	if got := conf.dial.Sources; len(got) != 1 || got[0].Addr().String() != "127.0.0.2" {
		t.Errorf("got %v", got)
	}
	CompileBind(config.Field("b"), &corev3.BindConfig{SourceAddress: &corev3.SocketAddress{Address: "x"}}, &errs)
	if err := errs.Err(); err == nil || !strings.HasPrefix(err.Error(), "b.source_address.address: ") {
		t.Errorf("got %v", err)
	}
}
