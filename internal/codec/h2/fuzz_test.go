package h2

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config/protocol"
	"sidecar/internal/wire"
)

// script makes frames of a fuzzer's bytes: four of header (type, flags, stream, length) and a payload
// that may be cut short. A type with the high bit has a well-formed payload in its place.
func script(data []byte) []byte {
	var out []byte
	for len(data) >= 4 && len(out) < 1<<16 {
		kind, flags, id, n := data[0], data[1], uint32(data[2]), int(data[3])
		data = data[4:]
		n = min(n, len(data))
		p := data[:n]
		data = data[n:]
		if kind&0x80 != 0 {
			kind &= 0x0f
			p = wellFormed(kind, id, p)
		}
		out = append(out, byte(len(p)>>16), byte(len(p)>>8), byte(len(p)), kind%12, flags)
		out = binary.BigEndian.AppendUint32(out, id)
		out = append(out, p...)
	}
	return out
}

func wellFormed(kind byte, id uint32, p []byte) []byte {
	switch kind % 12 {
	case frameHeaders, frameContinuation:
		switch len(p) % 4 {
		case 0:
			return fieldList(request("x-n=" + string('a'+rune(id%26)))...)
		case 1:
			return fieldList(":status=200", "content-length=2")
		case 2:
			return fieldList("grpc-status=0")
		}
		return fieldList(connectTo(":protocol=websocket")...)
	case frameReset, frameWindowUpdate:
		return []byte{0, 0, 0, byte(len(p))}
	case framePriority:
		return []byte{0, 0, 0, byte(len(p)), 1}
	case framePing:
		return make([]byte, 8)
	case frameGoAway:
		return []byte{0, 0, 0, byte(len(p)), 0, 0, 0, 0}
	case frameSettings:
		return []byte{0, byte(len(p) % 9), 0, 0, 0x40, byte(len(p))}
	}
	return p
}

// op is one frame of a script.
func op(kind, flags, id byte, p ...byte) []byte {
	return append([]byte{kind, flags, id, byte(len(p))}, p...)
}

func ops(list ...[]byte) (out []byte) {
	for _, o := range list {
		out = append(out, o...)
	}
	return out
}

func addScripts(f *testing.F) {
	f.Helper()
	const good = 0x80
	request := op(good|frameHeaders, 4, 1)
	whole := op(good|frameHeaders, 5, 1)
	answer := op(good|frameHeaders, 4, 1, 0)
	for _, s := range [][]byte{
		nil,
		whole,
		ops(request, op(frameData, 1, 1, 'a', 'b')),
		ops(request, op(frameData, 8, 1, 1, 'a', 0), op(good|frameHeaders, 5, 1, 0, 0)),
		ops(request, op(good|frameReset, 0, 1), op(frameData, 1, 1, 'a')),
		ops(op(good|frameHeaders, 0, 1), op(good|frameContinuation, 4, 1)),
		ops(op(good|frameHeaders, 0, 1), op(frameData, 0, 1)),
		ops(answer, op(frameData, 1, 1, 'o', 'k')),
		ops(answer, op(frameData, 0, 1, 'o'), op(good|frameHeaders, 5, 1, 0, 0)),
		ops(answer, op(good|frameGoAway, 0, 0, 0), op(frameData, 1, 1, 'o', 'k')),
		op(good|frameGoAway, 0, 0),
		ops(op(good|frameSettings, 0, 0, 0, 0, 0, 0), whole, op(good|frameWindowUpdate, 0, 1, 0)),
		ops(op(good|frameSettings, 0, 0, 0), op(frameSettings, 1, 0)),
		ops(op(good|framePing, 0, 0), op(good|framePing, 1, 0)),
		ops(op(good|framePriority, 0, 1, 1, 1), whole),
		op(framePushPromise, 4, 1, 0, 0, 0, 2),
		op(frameHeaders, 0x2c, 1, 0, 0, 0, 0, 0, 0, 0x82),
		ops(request, request),
		ops(op(good|frameHeaders, 4, 1, 0, 0, 0), op(frameData, 0, 1, 'x')),
		op(11, 0xff, 0xff, 1, 2, 3),
	} {
		f.Add(s)
	}
}

// pipe is both ends of a loopback connection, ours as a wire.Conn.
func pipe(t *testing.T) (peer *net.TCPConn, w *wire.Conn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err = net.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr)) //nolint:forcetypeassert // what it is
	if err != nil {
		t.Fatal(err)
	}
	ours, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if w, err = wire.New(ours, wire.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := peer.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return peer, w
}

// play sends all of it, reads until the other end has closed, and waits for done.
func play(t *testing.T, peer *net.TCPConn, data []byte, done <-chan struct{}) {
	t.Helper()
	defer peer.Close()
	go func() {
		_, _ = peer.Write(data) // we may have closed before
		_ = peer.CloseWrite()
	}()
	_, _ = io.Copy(io.Discard, peer)
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the connection does not end")
	}
}

// FuzzServer: whatever frames come, the connection ends with its peer's, and no stream is left.
func FuzzServer(f *testing.F) {
	addScripts(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		peer, w := pipe(t)
		o := &ServerOptions{Options: Options{HTTP2: protocol.DefaultHTTP2(), Stats: new(Stats)}}
		o.AllowConnect = true
		c := NewServerConn(w, &answering{body: []byte("ok"), hold: len(data)%3 == 0}, o)
		done := make(chan struct{})
		go func() { defer close(done); c.Serve(stream.NewTurn()) }()
		b := append([]byte(preface), 0, 0, 0, frameSettings, 0, 0, 0, 0, 0)
		play(t, peer, append(b, script(data)...), done)
		if n := o.Stats.StreamsActive.Value(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

// asker counts what comes for its streams.
type asker struct{ gone chan struct{} }

func (a *asker) OnStreamEnd(*stream.Turn)     {}
func (a *asker) OnLimit(*stream.Turn, uint32) {}
func (a *asker) OnGoAway(*stream.Turn)        {}
func (a *asker) OnGone(*stream.Turn, Gone)    { close(a.gone) }

// asked is one request: it must end once, by its response's end or by a reset.
type asked struct {
	mon  stream.Monitor
	enc  stream.Encoder
	ends int
	head bool
	bad  string
}

func (x *asked) Receive(t *stream.Turn, e *stream.Event) {
	if x.ends > 0 {
		x.bad = "an event comes after the end"
	}
	end := e.End || e.Kind == stream.EventReset || e.Kind == stream.EventTrailers
	switch e.Kind {
	case stream.EventHeaders:
		if x.head {
			x.bad = "two heads"
		}
		x.head = true
	case stream.EventData, stream.EventTrailers:
		if !x.head {
			x.bad = "data before the head"
		}
	default:
	}
	if end {
		x.ends++
		x.enc.Release(t)
	}
}

// FuzzClient: whatever an upstream sends, each stream ends once and in order.
func FuzzClient(f *testing.F) {
	addScripts(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		peer, w := pipe(t)
		o := &ClientOptions{Options{HTTP2: protocol.DefaultHTTP2(), Stats: new(Stats)}}
		h := &asker{gone: make(chan struct{})}
		c := NewClientConn(w, h, o)
		done := make(chan struct{})
		go func() { defer close(done); c.Serve() }()
		var streams [2]asked
		stream.Do(func(t *stream.Turn) {
			for i := range streams {
				x := &streams[i]
				x.enc = c.NewStream(t, stream.Target{M: &x.mon, To: x, Gen: x.mon.Gen()})
				if x.enc == nil {
					x.ends = 1
					continue
				}
				m := new(header.Map)
				for _, l := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/"}, {":authority", "a"}} {
					m.AddStatic(l[0], l[1])
				}
				x.enc.EncodeHeaders(t, m, i == 0)
			}
		})
		b := []byte{0, 0, 0, frameSettings, 0, 0, 0, 0, 0}
		play(t, peer, append(b, script(data)...), done)
		<-h.gone
		for i := range streams {
			if x := &streams[i]; x.bad != "" || x.ends != 1 {
				t.Errorf("stream %d: %d ends, %s", i, x.ends, x.bad)
			}
		}
		if n := o.Stats.StreamsActive.Value(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}
