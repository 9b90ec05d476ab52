package server

import (
	"sync"

	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/pool"
	"sidecar/internal/codec/h1"
	"sidecar/internal/codec/h2"
	"sidecar/internal/wire"
	"sidecar/listener/hcm"
)

// serverCodec returns what makes the codecs of downstream connections.
func (s *Server) serverCodec(o *hcm.CodecOptions) hcm.NewCodec {
	f := &codecs{one: serverOptions(o), two: s.serverOptions2(o)}
	kind := o.Type
	return func(w *wire.Conn, h stream.ServerHandler, info *stream.ConnInfo) hcm.Codec {
		switch {
		case kind == hcm.CodecHTTP1:
			return f.http1(w, h)
		case kind == hcm.CodecHTTP2:
			return f.http2(w, h)
		case info.TLS != nil && info.TLS.ALPN == alpnHTTP2:
			return f.http2(w, h)
		case info.TLS != nil && info.TLS.ALPN == alpnHTTP1:
			return f.http1(w, h)
		}
		return &autoCodec{codecs: f, w: w, h: h}
	}
}

// The application protocols that choose a codec (ALPN).
const (
	alpnHTTP1 = "http/1.1"
	alpnHTTP2 = "h2"
)

// codecs are the options of both versions of one connection manager.
type codecs struct {
	one *h1.ServerOptions
	two *h2.ServerOptions
}

func (f *codecs) http1(w *wire.Conn, h stream.ServerHandler) hcm.Codec {
	return h1.NewServerConn(w, h, f.one)
}

func (f *codecs) http2(w *wire.Conn, h stream.ServerHandler) hcm.Codec {
	return h2.NewServerConn(w, h, f.two)
}

func (s *Server) serverOptions2(o *hcm.CodecOptions) *h2.ServerOptions {
	return &h2.ServerOptions{
		Options: h2.Options{
			HTTP2: o.HTTP2, MaxHeadersBytes: o.MaxHeadersBytes, MaxHeaders: o.MaxHeaders,
			Stats: stats.Bind[h2.Stats](s.scope.Sub("http2")), FlushTimeout: o.StreamFlushTimeout,
		},
		RejectUnderscores: o.RejectUnderscores, DropUnderscores: o.DropUnderscores,
		Proxy100Continue: o.Proxy100Continue, DelayedCloseTimeout: o.DelayedCloseTimeout,
		DelayedCloseExpired: o.DelayedCloseExpired, ProtocolError: o.ProtocolError,
	}
}

func serverOptions(o *hcm.CodecOptions) *h1.ServerOptions {
	return &h1.ServerOptions{
		Options: h1.Options{
			MaxHeadersBytes: o.MaxHeadersBytes, MaxHeaders: o.MaxHeaders, EnableTrailers: o.EnableTrailers,
			AllowChunkedLength: o.AllowChunkedLength, ProperCase: o.ProperCase, PreserveCase: o.PreserveCase,
			Strict: o.Strict,
		},
		AllowAbsoluteURL: o.AllowAbsoluteURL, AcceptHTTP10: o.AcceptHTTP10, DefaultHost: o.DefaultHost,
		AllowCustomMethods: o.AllowCustomMethods, RejectUnderscores: o.RejectUnderscores,
		DropUnderscores: o.DropUnderscores, Proxy100Continue: o.Proxy100Continue,
		IgnoreUpgrade:       o.IgnoreUpgrade,
		DelayedCloseTimeout: o.DelayedCloseTimeout, DelayedCloseExpired: o.DelayedCloseExpired,
	}
}

// newClientCodec makes the codec of an upstream connection.
func newClientCodec(w *wire.Conn, o *cluster.HTTPOptions, h pool.Handler) pool.Codec {
	return h1.NewClientConn(w, clientHandler{h}, &h1.ClientOptions{Options: h1.Options{
		ProperCase: o.ProperCase, PreserveCase: o.PreserveCase, EnableTrailers: o.Trailers,
		MaxHeaders: int(o.MaxResponseHeaders), MaxHeadersBytes: int(o.MaxResponseHeadersKB) << 10,
	}})
}

// clientHandler lets a pool listen to a codec.
type clientHandler struct{ h pool.Handler }

// OnIdle implements h1.ClientHandler.
func (c clientHandler) OnIdle(t *stream.Turn) { c.h.OnIdle(t) }

// OnGone implements h1.ClientHandler.
func (c clientHandler) OnGone(t *stream.Turn, g h1.Gone) { c.h.OnGone(t, pool.Gone(g)) }

// newHTTP2Client returns what makes the HTTP/2 codecs of one cluster's connections. Their stats are
// bound with the first.
func newHTTP2Client(o *cluster.HTTPOptions, scope *stats.Scope) func(*wire.Conn, pool.Handler) pool.Codec {
	options := sync.OnceValue(func() *h2.ClientOptions {
		return &h2.ClientOptions{Options: h2.Options{
			HTTP2: o.Protocol, MaxHeaders: int(o.MaxResponseHeaders),
			MaxHeadersBytes: int(o.MaxResponseHeadersKB) << 10, Stats: stats.Bind[h2.Stats](scope.Sub("http2")),
		}}
	})
	return func(w *wire.Conn, h pool.Handler) pool.Codec {
		return h2.NewClientConn(w, http2Handler{h}, options())
	}
}

// http2Handler lets a pool listen to a codec of HTTP/2.
type http2Handler struct{ h pool.Handler }

// OnStreamEnd implements h2.ClientHandler.
func (c http2Handler) OnStreamEnd(t *stream.Turn) { c.h.OnStreamEnd(t) }

// OnLimit implements h2.ClientHandler.
func (c http2Handler) OnLimit(t *stream.Turn, n uint32) { c.h.OnLimit(t, n) }

// OnGoAway implements h2.ClientHandler.
func (c http2Handler) OnGoAway(t *stream.Turn) { c.h.OnGoAway(t) }

// OnGone implements h2.ClientHandler.
func (c http2Handler) OnGone(t *stream.Turn, g h2.Gone) { c.h.OnGone(t, pool.Gone(g)) }
