package xds_test

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"sidecar/xds"
)

// structOf makes a message with maps in it, serialized in the order of the keys given: protobuf
// allows any.
func structOf(keys ...string) []byte {
	var out []byte
	for _, k := range keys {
		v, err := proto.Marshal(structpb.NewStringValue("v" + k))
		if err != nil {
			panic(err)
		}
		var entry []byte
		entry = protowire.AppendTag(entry, 1, protowire.BytesType)
		entry = protowire.AppendString(entry, k)
		entry = protowire.AppendTag(entry, 2, protowire.BytesType)
		entry = protowire.AppendBytes(entry, v)
		out = protowire.AppendTag(out, 1, protowire.BytesType)
		out = protowire.AppendBytes(out, entry)
	}
	return out
}

const structURL = "type.googleapis.com/google.protobuf.Struct"

func withAny(value []byte, url string) *listenerv3.Listener {
	return &listenerv3.Listener{Name: "l", ListenerFilters: []*listenerv3.ListenerFilter{{
		Name: "f", ConfigType: &listenerv3.ListenerFilter_TypedConfig{
			TypedConfig: &anypb.Any{TypeUrl: url, Value: value},
		},
	}}}
}

func routeWith(params ...string) *routev3.RouteConfiguration {
	m := &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
	for _, p := range params {
		m.QueryParameters = append(m.QueryParameters, &routev3.QueryParameterMatcher{Name: p})
	}
	return &routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{{
		Name: "v", Domains: params, Routes: []*routev3.Route{{Match: m}},
	}}}
}

func sameDomains(m *routev3.RouteConfiguration) *routev3.RouteConfiguration {
	m.VirtualHosts[0].Domains = []string{"*"}
	return m
}

func metadata(keys ...string) *listenerv3.Listener {
	var s structpb.Struct
	if err := proto.Unmarshal(structOf(keys...), &s); err != nil {
		panic(err)
	}
	return &listenerv3.Listener{Metadata: &corev3.Metadata{
		FilterMetadata: map[string]*structpb.Struct{"x": &s},
	}}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		a, b  proto.Message
		equal bool
	}{
		{"equal", listener("a", "1"), listener("a", "1"), true},
		{"another value", listener("a", "1"), listener("a", "2"), false},
		{"value moved to another field", listener("a", ""), &listenerv3.Listener{StatPrefix: "a"}, false},
		{"empty message is set", &listenerv3.Listener{Address: &corev3.Address{}}, &listenerv3.Listener{}, false},
		{"map order", metadata("a", "b", "c"), metadata("c", "a", "b"), true},
		{"map value", metadata("a", "b"), metadata("a", "c"), false},
		{
			"map order inside an Any",
			withAny(structOf("a", "b"), structURL), withAny(structOf("b", "a"), structURL), true,
		},
		{
			"content of an Any",
			withAny(structOf("a", "b"), structURL), withAny(structOf("a", "c"), structURL), false,
		},
		{"unknown Any, equal", withAny([]byte("x"), "t/no.Such"), withAny([]byte("x"), "t/no.Such"), true},
		{"unknown Any, other", withAny([]byte("x"), "t/no.Such"), withAny([]byte("y"), "t/no.Such"), false},
		{"broken Any", withAny([]byte("\xff"), structURL), withAny([]byte("\xfe"), structURL), false},
		{"type of an Any", withAny(nil, "t/a.B"), withAny(nil, "t/a.C"), false},
		{
			"order of query parameters",
			sameDomains(routeWith("a", "b")), sameDomains(routeWith("b", "a")), true,
		},
		{
			"query parameter twice",
			sameDomains(routeWith("a", "a")), sameDomains(routeWith("a")), false,
		},
		{"order of an ordered list", routeWith("a", "b"), routeWith("b", "a"), false},
		{
			"list split elsewhere", &listenerv3.Listener{Name: "ab"}, &listenerv3.Listener{Name: "a"}, false,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, _ := xds.Digest(tt.a)
			b, _ := xds.Digest(tt.b)
			if (a == b) != tt.equal {
				t.Fatalf("equal %v, want %v", a == b, tt.equal)
			}
		})
	}
}

func TestDigestUnknownField(t *testing.T) {
	t.Parallel()
	m := listener("a", "1")
	known, unknown := xds.Digest(m)
	if unknown != "" {
		t.Fatalf("unknown field %q in a known message", unknown)
	}
	raw := protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 7)
	m.ProtoReflect().SetUnknown(raw)
	d, unknown := xds.Digest(m)
	if d == known || !strings.Contains(unknown,
		"type envoy.config.listener.v3.Listener with unknown field set {1000}") {
		t.Fatalf("got %q", unknown)
	}
}

// TestDigestDeepAny: a tower of Anys costs a bounded stack.
func TestDigestDeepAny(t *testing.T) {
	t.Parallel()
	a := &anypb.Any{TypeUrl: structURL}
	for range 2000 {
		b, err := proto.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		a = &anypb.Any{TypeUrl: "type.googleapis.com/google.protobuf.Any", Value: b}
	}
	one, _ := xds.Digest(a)
	two, _ := xds.Digest(proto.Clone(a))
	if one != two {
		t.Fatal("differs from itself")
	}
}
