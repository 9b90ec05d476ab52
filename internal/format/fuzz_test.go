package format

import (
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"
)

func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		"", "plain", "%%", "%", "%REQ(A", "%REQ(A?B):3%", "%REQ(X-Y)%%RESP(:status)%", "%START_TIME(%Y%%%)%",
		"%START_TIME(%E3S%E*f%E%1f%9%)%", "%START_TIME(a)b)%", "%COALESCE({\"operators\":[\"PROTOCOL\"]}):5%",
		"%DYNAMIC_METADATA(ns:o:a):9223372036854775807%", "%FILTER_STATE(f:FIELD:x)%", "%METADATA(ROUTE:ns)%",
		"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(255)%", "%QUERY_PARAM(y):1%", "%PATH(NQ:ORIG)%",
		"%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ns)%", "%GRPC_STATUS(NUMBER)%", "%A%B%", "%UNIQUE_ID%\xff\x00", DefaultAccessLog,
	} {
		f.Add(s)
	}
	in := proxied()
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 4096 {
			return
		}
		c, err := Compile(s, Options{})
		if err != nil {
			return
		}
		c.Append(nil, in)
		// In a JSON format the same text makes valid JSON, whatever it holds.
		j, err := CompileJSON(&structpb.Struct{Fields: map[string]*structpb.Value{
			"k" + s: structpb.NewStringValue(s), "l": structpb.NewStringValue("x" + s),
		}}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if out := j.Append(nil, in); !json.Valid(out) {
			t.Errorf("not JSON: %q", out)
		}
	})
}
