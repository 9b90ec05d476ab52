package grpchttp1bridge

import (
	"strings"
	"testing"

	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/listener/filters/http/filtertest"
)

const frames = "\x00\x00\x00\x00\x03\x01\x02\x03\x00\x00\x00\x00\x01\x09"

// TestBridge has what Envoy 1.40 did with the same calls.
func TestBridge(t *testing.T) {
	t.Parallel()
	const upgrade = "{upgrade_protobuf_to_grpc: true, ignore_query_parameters: true}"
	ok := []string{"grpc-status: 0"}
	for _, tt := range []struct {
		name, config, kind     string
		protocol               stream.Protocol
		path, sent             string
		head                   string
		trailers               []string
		wantHead, wantResponse string
	}{
		{
			"a call", "{}", "application/grpc", stream.HTTP11, "/s.A/m?x=1", "hi",
			":status: 200", ok, ":status: 200\ngrpc-status: 0\ncontent-length: 14\n", frames,
		},
		{
			"a failed call", "{}", "application/grpc", stream.HTTP11, "/s.A/m?x=1", "hi",
			":status: 200",
			[]string{"grpc-status: 7", "grpc-message: bad"},
			":status: 503\ngrpc-status: 7\ngrpc-message: bad\ncontent-length: 14\n", frames,
		},
		{
			"no trailers", "{}", "application/grpc", stream.HTTP11, "/s.A/m?x=1", "hi",
			":status: 500\ncontent-length: 14", nil, ":status: 500\ncontent-length: 14\n", frames,
		},
		{
			"HTTP/2", "{}", "application/grpc", stream.HTTP2, "/s.A/m?x=1", "hi",
			":status: 200", ok, ":status: 200\n", frames,
		},
		{
			"another type", upgrade, "text/plain", stream.HTTP11, "/s.A/m?x=1", "hi",
			":status: 200", ok, ":status: 200\n", frames,
		},
		{
			"a bare message", upgrade, "application/x-protobuf", stream.HTTP11, "/s.A/m", "\x00\x00\x00\x00\x02hi",
			":status: 200", ok, ":status: 200\ngrpc-status: 0\ncontent-length: 9\n", frames[5:],
		},
		{
			"a bare message without upgrade", "{}", "application/x-protobuf", stream.HTTP11, "/s.A/m?x=1", "hi",
			":status: 200", ok, ":status: 200\n", frames,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			factory, err := filtertest.Compile(t, Entry(), stats.New(), tt.config)
			if err != nil {
				t.Fatal(err)
			}
			s := filtertest.NewStream()
			s.Record.Protocol = tt.protocol
			f := factory.NewFilter(s)
			defer s.Destroy(f)
			h := filtertest.Fields(":path: /s.A/m?x=1", "content-type: "+tt.kind)
			if got := s.Request(f, h, []string{"h", "i"}, nil); got != tt.sent {
				t.Errorf("sent %q, want %q", got, tt.sent)
			}
			if got, _ := h.Get(":path"); got != tt.path {
				t.Errorf("path %s", got)
			}
			trailers := filtertest.Fields(tt.trailers...)
			if tt.trailers == nil {
				trailers = nil
			}
			rh := filtertest.Fields(strings.Split(tt.head, "\n")...)
			if got := s.Response(f, rh, []string{frames[:7], frames[7:]}, trailers); got != tt.wantResponse {
				t.Errorf("response %q, want %q", got, tt.wantResponse)
			}
			if got := filtertest.Text(rh); got != tt.wantHead {
				t.Errorf("head\n%s", got)
			}
		})
	}
}
