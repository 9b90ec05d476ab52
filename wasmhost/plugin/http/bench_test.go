package http_test

import (
	"testing"

	"sidecar/api/stream"
)

// BenchmarkRequest is a request with some headers through the connection manager and one plugin.
func BenchmarkRequest(b *testing.B) {
	for _, bc := range []struct{ name, plugin string }{
		{"http_headers", "http_headers"}, {"version", "version"},
	} {
		b.Run(bc.name, func(b *testing.B) {
			p := newProxy(b, settings{file: needPlugin(b, bc.plugin), configuration: "v1"})
			t := stream.NewTurn()
			x := &exchange{p: p, pipe: new(pipe)}
			b.ReportAllocs()
			for b.Loop() {
				x.request.Reset()
				for _, f := range [][2]string{
					{":method", "GET"},
					{":path", "/path"},
					{":authority", "host"},
					{":scheme", "http"},
					{"user-agent", "bench"},
					{"accept", "*/*"},
					{"x-forwarded-proto", "http"},
					{"x-request-id", "4"},
				} {
					x.request.AddStatic(f[0], f[1])
				}
				x.done = make(chan struct{})
				x.headers = x.headers[:0]
				x.pipe.reset(x)
				x.pipe.target().Post(t, stream.Event{Kind: stream.EventHeaders, Map: &x.request, End: true})
				t.End()
				<-x.done
			}
		})
	}
}
