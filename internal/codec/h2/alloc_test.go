//go:build !race && !invariant

package h2

import (
	"encoding/binary"
	"io"
	"net"
	"testing"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/codec/hpack"
)

// answerer answers every request with the same response, from one object.
type answerer struct {
	mon  stream.Monitor
	enc  stream.Encoder
	head header.Map
	body []byte
}

func (x *answerer) NewStream(_ *stream.Turn, enc stream.Encoder) stream.Target {
	x.enc = enc
	return stream.Target{M: &x.mon, To: x, Gen: x.mon.Gen()}
}

func (x *answerer) OnGone(*stream.Turn) {}

func (x *answerer) Receive(t *stream.Turn, e *stream.Event) {
	if e.Kind != stream.EventHeaders {
		return
	}
	x.enc.EncodeHeaders(t, &x.head, false)
	x.enc.EncodeData(t, x.body, true)
	x.mon.Retire()
	x.enc.Release(t)
}

// TestServerAllocs: a plain request makes no garbage.
func TestServerAllocs(t *testing.T) {
	x := &answerer{body: make([]byte, 1024)}
	x.head.Add(":status", "200")
	x.head.Add("content-type", "text/plain")
	addr := serveConns(t, func() stream.ServerHandler { return x }, &ServerOptions{Options: testOptions()})
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	var out buf.Chain
	out.AppendString(preface)
	appendFrame(&out, frameSettings, 0, 0, nil)
	appendWord(&out, frameWindowUpdate, 0, 1<<30)
	if _, err := nc.Write(out.First()); err != nil {
		t.Fatal(err)
	}
	var m header.Map
	for _, f := range [][2]string{
		{":method", "GET"},
		{":scheme", "http"},
		{":authority", "a.example"},
		{":path", "/some/path"},
		{"user-agent", "test"},
		{"accept", "*/*"},
	} {
		m.Add(f[0], f[1])
	}
	var enc hpack.Encoder
	enc.Init()
	block, answer, id := make([]byte, 0, 512), make([]byte, 32<<10), uint32(1)
	one := func() {
		block = enc.AppendMap(block[:headerSize], &m)
		putHeader(block, len(block)-headerSize, frameHeaders, flagEndHeaders|flagEndStream, id)
		if _, err := nc.Write(block); err != nil {
			t.Fatal(err)
		}
		readToEnd(t, nc, answer, id)
		id += 2
	}
	for range 50 {
		one()
	}
	if n := testing.AllocsPerRun(500, one); n > 0.1 {
		t.Errorf("%v allocations a request", n)
	}
}

// readToEnd reads frames until one ends the stream.
func readToEnd(t *testing.T, nc net.Conn, b []byte, id uint32) {
	for {
		if _, err := io.ReadFull(nc, b[:headerSize]); err != nil {
			t.Fatal(err)
		}
		n, kind, flags, got := length(b), b[3], b[4], binary.BigEndian.Uint32(b[5:])
		if _, err := io.ReadFull(nc, b[:n]); err != nil {
			t.Fatal(err)
		}
		if kind == frameReset || kind == frameGoAway {
			t.Fatalf("frame %d on stream %d", kind, got)
		}
		if got == id && kind == frameData && flags&flagEndStream != 0 {
			return
		}
	}
}
