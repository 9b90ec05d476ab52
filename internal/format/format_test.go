package format

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config/configtest"
)

func headers(pairs ...string) *header.Map {
	m := &header.Map{}
	for i := 0; i < len(pairs); i += 2 {
		m.Add(pairs[i], pairs[i+1])
	}
	return m
}

func addr(s string) stream.Addr { return stream.IPAddr(netip.MustParseAddrPort(s)) }

// proxied is the record of the request whose log lines were taken from Envoy 1.40 for the goldens.
func proxied() *stream.Info {
	in := &stream.Info{}
	in.Reset(time.Date(2026, 11, 24, 14, 12, 15, 191525000, time.UTC), &stream.ConnInfo{
		Local: addr("127.0.0.1:53047"), Remote: addr("127.0.0.1:40000"),
		Direct: addr("127.0.0.1:40000"), Chain: "chain1",
	})
	in.Protocol, in.Status, in.Details = stream.HTTP11, 200, "via_upstream"
	in.BytesSent = 3
	in.Cluster = "c"
	in.Upstream = stream.UpstreamInfo{
		Cluster: "alt", Host: addr("127.0.0.1:36657"), Remote: addr("127.0.0.1:36657"),
		Local: addr("127.0.0.1:50916"), ConnID: 1, Protocol: stream.HTTP11,
	}
	in.Attempts, in.RouteName, in.LogType = 1, "up", stream.LogDownstreamEnd
	in.RequestID = "39b6c33a-ea11-41eb-ba12-cb73eefc7043"
	in.LastRxDownstream, in.FirstRxUpstream = 0, 2*time.Millisecond
	in.LastTxUpstream = 1500 * time.Microsecond
	in.LastTxDownstream, in.Complete = 2900*time.Microsecond, 2950*time.Microsecond
	in.Request = headers(":method", "GET", ":path", "/up/a/b?x=1&y=%20z", ":authority", "a.test:99",
		"user-agent", "ua \"q\" \\ \xc3\xa9 \xff end", "x-tab", "a\tb", "x-multi", "1", "x-multi", "2",
		"x-empty", "", "x-bad", "\xc3\"\\a/<b", "x-hi", "\xc3\xa9\"\\")
	in.Response = headers(":status", "200", "x-up", "v")
	ns := map[string]any{
		"s": `str"q`, "n": 3.5, "i": 42.0, "b": false, "nul": nil,
		"o": map[string]any{"z": 1.0, "a": []any{1.0, "x", nil}},
	}
	in.Metadata = map[string]map[string]any{"ns": ns}
	in.RouteMetadata = map[string]map[string]any{"ns": ns}
	in.FilterState = map[string]stream.FilterObject{
		"str": {Value: `a"b`}, "bytes": {Value: []byte("hi")}, "n": {Value: int64(7)}, "f": {Value: fields{}},
	}
	return in
}

type fields struct{}

func (fields) FilterStateField(name string) (string, bool) { return "field:" + name, name == "x" }

func testOptions() Options {
	return Options{Hostname: "host1", Getenv: func(k string) (string, bool) { return "/root", k == "HOME" }}
}

func TestText(t *testing.T) {
	t.Parallel()
	unset := &stream.Info{}
	unset.Reset(time.Now(), &stream.ConnInfo{})
	grpc := proxied()
	grpc.Request.Add("content-type", "application/grpc")
	grpc.Status = 503
	xff := proxied()
	xff.Remote = netip.MustParseAddr("10.1.2.3")
	tests := []struct {
		name, format, want string
		in                 *stream.Info
	}{
		{"empty", "", "", nil},
		{"plain", "a%%b %%", "a%b %", nil},
		{
			"codes", "%PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON% %BYTES_RECEIVED% %BYTES_SENT%",
			"HTTP/1.1 200 - - via_upstream - - 0 3", nil,
		},
		{
			"upstream", "%UPSTREAM_CLUSTER% %UPSTREAM_CLUSTER_RAW% %UPSTREAM_HOST% %UPSTREAM_HOST_NAME% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_PROTOCOL% %UPSTREAM_CONNECTION_ID% %CONNECTION_ID% %STREAM_ID% %ROUTE_NAME% %VIRTUAL_CLUSTER_NAME% %FILTER_CHAIN_NAME% %ACCESS_LOG_TYPE% [%TRACE_ID%] [%SPAN_ID%] %CUSTOM_FLAGS%",
			"alt c 127.0.0.1:36657 127.0.0.1:36657 1 HTTP/1.1 1 0 39b6c33a-ea11-41eb-ba12-cb73eefc7043 up - chain1 DownstreamEnd [-] [-] ", nil,
		},
		{
			"masks", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(24)% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT% %UPSTREAM_REMOTE_PORT% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(99)%",
			"127.0.0.0/24 127.0.0.1 53047 36657 127.0.0.1/32", nil,
		},
		{
			"x-forwarded-for", "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_LOCAL_ADDRESS%",
			"10.1.2.3:0 127.0.0.1:40000 127.0.0.1:53047", xff,
		},
		{
			"metadata", "%DYNAMIC_METADATA(ns)% | %DYNAMIC_METADATA(ns:s)% | %DYNAMIC_METADATA(ns:n)% %DYNAMIC_METADATA(ns:i)% %DYNAMIC_METADATA(ns:b)% [%DYNAMIC_METADATA(ns:nul)%] %DYNAMIC_METADATA(ns:o:a)% %DYNAMIC_METADATA(ns:o):5% %DYNAMIC_METADATA(x)% %METADATA(ROUTE:ns:o)% %DYNAMIC_METADATA(ns:s:deep)%",
			`{"b":false,"i":42,"n":3.5,"nul":null,"o":{"a":[1,"x",null],"z":1},"s":"str\"q"} | str"q | 3.5 42 false [-] [1,"x",null] {"a": - {"a":[1,"x",null],"z":1} -`, nil,
		},
		{
			"paths", "%PATH% %PATH(NQ)% %PATH(WQ:ORIG)% %QUERY_PARAM(x)% %QUERY_PARAM(y)% %QUERY_PARAM(q)% %QUERY_PARAMS%",
			"/up/a/b?x=1&y=%20z /up/a/b - 1  z - x=1&y=%20z", nil,
		},
		{
			"headers", "%REQ(user-agent)% %REQ(USER-AGENT):4% %REQ(x-tab)% %REQ(x-multi)% %REQ(nope?:authority)% %REQ(:path)% %RESP(x-up)% %TRAILER(x)% %REQ(A):0% [%REQ(x-empty)%] %REQ(?a)%",
			"ua \"q\" \\ \xc3\xa9 \xff end ua \" a\tb 1 a.test:99 /up/a/b?x=1&y=%20z v - - [] -", nil,
		},
		{"not grpc", "%GRPC_STATUS% %GRPC_STATUS(NUMBER)%", "- -", nil},
		{
			"grpc", "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%",
			"Unavailable UNAVAILABLE 14 14", grpc,
		},
		{
			"plaintext", "[%LOCAL_REPLY_BODY%] %REQUESTED_SERVER_NAME% %DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_LOCAL_URI_SAN% %DOWNSTREAM_PEER_CERT_V_START% %UPSTREAM_TLS_VERSION%",
			"[] - - - - - -", nil,
		},
		{"server name by host", "%REQUESTED_SERVER_NAME(HOST_FIRST)%", "a.test:99", nil},
		{
			"times", "%START_TIME% %START_TIME(%s)% %START_TIME(%3f)% %START_TIME(%f)% %START_TIME(%1f|%9f|%s.%6f)%",
			"2026-11-24T14:12:15.191Z 1795529535 191 191525000 1|191525000|1795529535.191525", nil,
		},
		{
			"strftime", "%START_TIME(%Y/%m/%d %H:%M:%S.%E3S %z %Z %a %A %b %B %e %j %y %p %I %T %D %F %E*S %E4Y %ET %Ez %c %% %Q %E9f)%",
			"2026/11/24 14:12:15.15.191 +0000 UTC Tue Tuesday Nov November 24 328 26 PM 02 14:12:15 11/24/26 2026-11-24 15.191525 2026 T +00:00 Tue Nov 24 14:12:15 2026 % %Q 191525000", nil,
		},
		{
			"strftime weeks", "%START_TIME(%C%G%g%V%u%U%W%w%h%R%r%x%X%k%l%P)%",
			"2020262648247472Nov14:1202:12:15 PM11/24/2614:12:1514 2pm", nil,
		},
		{"parenthesis in a parameter", "%START_TIME(a)b)%", "a)b", nil},
		{
			"durations", "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)% %COMMON_DURATION(a:b:ms)% %RESPONSE_DURATION% %RESPONSE_TX_DURATION% %REQUEST_DURATION% %REQUEST_TX_DURATION% %DURATION%",
			"2900 - 2 0 0 1 2", nil,
		},
		{"environment", "%ENVIRONMENT(NOPE)% %ENVIRONMENT(HOME):3% %HOSTNAME%", "- /ro host1", nil},
		{
			"filter state", "%FILTER_STATE(str)% %FILTER_STATE(str:PLAIN)% %FILTER_STATE(bytes)% %FILTER_STATE(bytes:PLAIN)% %FILTER_STATE(n:TYPED)% %FILTER_STATE(f:FIELD:x)% %FILTER_STATE(f:FIELD:y)% %FILTER_STATE(no)%",
			`"a\"b" a"b "aGk=" hi 7 field:x - -`, nil,
		},
		{"coalesce", `%COALESCE({"operators":[{"command":"REQ","param":"nope"},{"command":"REQ","param":"x-tab","max_length":1},"PROTOCOL"]})%`, "a", nil},
		{
			"nothing known", "%REQ(a)%%RESP(a)%%TRAILER(a)%%PATH%%UPSTREAM_HOST%%UPSTREAM_CLUSTER_RAW%%DOWNSTREAM_REMOTE_ADDRESS%%QUERY_PARAM(a)%",
			"--------", unset,
		},
		{
			"default", strings.ReplaceAll(DefaultAccessLog, "%DURATION%", "D"),
			"[2026-11-24T14:12:15.191Z] \"GET /up/a/b?x=1&y=%20z HTTP/1.1\" 200 - 0 3 D - \"-\" \"ua \"q\" \\ \xc3\xa9 \xff end\" \"-\" \"a.test:99\" \"127.0.0.1:36657\"\n", nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, err := Compile(tt.format, testOptions())
			if err != nil {
				t.Fatal(err)
			}
			in := tt.in
			if in == nil {
				in = proxied()
			}
			if diff := cmp.Diff(tt.want, string(f.Append(nil, in))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOmitEmpty(t *testing.T) {
	t.Parallel()
	f, err := Compile("%REQ(nope)%|%UPSTREAM_HOST%|%%|", Options{OmitEmpty: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(f.Append([]byte(">"), proxied())); got != ">|127.0.0.1:36657|%|" {
		t.Error(got)
	}
	if _, ok := f.Constant(); ok {
		t.Error("constant")
	}
	f, err = Compile("a%%", Options{})
	if s, ok := f.Constant(); err != nil || !ok || s != "a%" {
		t.Error(s, ok, err)
	}
}

// TestErrors has Envoy's own texts, but for those with "this proxy".
func TestErrors(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{
		"%REQ(A":                            "Incorrect configuration: %REQ(A. Couldn't find valid command at position 0",
		"a%b":                               "Incorrect configuration: a%b. Couldn't find valid command at position 1",
		"%":                                 "Incorrect configuration: %. Couldn't find valid command at position 0",
		"%req(x)%":                          "Incorrect configuration: %req(x)%. Couldn't find valid command at position 0",
		"%DURATION%%":                       "Incorrect configuration: %DURATION%%. Couldn't find valid command at position 10",
		"%REQ(A):x%":                        "Incorrect configuration: %REQ(A):x%. Couldn't find valid command at position 0",
		"%REQ(a)b%":                         "Incorrect configuration: %REQ(a)b%. Couldn't find valid command at position 0",
		"%REQ(A):99999999999999999999%":     "Incorrect configuration: %REQ(A):99999999999999999999%. Couldn't find valid command at position 0",
		"%START_TIME(a\nb)%":                "Incorrect configuration: %START_TIME(a\nb)%. Couldn't find valid command at position 0",
		"%FOO%":                             "Not supported field in StreamInfo: FOO",
		"%REQ_WITHOUT_QUERY(X)%":            "Not supported field in StreamInfo: REQ_WITHOUT_QUERY",
		"%REQ%":                             "REQ requires parameters",
		"%REQ()%":                           "REQ requires parameters",
		"%REQ(A?B?C)%":                      "More than 1 alternative header specified in token: A?B?C",
		"%REQ(X Y)%":                        "Invalid header configuration. Format string contains invalid characters.",
		"%PROTOCOL(x)%":                     "PROTOCOL does not take any parameters or length",
		"%PROTOCOL:3%":                      "PROTOCOL does not take any parameters or length",
		"%HOSTNAME(x)%":                     "HOSTNAME does not take any parameters or length",
		"%HOSTNAME:3%":                      "HOSTNAME does not take any parameters or length",
		"%START_TIME():3%":                  "START_TIME does not allow length to be specified.",
		"%START_TIME(%n)%":                  "Invalid header configuration. Format string contains newline.",
		"%DYNAMIC_METADATA%":                "DYNAMIC_METADATA requires parameters",
		"%METADATA(FOO:a)%":                 "FOO is not supported type of metadata",
		"%METADATA%":                        " is not supported type of metadata",
		"%FILTER_STATE%":                    "Invalid filter state configuration, key cannot be empty.",
		"%FILTER_STATE(x:FOO)%":             "Invalid filter state serialize type, only support PLAIN/TYPED/FIELD.",
		"%FILTER_STATE(a:FIELD)%":           "Invalid filter state serialize type, FIELD should be used with the field name.",
		"%FILTER_STATE(a:PLAIN:x)%":         "Invalid filter state serialize type, FIELD should be used with the field name.",
		"%GRPC_STATUS(x)%":                  "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: x",
		"%GRPC_STATUS:3%":                   "GRPC_STATUS does not allow length to be specified.",
		"%COMMON_DURATION%":                 "COMMON_DURATION requires parameters",
		"%COMMON_DURATION(DS_RX_BEG)%":      "Invalid common duration configuration: DS_RX_BEG.",
		"%COMMON_DURATION(a:b:x)%":          "Invalid common duration precision: x.",
		"%PATH(X)%":                         "Invalid PATH option: 'X', only 'WQ'/'NQ' are allowed",
		"%PATH(WQ:FOO)%":                    "Invalid PATH option: 'FOO', only 'ORIG'/'PATH'/'ORIG_OR_PATH' are allowed",
		"%QUERY_PARAMS(x)%":                 "Invalid QUERY_PARAMS option: 'x', only 'ORIG'/'DECODED' are allowed",
		"%QUERY_PARAM%":                     "QUERY_PARAM requires parameters",
		"%REQUESTED_SERVER_NAME(X)%":        "Invalid REQUESTED_SERVER_NAME option: 'X', only 'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST' are allowed",
		"%CEL(x)%":                          "CEL is not supported by this proxy",
		"%DOWNSTREAM_CX_RTT%":               "DOWNSTREAM_CX_RTT is not supported by this proxy",
		`%COALESCE({"operators":["FOO"]})%`: "COALESCE: operators[0]: Not supported field in StreamInfo: FOO",
	} {
		if _, err := Compile(format, Options{}); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", format, err, want)
		}
	}
}

func compileJSON(t testing.TB, s string, o Options) *JSON {
	t.Helper()
	var format structpb.Struct
	if err := protojson.Unmarshal([]byte(s), &format); err != nil {
		t.Fatal(err)
	}
	j, err := CompileJSON(&format, o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestJSON(t *testing.T) {
	t.Parallel()
	const all = `{"z":"%PROTOCOL%","a":"%RESPONSE_CODE%","b":"x%RESPONSE_CODE%y%UPSTREAM_HOST%","n":1.5,"i":7,"t":true,"nul":null,
		"o":{"y":"%DYNAMIC_METADATA(ns)%","x":"%UPSTREAM_HOST%"},"l":["%BYTES_SENT%","x",{"q":"%DURATION%"}],"e":"","lit":"a\"b",
		"ua":"%REQ(user-agent)%","ua4":"%REQ(user-agent):4%","tab":"t %REQ(x-tab)% \u0001é","ms":"%DYNAMIC_METADATA(ns:s)%",
		"mi":"%DYNAMIC_METADATA(ns:i)%","mn":"%DYNAMIC_METADATA(ns:nul)%","cid":"%CONNECTION_ID%","dur":"%REQUEST_DURATION%",
		"lp":"%DOWNSTREAM_LOCAL_PORT%","grpc":"%GRPC_STATUS(NUMBER)%","st":"%START_TIME(%s)%","rf":"%RESPONSE_FLAGS%","2":"%REQ(nope)%",
		"mo5":"%DYNAMIC_METADATA(ns:o):5%","tr":"%TRACE_ID%","lrb":"%LOCAL_REPLY_BODY%","eo":{},"el":[]}`
	const omit = `{"z":"%PROTOCOL%","b":"x%RESPONSE_CODE%y%REQ(no)%","h":"%REQ(no)%","o":{"x":"%REQ(no)%"},
		"oo":{"o":{"x":"%REQ(no)%","y":"%PROTOCOL%"}},"l":["%REQ(no)%"],"e":"","nul":null,"eo":{}}`
	tests := []struct {
		name, format, want string
		omit               bool
	}{
		{"all", all, `{"2":null,"a":200,"b":"x200y127.0.0.1:36657","cid":0,"dur":0,"e":"","el":[],"eo":{},"grpc":null,"i":7,"l":[3,"x",{"q":2}],"lit":"a\"b","lp":53047,"lrb":"","mi":42,"mn":null,"mo5":{"a":[1,"x",null],"z":1},"ms":"str\"q","n":1.5,"nul":null,"o":{"x":"127.0.0.1:36657","y":{"b":false,"i":42,"n":3.5,"nul":null,"o":{"a":[1,"x",null],"z":1},"s":"str\"q"}},"rf":"-","st":"1795529535","t":true,"tab":"t a\tb \u0001é","tr":null,"ua":"ua \u0022q\u0022 \u005c \u00c3\u00a9 \u00ff end","ua4":"ua \"","z":"HTTP/1.1"}` + "\n", false},
		{"absent", `{"b":"x%RESPONSE_CODE%y%REQ(no)%","x":"%REQ(no)%"}`, `{"b":"x200y-","x":null}` + "\n", false},
		{"omit", omit, `{"b":"x200y","e":"","l":[],"oo":{"o":{"y":"HTTP/1.1"}},"z":"HTTP/1.1"}` + "\n", true},
		{"omit all", `{"x":"%REQ(no)%"}`, "{}\n", true},
		{"numbers", `{"n":1e21,"m":0.1,"neg":-3,"big":12345678901234567890,"sm":1e-7}`, `{"big":12345678901234567168,"m":0.1,"n":1e+21,"neg":-3,"sm":1e-07}` + "\n", false},
		{"escapes", `{"bad":"%REQ(x-bad)%","hi":"%REQ(x-hi)%","sl":"a/b<>&'"}`, `{"bad":"\u00c3\u0022\u005ca/<b","hi":"é\"\\","sl":"a/b<>&'"}` + "\n", false},
		{"coalesce", `{"c":"%COALESCE({\"operators\":[{\"command\":\"REQ\",\"param\":\"no\"},\"RESPONSE_CODE\"]})%"}`, `{"c":200}` + "\n", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			j := compileJSON(t, tt.format, Options{OmitEmpty: tt.omit})
			// The goldens have \t and \u0001 as Envoy escapes them.
			if diff := cmp.Diff(tt.want, string(j.Append(nil, proxied()))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestJSONErrorsAreJoined(t *testing.T) {
	t.Parallel()
	var s structpb.Struct
	if err := protojson.Unmarshal([]byte(`{"a":"%FOO%","b":{"c":["x","%"]}}`), &s); err != nil {
		t.Fatal(err)
	}
	_, err := CompileJSON(&s, Options{})
	want := "json_format[\"a\"]: Not supported field in StreamInfo: FOO\n" +
		"json_format[\"b\"][\"c\"][1]: Incorrect configuration: %. Couldn't find valid command at position 0"
	if err == nil || err.Error() != want {
		t.Error(err)
	}
}

func TestSubstitution(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want, contentType, err string }{
		{"text", `{"text_format":"%PROTOCOL%"}`, "HTTP/1.1", "text/plain", ""},
		{"source", `{"text_format_source":{"inline_bytes":"JVBST1RPQ09MJQ=="},"content_type":"a/b"}`, "HTTP/1.1", "a/b", ""},
		{"json", `{"json_format":{"a":"%PROTOCOL%","b":"%REQ(no)%"},"omit_empty_values":true}`, "{\"a\":\"HTTP/1.1\"}\n", "application/json", ""},
		{"listed formatter", `{"text_format":"%REQ_WITHOUT_QUERY(:path)%","formatters":[{"name":"x","typed_config":{"@type":"type.googleapis.com/google.protobuf.Empty"}}]}`, "", "", "formatters[0].typed_config: formatter google.protobuf.Empty is not supported\ntext_format: Not supported field in StreamInfo: REQ_WITHOUT_QUERY"},
		{"no file", `{"text_format_source":{"filename":"/does/not/exist"}}`, "", "", "text_format_source.filename: /does/not/exist: no such file or directory"},
		{"no variable", `{"text_format_source":{"environment_variable":"SIDECAR_TEST_UNSET"}}`, "", "", "text_format_source.environment_variable: environment variable SIDECAR_TEST_UNSET doesn't exist"},
		{"nothing", `{}`, "", "", "format: is required"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var s corev3.SubstitutionFormatString
			if err := protojson.Unmarshal([]byte(tt.in), &s); err != nil {
				t.Fatal(err)
			}
			got, err := CompileSubstitution(&s, testOptions())
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatal(err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if text := string(got.Append(nil, proxied())); text != tt.want || got.ContentType() != tt.contentType {
				t.Errorf("%q %q", text, got.ContentType())
			}
		})
	}
}

func TestLocalReplyBody(t *testing.T) {
	t.Parallel()
	in := proxied()
	in.LocalReplyBody = "no healthy upstream"
	for inLog, want := range map[bool]string{false: "[no healthy upstream]", true: "[]"} {
		f, err := Compile("[%LOCAL_REPLY_BODY%]", Options{InLog: inLog})
		if err != nil {
			t.Fatal(err)
		}
		if got := string(f.Append(nil, in)); got != want {
			t.Error(inLog, got)
		}
	}
}

func TestRequestWithoutQuery(t *testing.T) {
	t.Parallel()
	f, err := Compile("%REQ_WITHOUT_QUERY(:path)%", Options{Extensions: []string{"REQ_WITHOUT_QUERY"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(f.Append(nil, proxied())); got != "/up/a/b" {
		t.Error(got)
	}
}

func TestAllocs(t *testing.T) {
	in := proxied()
	f, err := Compile(DefaultAccessLog+"%DYNAMIC_METADATA(ns:s)% %QUERY_PARAM(y)% %UNIQUE_ID% %GRPC_STATUS% %DOWNSTREAM_REMOTE_ADDRESS%", Options{})
	if err != nil {
		t.Fatal(err)
	}
	j := compileJSON(t, `{"a":"%REQ(user-agent)%","b":"x%RESPONSE_CODE%","c":{"d":"%REQ(x-hi)%"}}`, Options{})
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { buf = f.Append(buf[:0], in) }); n != 0 {
		t.Errorf("text: %v allocations a line", n)
	}
	if n := testing.AllocsPerRun(100, func() { buf = j.Append(buf[:0], in) }); n != 0 {
		t.Errorf("JSON: %v allocations a line", n)
	}
}

func BenchmarkDefault(b *testing.B) {
	in := proxied()
	f, err := Compile(DefaultAccessLog, Options{})
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = f.Append(buf[:0], in)
	}
}

func TestFieldsAreAccountedFor(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, nil, substitutionFields, extensionFields)
}
