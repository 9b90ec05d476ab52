package cluster

import (
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"sidecar/internal/config"
)

// TestCompile_HTTP2 holds that HTTP/2 is for the clusters of gRPC clients.
func TestCompile_HTTP2(t *testing.T) {
	t.Parallel()
	msg := func(name string) *clusterv3.Cluster {
		return &clusterv3.Cluster{
			Name: name,
			Http2ProtocolOptions: &corev3.Http2ProtocolOptions{ //nolint:staticcheck // still in use
				ConnectionKeepalive: &corev3.KeepaliveSettings{
					Interval: durationpb.New(30 * time.Second), Timeout: durationpb.New(5 * time.Second),
				},
			},
		}
	}
	env := Env{GRPC: func(name string) bool { return name == "xds" }}
	conf, err := Compile(msg("xds"), env)
	if err != nil {
		t.Fatal(err)
	}
	if !conf.HTTP.HTTP2 || conf.HTTP.Keepalive != 30*time.Second || conf.HTTP.KeepaliveTimeout != 5*time.Second {
		t.Errorf("got %+v", conf.HTTP)
	}
	if _, err := Compile(msg("web"), env); err == nil || !strings.HasPrefix(err.Error(), "http2_protocol_options: "+noHTTP2) {
		t.Errorf("got %v", err)
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
