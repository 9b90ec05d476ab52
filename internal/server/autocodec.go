package server

import (
	"sync"

	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/wire"
	"sidecar/listener/hcm"
)

// autoCodec serves a connection of which nothing tells the version: its first bytes are compared with
// the preface of HTTP/2, as Envoy does (ConnectionManagerUtility::determineNextProtocol).
type autoCodec struct {
	// Set when it is made, never changed.
	*codecs
	w *wire.Conn
	h stream.ServerHandler

	mu    sync.Mutex // guards below; nothing is called while it is held
	codec hcm.Codec  // nil until the version is known
	local bool
}

// http2Magic is as much of the preface as decides: a client that goes on with something else is none of
// HTTP/1 (Http2::CLIENT_MAGIC_PREFIX).
const http2Magic = "PRI * HTTP/2"

// Serve implements hcm.Codec.
func (c *autoCodec) Serve(t *stream.Turn) {
	if !c.sniff() {
		c.w.Close()
		c.w.Release()
		c.h.OnGone(t)
		t.End()
		return
	}
	c.chosen().Serve(t)
}

// sniff reads until the version is known; false means that the connection has ended.
func (c *autoCodec) sniff() bool {
	var first buf.Buffer
	defer first.Reset()
	always := func() bool { return true }
	for {
		b, n, err := c.w.Read(buf.Small, always)
		if err != nil {
			return false
		}
		first.Append(b.B[:n])
		b.Put()
		p := first.Bytes()
		k := min(len(p), len(http2Magic))
		switch {
		case string(p[:k]) != http2Magic[:k]:
			c.choose(c.http1(c.w, c.h))
		case k == len(http2Magic):
			c.choose(c.http2(c.w, c.h))
		default:
			continue
		}
		c.w.Preload(p)
		return true
	}
}

func (c *autoCodec) choose(x hcm.Codec) {
	c.mu.Lock()
	c.codec = x
	c.mu.Unlock()
}

func (c *autoCodec) chosen() hcm.Codec {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.codec
}

// Close implements hcm.Codec.
func (c *autoCodec) Close(t *stream.Turn) {
	c.mu.Lock()
	x := c.codec
	c.local = c.local || x == nil
	c.mu.Unlock()
	if x == nil {
		c.w.Close()
		return
	}
	x.Close(t)
}

// Local implements hcm.Codec.
func (c *autoCodec) Local() bool {
	c.mu.Lock()
	x, local := c.codec, c.local
	c.mu.Unlock()
	return local || x != nil && x.Local()
}

// Drain implements hcm.Codec.
func (c *autoCodec) Drain(t *stream.Turn) {
	if x := c.chosen(); x != nil {
		x.Drain(t)
	}
}

// GoAway implements hcm.Codec.
func (c *autoCodec) GoAway(t *stream.Turn) {
	if x := c.chosen(); x != nil {
		x.GoAway(t)
	}
}
