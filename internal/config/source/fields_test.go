package source

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"sidecar/internal/config/configtest"
)

func TestFieldsAreAccountedFor(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, configSourceFields, pathFields, watchedDirectoryFields, adsFields, apiFields,
		rateLimitFields, serviceFields, headerValueFields, envoyGRPCFields, googleGRPCFields,
		channelCredentialsFields, localCredentialsFields, retryFields, backOffFields)
}

func TestCompile_RefusesByTable(t *testing.T) {
	t.Parallel()
	cs := &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{
		PathConfigSource: &corev3.PathConfigSource{Path: t.TempDir(), PollInterval: durationpb.New(1)},
	}}
	_, err := Compile(cs, "a.b")
	if want := "a.b.path_config_source.poll_interval: is not supported"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}
