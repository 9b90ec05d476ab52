package snidynamicforwardproxy

import (
	"testing"

	"sidecar/internal/config/configtest"
)

func TestFields(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, configtest.Elsewhere{
		"envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig", // cluster
	}, fields)
}
