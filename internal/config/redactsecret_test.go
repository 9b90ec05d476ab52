package config_test

import (
	"strings"
	"testing"

	wasmfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"sidecar/internal/config"
)

// TestRedactPullSecret holds that a plugin's pull secret is not shown, and its other variables are.
func TestRedactPullSecret(t *testing.T) {
	t.Parallel()
	a, err := anypb.New(&wasmfilterv3.Wasm{Config: &wasmv3.PluginConfig{Vm: &wasmv3.PluginConfig_VmConfig{VmConfig: &wasmv3.VmConfig{
		EnvironmentVariables: &wasmv3.EnvironmentVariables{KeyValues: map[string]string{
			"ISTIO_META_WASM_IMAGE_PULL_SECRET": "hunter2", "OTHER": "shown",
		}},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	config.Redact(a)
	text := protojson.Format(a)
	if strings.Contains(text, "hunter2") || !strings.Contains(text, "shown") {
		t.Errorf("got %s", text)
	}
}
