package lb

import (
	"reflect"

	"sidecar/cluster/host"
)

// MetadataNamespace is where hosts and routes have the metadata that balancing goes by.
const MetadataNamespace = "envoy.lb"

// Labels are values that a host's envoy.lb metadata may have. A host that has a list there has each
// of its members.
type Labels struct{ Values map[string]any }

// Match tells whether a host has all of the values.
func (l *Labels) Match(h *host.Host) bool {
	have := h.Attr().Metadata[MetadataNamespace]
	for k, want := range l.Values {
		got, ok := have[k]
		if !ok || !hasValue(got, want, true) {
			return false
		}
	}
	return true
}

func hasValue(got, want any, listAsAny bool) bool {
	if reflect.DeepEqual(got, want) {
		return true
	}
	list, ok := got.([]any)
	if !ok || !listAsAny {
		return false
	}
	for _, v := range list {
		if reflect.DeepEqual(v, want) {
			return true
		}
	}
	return false
}
