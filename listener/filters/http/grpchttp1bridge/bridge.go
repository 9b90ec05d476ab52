// Package grpchttp1bridge lets HTTP/1.1 clients, which see no trailers, call gRPC services
// (envoy.filters.http.grpc_http1_bridge): the response waits for its trailers, whose status then goes
// into the head. Whole messages are kept, up to the buffer limit of the stream.
package grpchttp1bridge

import (
	"strconv"
	"strings"

	bridgev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_http1_bridge/v3"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/config"
	"sidecar/internal/grpchttp"
)

// Name is Envoy's name of the filter.
const Name = "envoy.filters.http.grpc_http1_bridge"

//nolint:gochecknoglobals // immutable table
var fields = config.Fields[*bridgev3.Config]{Used: "upgrade_protobuf_to_grpc ignore_query_parameters"}

// Config is a compiled filter.
type Config struct {
	methods              *grpchttp.Methods
	upgrade, ignoreQuery bool
}

// Entry is the filter as the binary knows it.
func Entry() filter.HTTPEntry { return filter.RegisterHTTP(Name, &bridgev3.Config{}, compile) }

func compile(m *bridgev3.Config, c filter.Context) (any, error) {
	var errs config.Errors
	fields.Check(nil, m, &errs)
	return &Config{
		methods: grpchttp.NewMethods(c.Scope),
		upgrade: m.GetUpgradeProtobufToGrpc(), ignoreQuery: m.GetIgnoreQueryParameters(),
	}, errs.Err()
}

// Filter is one call.
type Filter struct {
	cfg     *Config
	s       filter.Stream
	stats   *grpchttp.Method
	bridged bool // the response waits for its trailers
	framed  bool // bodies of the client are bare messages
}

//nolint:gochecknoglobals // free list
var filters = buf.Pool[Filter]{New: func() *Filter { return new(Filter) }}

// NewFilter implements filter.Factory.
func (c *Config) NewFilter(s filter.Stream) any {
	f := filters.Get()
	f.cfg, f.s = c, s
	return f
}

// OnRequestHeaders finds out whether the request is one to bridge.
func (f *Filter) OnRequestHeaders(_ *stream.Turn, h *header.Map, _ bool) filter.Action {
	if f.cfg.upgrade && h.Value(header.ContentType) == "application/x-protobuf" {
		f.framed = true
		h.SetStatic(header.ContentType, "application/grpc")
		h.RemoveID(header.ContentLength) // the frame comes on top
	}
	if !grpchttp.IsRequest(h) {
		return filter.Continue
	}
	f.track(h)
	if f.s.Info().Protocol >= stream.HTTP2 {
		return filter.Continue
	}
	f.bridged = true
	if path := h.Value(header.Path); f.cfg.ignoreQuery {
		if bare, _, ok := strings.Cut(path, "?"); ok {
			h.SetID(header.Path, bare)
		}
	}
	return filter.Continue
}

func (f *Filter) track(h *header.Map) {
	if f.s.Route() == nil {
		return
	}
	cluster := f.s.Info().Upstream.Cluster
	if service, method, ok := grpchttp.SplitPath(h.Value(header.Path)); ok && cluster != "" {
		f.stats = f.cfg.methods.Of(cluster, "grpc", service, method)
	}
}

// OnRequestData puts a message into its frame, once it is whole.
func (f *Filter) OnRequestData(_ *stream.Turn, b *buf.Buffer, end bool) filter.Action {
	if !f.framed {
		return filter.Continue
	}
	if !end {
		return filter.Hold
	}
	frame(b)
	return filter.Continue
}

// OnRequestTrailers does the same for a message that trailers follow.
func (f *Filter) OnRequestTrailers(*stream.Turn, *header.Map) filter.Action {
	if f.framed {
		frame(f.s.Held(filter.Request))
	}
	return filter.Continue
}

func frame(b *buf.Buffer) {
	var head [grpchttp.HeadSize]byte
	b.Prepend(grpchttp.AppendHead(head[:0], 0, b.Len()))
}

// OnResponseHeaders holds the head until the status is known.
func (f *Filter) OnResponseHeaders(_ *stream.Turn, h *header.Map, end bool) filter.Action {
	if f.stats != nil {
		f.stats.Charge(h)
	}
	if !f.bridged || end {
		return filter.Continue
	}
	return filter.Hold
}

// OnResponseData holds the body with it. A body without trailers is none of gRPC, and passes.
func (f *Filter) OnResponseData(_ *stream.Turn, _ *buf.Buffer, end bool) filter.Action {
	if !f.bridged || end {
		return filter.Continue
	}
	return filter.Hold
}

// OnResponseTrailers puts the status into the head; a call that failed is a 503 to a client that
// doesn't look at it.
func (f *Filter) OnResponseTrailers(_ *stream.Turn, h *header.Map) filter.Action {
	if f.stats != nil {
		f.stats.Charge(h)
	}
	if !f.bridged {
		return filter.Continue
	}
	b, head := f.s.Held(filter.Response), f.s.Info().Response
	if f.framed {
		b.Consume(min(b.Len(), grpchttp.HeadSize))
	}
	if v, ok := h.GetID(header.GrpcStatus); ok {
		if n, err := strconv.ParseUint(v, 10, 64); err != nil || n != 0 {
			head.SetStatic(header.Status, "503")
		}
		head.SetID(header.GrpcStatus, v)
	}
	if v, ok := h.GetID(header.GrpcMessage); ok {
		head.SetID(header.GrpcMessage, v)
	}
	// Known now, and so a client can tell a response that breaks off.
	var n [20]byte
	head.SetBytes(header.ContentLength, strconv.AppendInt(n[:0], int64(b.Len()), 10))
	return filter.Continue
}

// OnDestroy implements filter.Destroyer.
func (f *Filter) OnDestroy(*stream.Turn) {
	*f = Filter{}
	filters.Put(f)
}
