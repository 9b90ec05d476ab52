package config

import (
	"testing"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

func pack(t *testing.T, msg proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(msg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

const addressURL = "type.googleapis.com/envoy.config.core.v3.SocketAddress"

func TestOpenAs(t *testing.T) {
	t.Parallel()
	fields, err := structpb.NewStruct(map[string]any{"address": "a", "port_value": 80.0})
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := structpb.NewStruct(map[string]any{"address": 7.0, "port_value": "x", "foo": 1.0})
	if err != nil {
		t.Fatal(err)
	}
	good := &corev3.SocketAddress{Address: "a", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 80}}
	tests := []struct {
		name string
		any  *anypb.Any
		want string
	}{
		{"plain", pack(t, good), ""},
		{"xds TypedStruct", pack(t, &xdsv3.TypedStruct{TypeUrl: addressURL, Value: fields}), ""},
		{"udpa TypedStruct", pack(t, &udpav1.TypedStruct{TypeUrl: addressURL, Value: fields}), ""},
		{
			"wrong TypedStruct", pack(t, &xdsv3.TypedStruct{TypeUrl: addressURL, Value: wrong}),
			"a.address: must be a string, not 7; in YAML, quote it\na.port_value: must be an integer, not \"x\"",
		},
		{"none", nil, "a: is required"},
		{
			"another type", pack(t, &corev3.Pipe{Path: "x"}),
			"a: must be a envoy.config.core.v3.SocketAddress, not a envoy.config.core.v3.Pipe",
		},
		{
			"a type that isn't linked", &anypb.Any{TypeUrl: "type.googleapis.com/no.Such"},
			`a: no extension takes the type "type.googleapis.com/no.Such"`,
		},
		{"constraint", pack(t, &corev3.SocketAddress{Address: "a"}), "a.port_specifier: value is required"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var errs Errors
			msg, ok := OpenAs[*corev3.SocketAddress](Field("a"), tt.any, &errs)
			if tt.want == "" {
				if !ok || !proto.Equal(msg, good) {
					t.Errorf("got %v: %v", msg, errs.Err())
				}
				if TypeName(tt.any) != "envoy.config.core.v3.SocketAddress" {
					t.Errorf("type is %q", TypeName(tt.any))
				}
				return
			}
			if err := errs.Err(); ok || err == nil || err.Error() != tt.want {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestOpen_BadBytes(t *testing.T) {
	t.Parallel()
	for _, url := range []string{addressURL, "x/xds.type.v3.TypedStruct"} {
		if msg, err := Open(&anypb.Any{TypeUrl: url, Value: []byte{0xff}}); err == nil {
			t.Errorf("%s: got %v", url, msg)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	msg := &routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{
		{Name: "ok", Domains: []string{"*"}},
		{Domains: []string{"*"}, Routes: []*routev3.Route{{Match: &routev3.RouteMatch{}}}},
	}}
	var errs Errors
	Validate(Field("r"), msg, &errs)
	want := "r.virtual_hosts[1].name: value length must be at least 1 runes\n" +
		"r.virtual_hosts[1].routes[0].match.path_specifier: value is required\n" +
		"r.virtual_hosts[1].routes[0].action: value is required"
	if err := errs.Err(); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	errs = Errors{}
	Validate(nil, &clusterv3.Cluster{Name: "a", ConnectTimeout: &durationpb.Duration{}}, &errs)
	if err := errs.Err(); err == nil || err.Error() != "connect_timeout: value must be greater than 0s" {
		t.Errorf("got %v", err)
	}
	errs = Errors{}
	Validate(nil, (*clusterv3.Cluster)(nil), &errs)
	if err := errs.Err(); err != nil {
		t.Error(err)
	}
}

// TestGoCamelCase holds our rule against every generated name that is linked: each field has a
// getter.
func TestGoCamelCase(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a": "A", "some_name": "SomeName", "h2_settings": "H2Settings", "http1x": "Http1X", "a_1": "A_1",
		"_x": "XX", "re2_max": "Re2Max", "fooBar": "FooBar", "a__b": "A_B",
	} {
		if got := goCamelCase(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestCheckUnknown(t *testing.T) {
	t.Parallel()
	node := &corev3.Node{Id: "a"}
	node.ProtoReflect().SetUnknown(protoreflect.RawFields("\xfa\x7f\x01a"))
	wrong, err := structpb.NewStruct(map[string]any{"foo": 1.0})
	if err != nil {
		t.Fatal(err)
	}
	ext := &corev3.TypedExtensionConfig{Name: "x", TypedConfig: pack(t, node)}
	typed := &corev3.TypedExtensionConfig{
		Name:        "x",
		TypedConfig: pack(t, &xdsv3.TypedStruct{TypeUrl: addressURL, Value: wrong}),
	}
	foreign := &corev3.TypedExtensionConfig{Name: "x", TypedConfig: &anypb.Any{TypeUrl: "a/no.Such"}}
	tests := []struct {
		name string
		msg  proto.Message
		want string
	}{
		{"none", &corev3.Node{Id: "a"}, ""},
		{"own", node, "unknown field number 2047 of envoy.config.core.v3.Node"},
		{"packed", ext, "typed_config: unknown field number 2047 of envoy.config.core.v3.Node"},
		{"TypedStruct", typed, "typed_config.foo: unknown field of envoy.config.core.v3.SocketAddress"},
		{"not linked", foreign, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := ""
			if _, err := CheckUnknown(tt.msg, RejectUnknown); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			warnings, err := CheckUnknown(tt.msg, WarnUnknown)
			if err != nil || (len(warnings) == 0) != (tt.want == "") {
				t.Errorf("warnings %v, %v", warnings, err)
			}
		})
	}
}
