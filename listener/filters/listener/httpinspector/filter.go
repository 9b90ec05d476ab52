// Package httpinspector is the listener filter envoy.filters.listener.http_inspector: it finds out
// whether a plaintext client speaks HTTP, and which, so that the application protocol can choose the
// filter chain. Nothing is taken out of the socket.
package httpinspector

import (
	"net"

	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
)

// Stats are "http_inspector.".
type Stats struct {
	ReadError stats.Counter `stat:"read_error"`
	HTTP10    stats.Counter `stat:"http10_found"`
	HTTP11    stats.Counter `stat:"http11_found"`
	HTTP2     stats.Counter `stat:"http2_found"`
	NotFound  stats.Counter `stat:"http_not_found"`
}

// Filter is the compiled filter.
type Filter struct{ stats *Stats }

// Compile makes the filter; its configuration has no fields.
func Compile(_ proto.Message, c filter.ListenerContext) (filter.ListenerFilter, error) {
	return &Filter{stats.Bind[Stats](c.Scope.Sub("http_inspector"))}, nil
}

// Entry is the filter for the table of the binary.
func Entry() filter.ListenerEntry {
	return filter.ListenerEntry{
		Name: "envoy.filters.listener.http_inspector", Config: &httpinspectorv3.HttpInspector{}, Compile: Compile,
	}
}

// OnAccept implements filter.ListenerFilter: what is TLS can't be looked into.
func (f *Filter) OnAccept(_ net.Conn, info *stream.ConnInfo) (more bool) {
	return info.TransportProtocol == "" || info.TransportProtocol == "raw_buffer"
}

// Inspect implements filter.ListenerFilter.
func (f *Filter) Inspect(p []byte, info *stream.ConnInfo) (int, filter.Verdict) {
	p = p[:min(len(p), maxInspect)]
	protocol, decided := parse(p)
	switch {
	case !decided && len(p) < maxInspect:
		return 0, filter.More
	case !decided:
		f.stats.ReadError.Inc()
		return 0, filter.Reject
	case protocol == "":
		f.stats.NotFound.Inc()
		return 0, filter.Next
	case protocol == http10:
		f.stats.HTTP10.Inc()
	case protocol == http11:
		f.stats.HTTP11.Inc()
	case protocol == http2:
		f.stats.HTTP2.Inc()
	}
	info.ALPN = protocol
	return 0, filter.Next
}
