// Package filtertest runs one HTTP filter as the connection manager does, for tests of filters.
package filtertest

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/config"
)

// Stream is the stream of one filter. Its request has a route to the cluster "c".
type Stream struct {
	Record  stream.Info
	Replied *filter.Reply // what the filter answered
	Kept    [2]buf.Buffer // what it holds
	// Policy is what the route has for the filter, Cluster where it leads to.
	Policy  any
	Cluster string

	turn *stream.Turn
}

var _ filter.Stream = (*Stream)(nil)

// NewStream makes a stream of an HTTP/1.1 client.
func NewStream() *Stream {
	s := &Stream{turn: stream.NewTurn(), Cluster: "c"}
	s.Record.Conn = &stream.ConnInfo{}
	s.Record.Protocol = stream.HTTP11
	s.Record.Upstream.Cluster = "c"
	return s
}

// Compile makes the factory of an entry with a configuration in YAML.
func Compile(tb testing.TB, e filter.HTTPEntry, store *stats.Store, yaml string) (filter.Factory, error) {
	tb.Helper()
	m := proto.Clone(e.Config)
	if _, err := config.Parse("filter", config.YAML, []byte(yaml), m, config.RejectUnknown); err != nil {
		tb.Fatal(err)
	}
	made, err := e.Compile(m, filter.Context{Scope: store.Root(), Name: e.Name})
	if err != nil {
		return nil, err
	}
	f, ok := made.(filter.Factory)
	if !ok {
		tb.Fatalf("%T is no factory", made)
	}
	return f, nil
}

// CompileRoute makes what a route has for the filter of an entry.
func CompileRoute(tb testing.TB, e filter.HTTPEntry, yaml string) any {
	tb.Helper()
	m := proto.Clone(e.Route)
	if _, err := config.Parse("filter", config.YAML, []byte(yaml), m, config.RejectUnknown); err != nil {
		tb.Fatal(err)
	}
	made, err := e.CompileRoute(m, filter.Context{Name: e.Name})
	if err != nil {
		tb.Fatal(err)
	}
	return made
}

// Fields makes a map of "name: value" lines.
func Fields(lines ...string) *header.Map {
	h := &header.Map{}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(name, value)
	}
	return h
}

// Text shows a map as lines, in its order.
func Text(h *header.Map) string {
	var b strings.Builder
	for i := range h.Len() {
		name, value := h.At(i)
		b.WriteString(name + ": " + value + "\n")
	}
	return b.String()
}

// Request shows the filter a request and returns the body that it passes on.
func (s *Stream) Request(f any, h *header.Map, chunks []string, trailers *header.Map) string {
	s.Record.Request, s.Record.RequestTrailers = h, trailers
	end := len(chunks) == 0 && trailers == nil
	if c, ok := f.(filter.RequestHeaders); ok && c.OnRequestHeaders(s.turn, h, end) == filter.Done {
		return ""
	}
	return s.body(filter.Request, chunks, trailers, func(b *buf.Buffer, end bool) filter.Action {
		if c, ok := f.(filter.RequestData); ok {
			return c.OnRequestData(s.turn, b, end)
		}
		return filter.Continue
	}, func(h *header.Map) filter.Action {
		if c, ok := f.(filter.RequestTrailers); ok {
			return c.OnRequestTrailers(s.turn, h)
		}
		return filter.Continue
	})
}

// Response shows the filter a response and returns the body that it passes on.
func (s *Stream) Response(f any, h *header.Map, chunks []string, trailers *header.Map) string {
	s.Record.Response, s.Record.ResponseTrailers = h, trailers
	end := len(chunks) == 0 && trailers == nil
	if c, ok := f.(filter.ResponseHeaders); ok && c.OnResponseHeaders(s.turn, h, end) == filter.Done {
		return ""
	}
	return s.body(filter.Response, chunks, trailers, func(b *buf.Buffer, end bool) filter.Action {
		if c, ok := f.(filter.ResponseData); ok {
			return c.OnResponseData(s.turn, b, end)
		}
		return filter.Continue
	}, func(h *header.Map) filter.Action {
		if c, ok := f.(filter.ResponseTrailers); ok {
			return c.OnResponseTrailers(s.turn, h)
		}
		return filter.Continue
	})
}

func (s *Stream) body(d filter.Direction, chunks []string, trailers *header.Map,
	data func(*buf.Buffer, bool) filter.Action, last func(*header.Map) filter.Action,
) string {
	var out strings.Builder
	b := &s.Kept[d]
	for i, c := range chunks {
		b.AppendString(c)
		switch data(b, i == len(chunks)-1 && trailers == nil) {
		case filter.Continue:
			out.Write(b.Bytes())
			b.Reset()
		case filter.Done:
			return out.String()
		case filter.Hold, filter.Wait:
		}
	}
	if trailers != nil && last(trailers) == filter.Continue {
		out.Write(b.Bytes())
		b.Reset()
	}
	return out.String()
}

// Destroy ends the filter.
func (s *Stream) Destroy(f any) {
	if d, ok := f.(filter.Destroyer); ok {
		d.OnDestroy(s.turn)
	}
}

// Info implements filter.Record.
func (s *Stream) Info() *stream.Info { return &s.Record }

// Held implements filter.Bodies.
func (s *Stream) Held(d filter.Direction) *buf.Buffer { return &s.Kept[d] }

// AddTrailers implements filter.Bodies: there are none to add.
func (s *Stream) AddTrailers(filter.Direction) *header.Map { return nil }

// Watermark implements filter.Bodies.
func (s *Stream) Watermark(*stream.Turn, filter.Direction, bool) {}

// Reply implements filter.Control.
func (s *Stream) Reply(_ *stream.Turn, r *filter.Reply) { s.Replied = r }

// Reset implements filter.Control.
func (s *Stream) Reset(*stream.Turn, *stream.Fault) {}

// Pause implements filter.Control.
func (s *Stream) Pause(filter.Direction) filter.Resume { return filter.Resume{} }

// Route implements filter.Routing.
func (s *Stream) Route() filter.Route { return route{s.Cluster} }

// ClearRouteCache implements filter.Routing.
func (s *Stream) ClearRouteCache() {}

// RouteConfig implements filter.Routing.
func (s *Stream) RouteConfig() any { return s.Policy }

type route struct{ cluster string }

func (route) Name() string          { return "r" }
func (r route) ClusterName() string { return r.cluster }
