package h2

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config/protocol"
	"sidecar/internal/wire"
)

// answering answers each request with 200 and a body as soon as its head is read; held ones are never
// answered.
type answering struct {
	body []byte
	hold bool
}

func (h *answering) NewStream(_ *stream.Turn, enc stream.Encoder) stream.Target {
	x := &answered{h: h, enc: enc}
	return stream.Target{M: &x.mon, To: x, Gen: x.mon.Gen()}
}

func (h *answering) OnGone(*stream.Turn) {}

type answered struct {
	mon  stream.Monitor
	h    *answering
	enc  stream.Encoder
	over bool
}

func (x *answered) Receive(t *stream.Turn, e *stream.Event) {
	if x.over {
		return
	}
	switch e.Kind {
	case stream.EventHeaders:
		if x.h.hold {
			return
		}
		m := new(header.Map)
		m.AddStatic(":status", "200")
		x.enc.EncodeHeaders(t, m, false)
		x.enc.EncodeData(t, x.h.body, true)
	case stream.EventReset:
	default:
		return
	}
	x.over = true
	x.mon.Retire()
	x.enc.Release(t)
}

// attack is one connection of a hostile client to a ServerConn of its own.
type attack struct {
	*http2.Framer
	nc    net.Conn
	out   bytes.Buffer // frames are collected, and sent as one
	next  uint32       // number of a stream
	stats *Stats
}

func newAttack(t testing.TB, h stream.ServerHandler, set func(*ServerOptions)) *attack {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	down, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	w, err := wire.New(down, wire.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := &ServerOptions{Options: Options{HTTP2: protocol.DefaultHTTP2(), Stats: new(Stats)}}
	o.DelayedCloseTimeout = time.Second
	if set != nil {
		set(o)
	}
	c := NewServerConn(w, h, o)
	done := make(chan struct{})
	go func() { defer close(done); c.Serve(stream.NewTurn()) }()
	t.Cleanup(func() {
		_ = nc.Close()
		stream.Do(c.Close)
		<-done
	})
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	a := &attack{nc: nc, stats: o.Stats}
	a.Framer = http2.NewFramer(&a.out, nc)
	a.AllowIllegalWrites = true
	a.out.WriteString(http2.ClientPreface)
	a.must(t, a.WriteSettings())
	return a
}

func (a *attack) must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// get begins stream id with a request.
func (a *attack) get(t testing.TB, id uint32, end bool) {
	t.Helper()
	a.must(t, a.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: fieldList(request()...),
	}))
}

// send writes what was collected. The server may have closed meanwhile.
func (a *attack) send() {
	_, _ = a.nc.Write(a.out.Bytes())
	a.out.Reset()
}

// end reads until the connection ends and returns the code of GOAWAY, or -1, and how many frames of
// each type came.
func (a *attack) end(t testing.TB) (code int, frames map[http2.FrameType]int) {
	t.Helper()
	code, frames = -1, map[http2.FrameType]int{}
	for {
		f, err := a.ReadFrame()
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("the connection goes on")
			}
			return code, frames
		}
		frames[f.Header().Type]++
		if g, ok := f.(*http2.GoAwayFrame); ok {
			code = int(g.ErrCode)
		}
	}
}

// Floods that end the connection, with the default limits.
func TestFloods(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		hold  bool
		flood func(t testing.TB, a *attack)
		want  int // the code of the GOAWAY, -1 for none
		stat  func(*Stats) *stats.Counter
	}{
		{"rapid reset", true, func(t testing.TB, a *attack) {
			t.Helper()
			for i := range uint32(1100) {
				a.get(t, 2*i+1, true)
				a.must(t, a.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
			}
		}, int(http2.ErrCodeInternal), nil},
		{"CONTINUATION", false, func(t testing.TB, a *attack) {
			t.Helper()
			a.must(t, a.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fieldList(request()...)}))
			for i := range 1100 {
				a.must(t, a.WriteContinuation(1, false, fieldList(fmt.Sprintf("h%d=v", i))))
			}
		}, -1, nil},
		{"empty CONTINUATION", false, func(t testing.TB, a *attack) {
			t.Helper()
			a.must(t, a.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fieldList(request()...)}))
			for range 3 {
				a.must(t, a.WriteContinuation(1, false, nil))
			}
		}, -1, func(s *Stats) *stats.Counter { return &s.EmptyFramesFlood }},
		{"empty DATA", true, func(t testing.TB, a *attack) {
			t.Helper()
			a.get(t, 1, false)
			for range 3 {
				a.must(t, a.WriteData(1, false, nil))
			}
		}, -1, func(s *Stats) *stats.Counter { return &s.EmptyFramesFlood }},
		{"PRIORITY", true, func(t testing.TB, a *attack) {
			t.Helper()
			for i := range uint32(250) {
				a.must(t, a.WritePriority(2*i+1, http2.PriorityParam{Weight: 1}))
			}
		}, -1, func(s *Stats) *stats.Counter { return &s.PriorityFlood }},
		{"WINDOW_UPDATE", true, func(t testing.TB, a *attack) {
			t.Helper()
			a.get(t, 1, true)
			for range 50 {
				a.must(t, a.WriteWindowUpdate(0, 1))
			}
		}, -1, func(s *Stats) *stats.Counter { return &s.WindowUpdateFlood }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a := newAttack(t, &answering{hold: tc.hold, body: []byte("ok")}, nil)
			tc.flood(t, a)
			a.send()
			if code, _ := a.end(t); code != tc.want {
				t.Errorf("ended with %d, want %d", code, tc.want)
			}
			if tc.stat != nil {
				if n := tc.stat(a.stats).Value(); n != 1 {
					t.Errorf("counted %d", n)
				}
			}
		})
	}
}

// What stays below the limits is served.
func TestBelowFloods(t *testing.T) {
	t.Parallel()
	a := newAttack(t, &answering{body: []byte("ok")}, nil)
	for i := range uint32(90) {
		a.must(t, a.WritePriority(1001+2*i, http2.PriorityParam{Weight: 1}))
	}
	a.must(t, a.WriteWindowUpdate(0, 1))
	a.must(t, a.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fieldList(request()...)}))
	for i := range 5 {
		a.must(t, a.WriteContinuation(1, i == 4, fieldList(fmt.Sprintf("h%d=v", i))))
	}
	a.must(t, a.WriteData(1, false, nil))
	a.must(t, a.WriteData(1, true, nil))
	a.send()
	for {
		f, err := a.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := f.(*http2.DataFrame); ok {
			if string(d.Data()) != "ok" || !d.StreamEnded() {
				t.Errorf("got %q", d.Data())
			}
			return
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			t.Fatalf("GOAWAY %v", g.ErrCode)
		}
	}
}

// A peer that makes us answer and reads nothing is cut off once as much waits as may.
func TestControlBacklog(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		frame func(a *attack) error
	}{
		{"PING", func(a *attack) error { return a.WritePing(false, [8]byte{1}) }},
		{"SETTINGS", func(a *attack) error { return a.WriteSettings() }},
		{"RST_STREAM", func(a *attack) error {
			id := a.next
			a.next += 2
			fields := fieldList(append(request(), "content-length=1")...)
			err := a.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: fields, EndHeaders: true})
			return errors.Join(err, a.WriteData(id, false, []byte("ab")))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a := newAttack(t, &answering{body: []byte("ok")}, func(o *ServerOptions) {
				o.MaxWindowUpdatePerData = 1 << 30
			})
			a.get(t, 1, true)
			a.send()
			for a.next = 3; a.stats.OutboundControlFlood.Value() == 0; a.out.Reset() {
				for range 5000 {
					a.must(t, tc.frame(a))
				}
				if _, err := a.nc.Write(a.out.Bytes()); err != nil {
					break
				}
			}
			a.end(t)
			if n := a.stats.OutboundControlFlood.Value(); n != 1 {
				t.Errorf("counted %d", n)
			}
		})
	}
}

// Too large a head costs its stream; the tables stay in step, and the connection goes on.
func TestHeaderLimits(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		fields []string
		stat   func(*Stats) *stats.Counter
	}{
		{"count", request(many(150)...), func(s *Stats) *stats.Counter { return &s.HeaderOverflow }},
		{
			"size", request("a="+strings.Repeat("v", 15000), "b="+strings.Repeat("w", 15000),
				"c="+strings.Repeat("x", 15000), "d="+strings.Repeat("y", 15000), "e="+strings.Repeat("z", 15000)),
			func(s *Stats) *stats.Counter { return &s.HeaderListSize },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a := newAttack(t, &answering{body: []byte("ok")}, nil)
			block := fieldList(tc.fields...)
			first := min(len(block), 16000)
			a.must(t, a.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 1, EndStream: true, EndHeaders: first == len(block), BlockFragment: block[:first],
			}))
			for block = block[first:]; len(block) > 0; {
				n := min(len(block), 16000)
				a.must(t, a.WriteContinuation(1, n == len(block), block[:n]))
				block = block[n:]
			}
			// The newest entry of the table, by its index, with a request around it.
			a.must(t, a.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 3, EndStream: true, EndHeaders: true, BlockFragment: []byte{0x82, 0x84, 0x86, 0x01, 0x01, 'a'},
			}))
			a.send()
			var reset, answer bool
			for !answer {
				f, err := a.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				switch f := f.(type) {
				case *http2.RSTStreamFrame:
					reset = f.StreamID == 1 && f.ErrCode == http2.ErrCodeInternal
				case *http2.DataFrame:
					answer = f.StreamID == 3
				case *http2.GoAwayFrame:
					t.Fatalf("GOAWAY %v", f.ErrCode)
				}
			}
			if !reset || tc.stat(a.stats).Value() != 1 {
				t.Errorf("reset %v, counted %d", reset, tc.stat(a.stats).Value())
			}
		})
	}
}

// A client that opens no window holds what is bounded, and only until the flush timeout.
func TestTinyWindow(t *testing.T) {
	t.Parallel()
	a := newAttack(t, &answering{body: bytes.Repeat([]byte("b"), 100)}, func(o *ServerOptions) {
		o.FlushTimeout = 50 * time.Millisecond
	})
	a.must(t, a.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}))
	a.get(t, 1, true)
	a.send()
	for {
		f, err := a.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if r, ok := f.(*http2.RSTStreamFrame); ok && r.StreamID == 1 {
			break
		}
	}
	if n := a.stats.TxFlushTimeout.Value(); n != 1 {
		t.Errorf("counted %d", n)
	}
	if n := a.stats.PendingSendBytes.Value(); n != 0 {
		t.Errorf("%d bytes still wait", n)
	}
}
