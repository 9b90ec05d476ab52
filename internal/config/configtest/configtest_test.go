package configtest

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/go-cmp/cmp"

	"sidecar/internal/config"
)

// TestCovers_Fails: a test aid that can't fail is none.
func TestCovers_Fails(t *testing.T) {
	t.Parallel()
	address := config.Fields[*corev3.Address]{
		Used: "socket_address pipe sockt", Refused: "pipe",
		NoOp: map[string]string{"envoy_internal_address": ""},
	}
	got := problems(Elsewhere{"envoy.config.core.v3.Node"}, []config.Table{address, address})
	want := []string{
		"envoy.config.core.v3.Address: has two tables",
		"envoy.config.core.v3.Address has no field sockt",
		"envoy.config.core.v3.Address.socket_address is used, and nothing accounts for the fields of envoy.config.core.v3.SocketAddress",
		"envoy.config.core.v3.Address.pipe must be in one list, is in: used, refused",
		"envoy.config.core.v3.Address.pipe is used, and nothing accounts for the fields of envoy.config.core.v3.Pipe",
		"envoy.config.core.v3.Address.envoy_internal_address is a no-op without a reason",
	}
	want = append(append(want, want[1:]...), "envoy.config.core.v3.Node needs no mention in elsewhere")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	pipe := config.Fields[*corev3.Pipe]{Used: "path"}
	got = problems(nil, []config.Table{pipe})
	if diff := cmp.Diff([]string{"envoy.config.core.v3.Pipe.mode must be in one list, is in: "}, got); diff != "" {
		t.Error(diff)
	}
}
