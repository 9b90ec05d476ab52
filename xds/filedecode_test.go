package xds

import (
	"strings"
	"testing"

	"sidecar/internal/config/source"
)

// TestDecodeFileErrors: every mistake is told, with its line.
func TestDecodeFileErrors(t *testing.T) {
	t.Parallel()
	k := kindOf(source.ListenerType)
	resp, warnings, err := k.decodeFile("l.yaml", []byte("version_info: v1\nresources:\n- '@type': type.googleapis.com/envoy.config.listener.v3.Listener\n  name: a\n"+
		"- '@type': type.googleapis.com/envoy.config.listener.v3.Listener\n  name: b\n"+
		"  address: 7\n  bind_to_port: 5\n  nope: 1\n"), false)
	if err != nil || len(resp.items) != 2 || resp.items[0].err != nil {
		t.Fatalf("got %+v, %v", resp, err)
	}
	bad := resp.items[1]
	if bad.name != "b" || bad.err == nil {
		t.Fatalf("got %q: %v", bad.name, bad.err)
	}
	for _, want := range []string{"l.yaml:7: address: ", "l.yaml:8: bind_to_port: "} {
		if !strings.Contains(bad.err.Error(), want) {
			t.Errorf("no %q in %v", want, bad.err)
		}
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0].Error(), "l.yaml:9: resources[1].nope: unknown field") {
		t.Errorf("warnings: %v", warnings)
	}
}
