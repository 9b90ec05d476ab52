package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

var _ hcmv3.HttpConnectionManager // linked: the tests pack it

// accepted are documents that Envoy 1.40 loads, each with what it makes of them.
var accepted = []struct {
	name   string
	format Format
	doc    string
	want   string
}{
	{"empty", YAML, "", ""},
	{"null", YAML, "~", ""},
	{"first document only", YAML, "node: {id: a}\n---\nfoo: 1", `node { id: "a" }`},
	{"camel case", YAML, "statsFlushInterval: 1.5s", `stats_flush_interval { seconds: 1 nanos: 500000000 }`},
	{"later key counts", YAML, "{node: {id: a, id: b}}", `node { id: "b" }`},
	{"later spelling counts", YAML, `{node: {user_agent_name: "a", userAgentName: "b"}}`, `node { user_agent_name: "b" }`},
	{
		"octal and hex", YAML, "{static_resources: {clusters: [{name: a, connect_timeout: 1s, per_connection_buffer_limit_bytes: 0x10}, {name: b, per_connection_buffer_limit_bytes: 010}]}}",
		`static_resources { clusters { name: "a" connect_timeout { seconds: 1 } per_connection_buffer_limit_bytes { value: 16 } } clusters { name: "b" per_connection_buffer_limit_bytes { value: 8 } } }`,
	},
	{
		"float in yaml", YAML, "{admin: {address: {socket_address: {address: 127.0.0.1, port_value: 1e2}}}}",
		`admin { address { socket_address { address: "127.0.0.1" port_value: 100 } } }`,
	},
	{"boolean words", YAML, "{enable_dispatcher_stats: Yes}", `enable_dispatcher_stats: true`},
	{"boolean text", YAML, `{enable_dispatcher_stats: "true"}`, `enable_dispatcher_stats: true`},
	{
		"enum in any case", YAML, "{static_resources: {clusters: [{name: a, type: strict_dns}]}}",
		`static_resources { clusters { name: "a" type: STRICT_DNS } }`,
	},
	{"enum by number", JSON, `{"static_resources": {"clusters": [{"type": 99}]}}`, `static_resources { clusters { type: 99 } }`},
	{"one value for a list", YAML, "{static_resources: {clusters: {name: a}}}", `static_resources { clusters { name: "a" } }`},
	{"null in a list", YAML, "{static_resources: {clusters: [~]}}", `static_resources { clusters {} }`},
	{"null field", YAML, "{node: {id: ~}}", `node {}`},
	{
		"float in a struct", YAML, "{node: {metadata: {f: 1.5, i: 5, big: 2147483648, t: nO}}}",
		`node { metadata { fields { key: "f" value { string_value: "1.5" } } fields { key: "i" value { number_value: 5 } }
		 fields { key: "big" value { string_value: "2147483648" } } fields { key: "t" value { string_value: "nO" } } } }`,
	},
	{
		"float in a struct, JSON", JSON, `{"node": {"metadata": {"f": 1.5, "n": null, "l": [true]}}}`,
		`node { metadata { fields { key: "f" value { number_value: 1.5 } } fields { key: "n" value { null_value: NULL_VALUE } }
		 fields { key: "l" value { list_value { values { bool_value: true } } } } } }`,
	},
	{
		"packed", YAML, "{bootstrap_extensions: [{name: x, typed_config: {'@type': type.googleapis.com/envoy.config.core.v3.Node, id: nn}}]}",
		`bootstrap_extensions { name: "x" typed_config { [type.googleapis.com/envoy.config.core.v3.Node] { id: "nn" } } }`,
	},
	{
		"packed well-known", YAML, "{bootstrap_extensions: [{typed_config: {'@type': type.googleapis.com/google.protobuf.StringValue, value: nn}}]}",
		`bootstrap_extensions { typed_config { [type.googleapis.com/google.protobuf.StringValue] { value: "nn" } } }`,
	},
	{"empty any", JSON, `{"bootstrap_extensions": [{"typed_config": {}}]}`, `bootstrap_extensions { typed_config {} }`},
	{
		"anchors", YAML, "{node: &n {id: a}, static_resources: {clusters: [{name: &x c}, {name: *x}]}}",
		`node { id: "a" } static_resources { clusters { name: "c" } clusters { name: "c" } }`,
	},
	{"surrogates", JSON, `{"node": {"id": "\ud83d\ude00"}}`, `node { id: "😀" }`},
	{"text", Text, `node { id: "a" }`, `node { id: "a" }`},
	{"binary", Binary, "\x0a\x03\x0a\x01a", `node { id: "a" }`},
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range accepted {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got, want bootstrapv3.Bootstrap
			if err := prototext.Unmarshal([]byte(tt.want), &want); err != nil {
				t.Fatal(err)
			}
			if _, err := Parse("f", tt.format, []byte(tt.doc), &got, RejectUnknown); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&want, &got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// refused are documents with everything that is wrong with them.
var refused = []struct {
	name   string
	format Format
	doc    string
	want   []string
}{
	{"all at once", YAML, `
node: {id: 5}
static_resources:
  listeners:
  - name: a
    bogus: 1
    address: {socket_address: {port_value: 80x}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          codec_typ: AUTO
          codec_type: HTTP9
      - typed_config: {"@type": type.googleapis.com/no.Such}
stats_flush_interval: 5
admin: []
`, []string{
		`f:2: node.id: must be a string, not 5; in YAML, quote it`,
		`f:6: static_resources.listeners[0].bogus: unknown field of envoy.config.listener.v3.Listener`,
		`f:7: static_resources.listeners[0].address.socket_address.port_value: must be an integer, not "80x"`,
		`f:13: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.codec_typ: unknown field of ` +
			`envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager; did you mean codec_type?`,
		`f:14: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.codec_type: unknown value "HTTP9"; ` +
			`envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.CodecType has AUTO, HTTP1, HTTP2, HTTP3`,
		`f:15: static_resources.listeners[0].filter_chains[0].filters[1].typed_config: no extension takes the type "type.googleapis.com/no.Such"`,
		`f:16: stats_flush_interval: must be a string like "1.5s", not 5`,
		`f:17: admin: must be an object (envoy.config.bootstrap.v3.Admin), not a list`,
	}},
	{"JSON lines", JSON, "{\n\"x\": 1,\n\"node\":\n {\"id\": true,\n \"y\": 2}}", []string{
		`f:2: x: unknown field of envoy.config.bootstrap.v3.Bootstrap`,
		`f:4: node.id: must be a string, not true; in YAML, quote it`,
		`f:5: node.y: unknown field of envoy.config.core.v3.Node`,
	}},
	{
		"oneof", YAML, "{admin: {address: {socket_address: {address: a}, pipe: {path: x}}}}",
		[]string{`f:1: admin.address.pipe: must not be set together with socket_address (one of address)`},
	},
	{"not YAML", YAML, "a: b\nc: [}", []string{`f:2: did not find expected node content`}},
	{"not JSON", JSON, "{\n\"a\": ]", []string{`f:2: invalid character ']' looking for beginning of value`}},
	{"short JSON", JSON, "{\n\"a\": ", []string{`f:2: unexpected EOF`}},
	{"empty JSON", JSON, "", []string{`f:1: unexpected EOF`}},
	{"after the JSON", JSON, "{} {}", []string{`f:1: unexpected { after the end of the value`}},
	{"half surrogate", JSON, `{"node": {"id": "\ud83d"}}`, []string{`f:1: half of a surrogate pair (\u) in a string`}},
	{"not a document", YAML, "[]", []string{`f:1: must be an object (envoy.config.bootstrap.v3.Bootstrap), not a list`}},
	{"no merge keys", YAML, "node: {<<: {id: a}}", []string{`f:1: node.<<: unknown field of envoy.config.core.v3.Node`}},
	{
		"no type", YAML, "{bootstrap_extensions: [{typed_config: {a: 1}}]}",
		[]string{`f:1: bootstrap_extensions[0].typed_config: needs the name of its message in "@type"`},
	},
	{"not binary", Binary, "\x0a\x05\x0a\x01a", []string{`f: is not a envoy.config.bootstrap.v3.Bootstrap: `}},
	{"unknown in binary", Binary, "\xfa\x7f\x01a", []string{`f: unknown field number 2047 of envoy.config.bootstrap.v3.Bootstrap`}},
	{"not text", Text, "node: {", []string{`f: is not a envoy.config.bootstrap.v3.Bootstrap: `}},
	{"deep", YAML, strings.Repeat("{a: ", 200), []string{`f`}},
	{"deep JSON", JSON, strings.Repeat("[", 200), []string{`f:1: nested deeper than 100 levels`}},
	{
		"aliases", YAML, "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n" +
			"c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n" +
			"e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]",
		[]string{`f:1: aliases stand for more than 100000 values`},
	},
}

func TestParse_AllThatIsWrong(t *testing.T) {
	t.Parallel()
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse("f", tt.format, []byte(tt.doc), &bootstrapv3.Bootstrap{}, RejectUnknown)
			got := Flatten(err)
			if len(got) != len(tt.want) {
				t.Fatalf("%d errors, want %d:\n%v", len(got), len(tt.want), err)
			}
			for i := range got {
				if !strings.HasPrefix(got[i].Error(), tt.want[i]) {
					t.Errorf("error %d:\n got %s\nwant %s", i, got[i], tt.want[i])
				}
			}
		})
	}
}

func TestParse_Unknown(t *testing.T) {
	t.Parallel()
	doc := []byte("{node: {id: a, foo: 1}, bar: {baz: 2}, static_resources: {clusters: [{lb_policy: X}]}}")
	want, err := Parse("f", YAML, doc, &bootstrapv3.Bootstrap{}, RejectUnknown)
	if len(want) != 0 || len(Flatten(err)) != 3 {
		t.Fatalf("rejecting: %v, %v", want, err)
	}
	var msg bootstrapv3.Bootstrap
	warnings, err := Parse("f", YAML, doc, &msg, WarnUnknown)
	if len(warnings) != 3 || err != nil || msg.GetNode().GetId() != "a" {
		t.Errorf("warning: %v, %v, %v", warnings, err, &msg)
	}
	warnings, err = Parse("f", YAML, doc, &msg, IgnoreUnknown)
	if len(warnings) != 0 || err != nil {
		t.Errorf("ignoring: %v, %v", warnings, err)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := &bootstrapv3.Bootstrap{FlagsPath: "x"}
	binary, err := proto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"a.yaml": "flags_path: x", "a.YML": "flags_path: x", "a.json": `{"flags_path": "x"}`,
		"a.conf": `{"flags_path": "x"}`, "a.pb_text": `flags_path: "x"`, "a.pb": string(binary),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var got bootstrapv3.Bootstrap
		if _, err := Load(path, &got, RejectUnknown); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, &got, protocmp.Transform()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	_, err = Load(filepath.Join(dir, "none.yaml"), &bootstrapv3.Bootstrap{}, RejectUnknown)
	if err == nil || err.Error() != filepath.Join(dir, "none.yaml")+": no such file or directory" {
		t.Errorf("missing file: %v", err)
	}
}

func TestYAMLScalars(t *testing.T) {
	t.Parallel()
	// As Envoy 1.40 converts them.
	doc := `{a: 0o17, b: 09, c: -012, d: +5, e: y, f: Y, g: N, h: nO, i: "y", k: !!str 5, l: 2147483648,
m: 2147483647, n: 0x7fffffff, o: 0xG, p: " 5", q: .5, r: null, s: Null, t: nuLL, u: , v: !!int "5", w: 0b11,
x: tRUE, y1: -0x10, z: 0X1F, a1: 00, a2: -0, a3: -2147483648, a4: 08, a6: "", a7: -, a8: TRUE, a9: Off, b1: ~, b2: 1_000, b3: +-5, b4: 0x-5}`
	want := map[string]string{
		"a": `"0o17"`, "b": `"09"`, "c": "-10", "d": "5", "e": "true", "f": "true", "g": "false", "h": `"nO"`,
		"i": `"y"`, "k": "5", "l": `"2147483648"`, "m": "2147483647", "n": "2147483647", "o": `"0xG"`, "p": `" 5"`,
		"q": `".5"`, "r": "null", "s": "null", "t": `"nuLL"`, "u": "null", "v": "5", "w": `"0b11"`, "x": `"tRUE"`,
		"y1": "-16", "z": "31", "a1": "0", "a2": "0", "a3": "-2147483648", "a4": `"08"`, "a6": `""`, "a7": `"-"`,
		"a8": "true", "a9": "false", "b1": "null", "b2": `"1_000"`, "b3": `"+-5"`, "b4": `"0x-5"`,
	}
	root, _, err := parseYAML([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range root.entries {
		got[e.name] = e.value.describe()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
