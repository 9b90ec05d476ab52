package attribute

import (
	"maps"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// Node is the proxy's identity, ready to be read.
type Node struct {
	wire, locality []byte
	fields         map[string]any
}

// NewNode reads a node once; nil makes nil, which has no fields.
func NewNode(n *corev3.Node) *Node {
	if n == nil {
		return nil
	}
	l := n.GetLocality()
	out := &Node{fields: map[string]any{
		"id": n.GetId(), "cluster": n.GetCluster(), "user_agent_name": n.GetUserAgentName(),
		"user_agent_version": n.GetUserAgentVersion(), "metadata": n.GetMetadata().AsMap(),
		"locality": map[string]any{"region": l.GetRegion(), "zone": l.GetZone(), "sub_zone": l.GetSubZone()},
	}}
	out.wire, _ = proto.Marshal(n) //nolint:errcheck // a message that was parsed
	out.locality, _ = proto.Marshal(l)
	return out
}

// lookup finds a field; the node and its locality by themselves are messages.
func (n *Node) lookup(path string) (Value, bool) {
	switch {
	case n == nil:
		return Value{}, false
	case path == "":
		return messageValue(n.wire), true
	case path == "locality":
		return messageValue(n.locality), true
	}
	v, ok := descend(n.fields, path)
	if s, isText := v.(string); isText && s == "" {
		return Value{}, false
	}
	return objectValue(v), ok
}

// metadataMessage encodes filter metadata as the message that it came from, in a stable order.
func metadataMessage(m map[string]map[string]any) []byte {
	msg := &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{}}
	for _, ns := range slices.Sorted(maps.Keys(m)) {
		if s, err := structpb.NewStruct(m[ns]); err == nil {
			msg.FilterMetadata[ns] = s
		}
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(msg)
	if err != nil {
		return nil
	}
	return b
}

func localityMessage(region, zone, sub string) []byte {
	b, err := proto.Marshal(&corev3.Locality{
		Region: strings.Clone(region), Zone: strings.Clone(zone), SubZone: strings.Clone(sub),
	})
	if err != nil {
		return nil
	}
	return b
}
