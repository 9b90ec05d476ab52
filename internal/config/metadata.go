package config

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// Metadata gives the filter_metadata of a message as plain values by namespace (string, float64,
// bool, nil, map[string]any, []any), nil if there is none. typed_filter_metadata is left out: no
// consumer here reads it.
func Metadata(m *corev3.Metadata) map[string]map[string]any {
	if len(m.GetFilterMetadata()) == 0 {
		return nil
	}
	out := make(map[string]map[string]any, len(m.GetFilterMetadata()))
	for ns, s := range m.GetFilterMetadata() {
		out[ns] = s.AsMap()
	}
	return out
}
