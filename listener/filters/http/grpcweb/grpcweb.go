// Package grpcweb lets browsers call gRPC services (envoy.filters.http.grpc_web): the request becomes
// gRPC, and the response's trailers come as a last frame of its body. In the text form both bodies are
// in base64, which is read and written piece by piece: no message is kept whole.
package grpcweb

import (
	"bytes"
	"encoding/base64"
	"strconv"

	webv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/config"
	"sidecar/internal/grpchttp"
)

// Name is Envoy's name of the filter.
const Name = "envoy.filters.http.grpc_web"

// The content types of gRPC-Web.
const (
	binary      = "application/grpc-web"
	binaryProto = "application/grpc-web+proto"
	text        = "application/grpc-web-text"
	textProto   = "application/grpc-web-text+proto"
)

// trailerFrame is the flag of the frame that holds the trailers.
const trailerFrame = 0x80

// maxMessage bounds what of a body that isn't gRPC becomes the grpc-message, as in Envoy.
const maxMessage = 16 << 10

//nolint:gochecknoglobals // immutable tables
var (
	fields = config.Fields[*webv3.GrpcWeb]{}

	badSize = filter.Reply{
		Status: 400, Body: "Bad gRPC-web request, invalid base64 data.",
		Details: "grpc_base_64_decode_failed_bad_size", GRPCStatus: -1,
	}
	badText = filter.Reply{
		Status: 400, Body: "Bad gRPC-web request, invalid base64 data.",
		Details: "grpc_base_64_decode_failed", GRPCStatus: -1,
	}
)

// Config is a compiled filter.
type Config struct{ methods *grpchttp.Methods }

// Entry is the filter as the binary knows it.
func Entry() filter.HTTPEntry { return filter.RegisterHTTP(Name, &webv3.GrpcWeb{}, compile) }

func compile(m *webv3.GrpcWeb, c filter.Context) (any, error) {
	var errs config.Errors
	fields.Check(nil, m, &errs)
	return &Config{methods: grpchttp.NewMethods(c.Scope)}, errs.Err()
}

// Filter is one call.
type Filter struct {
	cfg   *Config
	s     filter.Stream
	stats *grpchttp.Method

	web               bool
	textIn, textOut   bool
	foreign           bool // the response is not of gRPC: its body becomes the message
	in                [4]byte
	inLen             int
	out               [3]byte
	outLen            int
	frames            grpchttp.Frames
	message           []byte
	scratch, trailers []byte
}

//nolint:gochecknoglobals // free list
var filters = buf.Pool[Filter]{New: func() *Filter { return new(Filter) }}

// NewFilter implements filter.Factory.
func (c *Config) NewFilter(s filter.Stream) any {
	f := filters.Get()
	f.cfg, f.s = c, s
	return f
}

// OnRequestHeaders makes the request one of gRPC.
func (f *Filter) OnRequestHeaders(_ *stream.Turn, h *header.Map, _ bool) filter.Action {
	switch h.Value(header.ContentType) {
	case binary, binaryProto:
	case text, textProto:
		f.textIn = true
	default:
		return filter.Continue
	}
	f.web = true
	h.RemoveID(header.ContentLength)
	f.track(h)
	h.SetStatic(header.ContentType, "application/grpc")
	if a := h.Value(header.Accept); a == text || a == textProto {
		f.textOut = true
	}
	h.SetStatic(header.TE, "trailers")
	h.Set("grpc-accept-encoding", "identity")
	return filter.Continue
}

func (f *Filter) track(h *header.Map) {
	if f.s.Route() == nil {
		return
	}
	cluster := f.s.Info().Upstream.Cluster
	if service, method, ok := grpchttp.SplitPath(h.Value(header.Path)); ok && cluster != "" {
		f.stats = f.cfg.methods.Of(cluster, "grpc-web", service, method)
	}
}

// OnRequestData decodes the text form. Four characters are three bytes; what is over waits for more.
func (f *Filter) OnRequestData(t *stream.Turn, b *buf.Buffer, end bool) filter.Action {
	if !f.textIn {
		return filter.Continue
	}
	n := f.inLen + b.Len()
	if end && n%4 != 0 {
		f.s.Reply(t, &badSize)
		return filter.Done
	}
	whole := n / 4 * 4
	f.scratch = append(append(f.scratch[:0], f.in[:f.inLen]...), b.Bytes()...)
	f.inLen = copy(f.in[:], f.scratch[whole:])
	k, err := base64.StdEncoding.Strict().Decode(f.scratch[:whole], f.scratch[:whole])
	// A decoder of bytes passes over line breaks, which are no part of the text form.
	if err != nil || bytes.ContainsAny(b.Bytes(), "\r\n") {
		f.s.Reply(t, &badText)
		return filter.Done
	}
	b.Reset()
	b.Append(f.scratch[:k])
	return filter.Continue
}

// OnRequestTrailers ends a text body that trailers follow.
func (f *Filter) OnRequestTrailers(t *stream.Turn, _ *header.Map) filter.Action {
	if f.textIn && f.inLen > 0 {
		f.s.Reply(t, &badSize)
		return filter.Done
	}
	return filter.Continue
}

// OnResponseHeaders makes the response one of gRPC-Web. One that isn't of gRPC, such as an answer of a
// proxy, becomes a head with a status; its body is the message.
func (f *Filter) OnResponseHeaders(_ *stream.Turn, h *header.Map, end bool) filter.Action {
	if !f.web {
		return filter.Continue
	}
	if f.stats != nil {
		f.stats.Charge(h)
	}
	ready := h.Value(header.Status) == "200" && (h.Value(header.ContentType) == binary || h.Value(header.ContentType) == binaryProto)
	f.foreign = !ready && !grpchttp.IsResponse(h, end)
	if f.textOut {
		h.SetStatic(header.ContentType, textProto)
	} else {
		h.SetStatic(header.ContentType, binaryProto)
	}
	switch {
	case !f.foreign:
		if !end {
			h.RemoveID(header.ContentLength) // a frame more, or base64
		}
	case end:
		f.explain()
	default:
		return filter.Hold
	}
	return filter.Continue
}

// explain puts a status and what was read of the body into the head.
func (f *Filter) explain() {
	h := f.s.Info().Response
	code, err := strconv.Atoi(h.Value(header.Status))
	if err != nil {
		code = 200
	}
	f.scratch = strconv.AppendInt(f.scratch[:0], int64(grpchttp.StatusFromHTTP(code)), 10)
	h.SetBytes(header.GrpcStatus, f.scratch)
	if len(f.message) > 0 {
		f.scratch = grpchttp.AppendMessage(f.scratch[:0], f.message)
		h.SetBytes(header.GrpcMessage, f.scratch)
	}
	h.SetStatic(header.ContentLength, "0")
}

// OnResponseData encodes the text form: each frame for its own, as Envoy does, so that a client can
// decode frame by frame.
func (f *Filter) OnResponseData(_ *stream.Turn, b *buf.Buffer, end bool) filter.Action {
	switch {
	case f.foreign:
		p := b.Bytes()
		f.message = append(f.message, p[:min(len(p), maxMessage-len(f.message))]...)
		b.Reset()
		if !end {
			return filter.Hold
		}
		f.explain()
	case f.textOut:
		f.scratch = append(f.scratch[:0], b.Bytes()...)
		b.Reset()
		f.encode(b, f.scratch)
		if end {
			f.flush(b)
		}
	}
	return filter.Continue
}

// encode appends base64 of whole groups of three bytes, and of the rest where a frame ends.
func (f *Filter) encode(b *buf.Buffer, p []byte) {
	for len(p) > 0 {
		n, end := f.frames.Next(p)
		piece := p[:n]
		p = p[n:]
		for f.outLen > 0 && f.outLen < 3 && len(piece) > 0 {
			f.out[f.outLen] = piece[0]
			f.outLen++
			piece = piece[1:]
		}
		if f.outLen == 3 {
			f.flush(b)
		}
		whole := len(piece) / 3 * 3
		base64.StdEncoding.Encode(b.Tail(whole / 3 * 4)[:whole/3*4], piece[:whole])
		b.Extend(whole / 3 * 4)
		if rest := piece[whole:]; len(rest) > 0 {
			f.outLen = copy(f.out[:], rest)
		}
		if end {
			f.flush(b)
		}
	}
}

// flush appends what waits for a third byte.
func (f *Filter) flush(b *buf.Buffer) {
	if f.outLen == 0 {
		return
	}
	base64.StdEncoding.Encode(b.Tail(4)[:4], f.out[:f.outLen])
	b.Extend(4)
	f.outLen = 0
}

// OnResponseTrailers makes the last frame of the trailers.
func (f *Filter) OnResponseTrailers(_ *stream.Turn, h *header.Map) filter.Action {
	if !f.web {
		return filter.Continue
	}
	if f.stats != nil {
		f.stats.Charge(h)
	}
	if f.foreign {
		f.explain()
	} else {
		f.lastFrame(h)
	}
	h.RemoveIf(func(header.ID, string, string) bool { return true })
	return filter.Continue
}

func (f *Filter) lastFrame(h *header.Map) {
	lines := f.trailers[:0]
	for i := range h.Len() {
		name, value := h.At(i)
		lines = append(append(append(append(lines, name...), ':'), value...), "\r\n"...)
	}
	f.trailers = lines
	frame := append(grpchttp.AppendHead(f.scratch[:0], trailerFrame, len(lines)), lines...)
	f.scratch = frame
	b := f.s.Held(filter.Response)
	if !f.textOut {
		b.Append(frame)
		return
	}
	f.flush(b)
	f.frames = grpchttp.Frames{}
	f.encode(b, frame)
}

// maxScratch is what a pooled filter keeps of its buffers.
const maxScratch = 32 << 10

// OnDestroy implements filter.Destroyer.
func (f *Filter) OnDestroy(*stream.Turn) {
	kept := [3][]byte{f.message[:0], f.scratch[:0], f.trailers[:0]}
	for i := range kept {
		if cap(kept[i]) > maxScratch {
			kept[i] = nil
		}
	}
	*f = Filter{message: kept[0], scratch: kept[1], trailers: kept[2]}
	filters.Put(f)
}
