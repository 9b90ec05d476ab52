package server_test

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// pingPeer is a server of HTTP/2 that answers every request with 200 and tells of the frames HEADERS and
// PING as they come; it answers PINGs while ack is set.
func pingPeer(t *testing.T, ack bool) (addr string, seen chan http2.FrameType) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	seen = make(chan http2.FrameType, 64)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := io.CopyN(io.Discard, c, int64(len(http2.ClientPreface))); err != nil {
					return
				}
				fr := http2.NewFramer(c, c)
				_ = fr.WriteSettings()
				for {
					f, err := fr.ReadFrame()
					if err != nil {
						return
					}
					switch f := f.(type) {
					case *http2.HeadersFrame:
						seen <- http2.FrameHeaders
						var b bytes.Buffer
						_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
						_ = fr.WriteHeaders(http2.HeadersFrameParam{
							StreamID: f.StreamID, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: true,
						})
					case *http2.PingFrame:
						if !f.IsAck() {
							seen <- http2.FramePing
							if ack {
								_ = fr.WritePing(true, f.Data)
							}
						}
					case *http2.SettingsFrame:
						if !f.IsAck() {
							_ = fr.WriteSettingsAck()
						}
					}
				}
			}()
		}
	}()
	return ln.Addr().String(), seen
}

const idlePing = `
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options: {connection_keepalive: {connection_idle_interval: 0.05s, timeout: 0.2s}}
`

// TestIdlePing has a connection that was silent for long asked whether it is still there before a request
// goes over it.
func TestIdlePing(t *testing.T) {
	t.Parallel()
	addr, seen := pingPeer(t, true)
	p := live(t, versions(addr, false, "")+idlePing)
	l := p.listener("l")
	for i, want := range []http2.FrameType{http2.FrameHeaders, http2.FramePing, http2.FrameHeaders} {
		if i == 1 {
			idle := time.Now()
			p.wait("silence", func() bool { return time.Since(idle) > 100*time.Millisecond })
		}
		if i < 2 {
			if a := p.get(l, "/"); a.status != 200 {
				t.Fatalf("got %d %q", a.status, a.body)
			}
		}
		if got := <-seen; got != want {
			t.Errorf("frame %d is %v, want %v", i, got, want)
		}
	}
	if n := p.stat("cluster.c.upstream_cx_total"); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestIdlePing_Dead closes a connection whose peer does not answer.
func TestIdlePing_Dead(t *testing.T) {
	t.Parallel()
	addr, _ := pingPeer(t, false)
	p := live(t, versions(addr, false, "")+idlePing)
	l := p.listener("l")
	p.get(l, "/")
	idle := time.Now()
	p.wait("silence", func() bool { return time.Since(idle) > 100*time.Millisecond })
	p.get(l, "/")
	p.waitStat("cluster.c.http2.keepalive_timeout", 1)
	p.waitStat("cluster.c.upstream_cx_destroy_local", 1)
}
