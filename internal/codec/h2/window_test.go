package h2

import (
	"testing"

	"golang.org/x/net/http2"

	"sidecar/api/stream"
)

// slow pauses each stream whose number is in it until its channel gets what unpauses it, and takes the
// data of the others.
type slow map[int]chan func()

func (h slow) NewStream(_ *stream.Turn, enc stream.Encoder) stream.Target {
	x := &slowStream{enc: enc}
	s, ok := enc.(*Stream)
	if ok {
		x.release = h[int(s.id)]
	}
	return stream.Target{M: &x.mon, To: x, Gen: x.mon.Gen()}
}

func (slow) OnGone(*stream.Turn) {}

type slowStream struct {
	mon     stream.Monitor
	enc     stream.Encoder
	release chan func()
}

func (x *slowStream) Receive(t *stream.Turn, e *stream.Event) {
	switch e.Kind {
	case stream.EventHeaders:
		if x.release != nil {
			x.enc.Pause(t, true)
			x.release <- func() { stream.Do(func(t *stream.Turn) { x.enc.Pause(t, false) }) }
		}
	case stream.EventReset:
		x.mon.Retire()
		x.enc.Release(t)
	}
}

// windows follows what a peer may send on each stream.
type windows struct {
	*attack
	initial int64
	streams map[uint32]int64
	settled int // SETTINGS seen
}

// until reads frames until done.
func (w *windows) until(t *testing.T, done func() bool) {
	t.Helper()
	for !done() {
		f, err := w.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if v, ok := f.Value(http2.SettingInitialWindowSize); ok && !f.IsAck() {
				w.settled++
				for id := range w.streams {
					w.streams[id] += int64(v) - w.initial
				}
				w.initial = int64(v)
			}
		case *http2.WindowUpdateFrame:
			w.streams[f.StreamID] += int64(f.Increment)
		}
	}
}

// begin begins a request and sends n bytes of it.
func (w *windows) begin(t *testing.T, id uint32, n int) {
	t.Helper()
	w.get(t, id, false)
	w.streams[id] = w.initial
	w.data(t, id, n)
}

func (w *windows) data(t *testing.T, id uint32, n int) {
	t.Helper()
	for p := make([]byte, minMaxFrame); n > 0; n -= len(p) {
		p = p[:min(n, len(p))]
		w.must(t, w.WriteData(id, false, p))
		w.streams[id] -= int64(len(p))
	}
	w.send()
}

// A stream that takes nothing has the windows of all taken back; those that take what comes can still
// be sent to, the slow one when it goes on, and what is sent beyond it once the peer has agreed is an
// error.
func TestWindowsTakenBack(t *testing.T) {
	t.Parallel()
	h := slow{3: make(chan func(), 1), 7: make(chan func(), 1)}
	w := &windows{attack: newAttack(t, h, nil), streams: map[uint32]int64{}}
	w.send()
	w.until(t, func() bool { return w.settled == 1 })
	w.must(t, w.WriteSettingsAck())
	w.begin(t, 1, 3<<19)
	w.begin(t, 3, tightenAt)
	resume := <-h[3]
	w.until(t, func() bool { return w.settled == 2 })
	if w.initial < slowLeast || w.initial > slowMost {
		t.Errorf("initial window %d", w.initial)
	}
	w.until(t, func() bool { return w.streams[1] > 0 })
	// As a peer that has not seen the SETTINGS yet.
	w.data(t, 3, 1<<20)
	w.must(t, w.WriteSettingsAck())
	w.begin(t, 5, int(w.initial))
	w.until(t, func() bool { return w.streams[5] > 0 })
	if w.streams[3] > 0 {
		t.Errorf("the slow stream may send %d", w.streams[3])
	}
	resume()
	w.until(t, func() bool { return w.streams[3] > 0 })
	if w.streams[3] > slowMost {
		t.Errorf("the slow stream may send %d", w.streams[3])
	}
	w.begin(t, 7, int(w.initial)+1)
	if code, _ := w.end(t); code != int(http2.ErrCodeFlowControl) {
		t.Errorf("code %d for more than the window", code)
	}
}
