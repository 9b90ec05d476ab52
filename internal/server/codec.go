package server

import (
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/pool"
	"sidecar/internal/codec/h1"
	"sidecar/internal/wire"
	"sidecar/listener/hcm"
)

// serverCodec returns what makes the codecs of downstream connections.
func serverCodec(o *hcm.CodecOptions) hcm.NewCodec {
	opt := serverOptions(o)
	return func(w *wire.Conn, h stream.ServerHandler, _ *stream.ConnInfo) hcm.Codec {
		return h1.NewServerConn(w, h, opt)
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
