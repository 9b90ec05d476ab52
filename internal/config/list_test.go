package config

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
)

func TestParseList(t *testing.T) {
	t.Parallel()
	doc := `version_info: "1"
nope: 1
resources:
- {"@type": type.googleapis.com/envoy.config.core.v3.Node, id: good}
- {"@type": type.googleapis.com/envoy.config.core.v3.Node, id: bad, fooo: 1, metadata: []}
- {"@type": type.googleapis.com/no.Such}
- 5
- {"@type": type.googleapis.com/envoy.config.core.v3.Node, id: fine}
`
	var msg discoveryv3.DiscoveryResponse
	elements, _, err := ParseList("f", YAML, []byte(doc), &msg, "resources", RejectUnknown)
	if want := "f:2: nope: unknown field of envoy.service.discovery.v3.DiscoveryResponse"; err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	var got []string
	for _, e := range elements {
		text := ""
		if e != nil {
			text = e.Error()
		}
		got = append(got, text)
	}
	want := []string{
		"",
		"f:5: fooo: unknown field of envoy.config.core.v3.Node\nf:5: metadata: must be an object, not a list",
		`f:6: no extension takes the type "type.googleapis.com/no.Such"`,
		"f:7: must be an object with @type, not 5",
		"",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for i, id := range map[int]string{0: "good", 1: "bad", 4: "fine"} {
		var node corev3.Node
		if err := msg.GetResources()[i].UnmarshalTo(&node); err != nil || node.GetId() != id {
			t.Errorf("%d: %v, %v", i, &node, err)
		}
	}
}
