package tcpproxy

import (
	"net/netip"
	"testing"

	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/xxhash"
)

func TestHash(t *testing.T) {
	t.Parallel()
	info := &stream.Info{
		Remote: netip.MustParseAddr("10.0.0.1"),
		Conn:   &stream.ConnInfo{FilterState: map[string]stream.FilterObject{"k": {Value: "v"}}},
	}
	for name, tt := range map[string]struct {
		yaml string
		want string
		ok   bool
	}{
		"source":       {"source_ip: {}", "10.0.0.1", true},
		"filter state": {"filter_state: {key: k}", "v", true},
		"no state":     {"filter_state: {key: none}", "", false},
	} {
		msg := &typev3.HashPolicy{}
		if _, err := config.Parse("test", config.YAML, []byte(tt.yaml), msg, config.RejectUnknown); err != nil {
			t.Fatal(err)
		}
		var errs config.Errors
		h := compileHash(config.Field("hash_policy"), []*typev3.HashPolicy{msg}, &errs)
		if err := errs.Err(); err != nil {
			t.Fatal(err)
		}
		if got, ok := h.of(info); ok != tt.ok || ok && got != xxhash.Sum64(0, tt.want) {
			t.Errorf("%s: %#x, %t", name, got, ok)
		}
	}
	var errs config.Errors
	if compileHash(nil, []*typev3.HashPolicy{{}, {}}, &errs); errs.Len() == 0 {
		t.Error("two policies are taken")
	}
}
