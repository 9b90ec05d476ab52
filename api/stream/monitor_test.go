package stream

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const wait = 10 * time.Second

// receiver runs a function for each event, and fails when it is entered twice at a time.
type receiver struct {
	t      testing.TB
	mon    *Monitor
	inside atomic.Bool
	f      func(t *Turn, e *Event)
	count  atomic.Int64
}

func newReceiver(tb testing.TB, f func(t *Turn, e *Event)) *receiver {
	tb.Helper()
	return &receiver{t: tb, mon: new(Monitor), f: f}
}

func (r *receiver) Receive(t *Turn, e *Event) {
	if r.inside.Swap(true) {
		r.t.Error("two events of one stream at a time")
	}
	if t.current != r.mon {
		r.t.Error("the goroutine is inside another stream")
	}
	if r.f != nil {
		r.f(t, e)
	}
	r.count.Add(1)
	r.inside.Store(false)
}

func (r *receiver) target() Target { return Target{M: r.mon, To: r, Gen: r.mon.Gen()} }

func TestPostRunsAtOnce(t *testing.T) {
	t.Parallel()
	turn := NewTurn()
	var got string
	r := newReceiver(t, func(_ *Turn, e *Event) { got += string(e.Data) })
	r.target().Post(turn, Event{Data: []byte("a")})
	if got != "a" {
		t.Errorf("%q", got)
	}
	Target{}.Post(turn, Event{Data: []byte("dropped")})
	turn.End()
}

// TestPostFromInside: what is posted inside a stream runs after the event, in order, and for another
// stream after the stream was left.
func TestPostFromInside(t *testing.T) {
	t.Parallel()
	turn := NewTurn()
	var log []string
	other := newReceiver(t, func(_ *Turn, e *Event) { log = append(log, "other "+string(e.Data)) })
	var r *receiver
	r = newReceiver(t, func(turn *Turn, e *Event) {
		log = append(log, string(e.Data))
		if string(e.Data) != "first" {
			return
		}
		buf := []byte("2")
		other.target().Post(turn, Event{Data: buf})
		r.target().Post(turn, Event{Data: buf})
		turn.Later(func(turn *Turn) {
			log = append(log, "later")
			r.target().Post(turn, Event{Data: []byte("3")})
		})
		buf[0] = 'x' // the poster's again
		log = append(log, "end of first")
	})
	r.target().Post(turn, Event{Data: []byte("first")})
	if got, want := fmt.Sprint(log), "[first end of first 2 other 2 later 3]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	turn.Later(func(*Turn) { log = append(log, "at once") })
	if log[len(log)-1] != "at once" {
		t.Error("Later outside a stream doesn't run at once")
	}
}

func TestGenerations(t *testing.T) {
	t.Parallel()
	turn := NewTurn()
	n := 0
	var r *receiver
	r = newReceiver(t, func(turn *Turn, e *Event) {
		n++
		if e.Kind == EventFinish {
			r.target().Post(turn, Event{Data: []byte("queued before the end")})
			r.mon.Retire()
			r.target().Post(turn, Event{}) // of the next use
		}
	})
	old := r.target()
	old.Post(turn, Event{Kind: EventFinish})
	old.Post(turn, Event{})
	if n != 2 {
		t.Errorf("%d events, want the end and that of the next use", n)
	}
}

// TestRunLimit: a goroutine that has run a stream for long enough leaves the rest to another one.
func TestRunLimit(t *testing.T) {
	t.Parallel()
	turn := NewTurn()
	var r *receiver
	var foreign atomic.Int64
	done := make(chan struct{})
	r = newReceiver(t, func(x *Turn, e *Event) {
		if e.Kind == EventCall {
			for range 3 * runLimit {
				r.target().Post(x, Event{Kind: EventData})
			}
			r.target().Post(x, Event{Kind: EventFinish})
			return
		}
		if x != turn {
			foreign.Add(1)
		}
		if e.Kind == EventFinish {
			close(done)
		}
	})
	r.target().Post(turn, Event{Kind: EventCall})
	if n := r.count.Load(); n > runLimit+1 && foreign.Load() == 0 {
		t.Errorf("%d events in one go", n)
	}
	select {
	case <-done:
	case <-time.After(wait):
		t.Fatal("events are stranded")
	}
	if foreign.Load() == 0 {
		t.Error("nothing was handed over")
	}
}

// TestWaitRoom: a reader waits while its stream is busy with more than the limit.
func TestWaitRoom(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	r := newReceiver(t, func(_ *Turn, e *Event) {
		if e.Kind == EventCall {
			close(entered)
			<-release
		}
	})
	var wg sync.WaitGroup
	wg.Go(func() { Do(func(turn *Turn) { r.target().Post(turn, Event{Kind: EventCall}) }) })
	<-entered
	turn := NewTurn()
	block := make([]byte, queueLimit/2+1)
	r.target().Post(turn, Event{Kind: EventData, Data: block})
	if !r.mon.HasRoom() {
		t.Error("no room for half the limit")
	}
	r.mon.WaitRoom()
	r.target().Post(turn, Event{Kind: EventData, Data: block})
	if r.mon.HasRoom() {
		t.Error("room over the limit")
	}
	returned := make(chan struct{})
	wg.Go(func() { r.mon.WaitRoom(); close(returned) })
	select {
	case <-returned:
		t.Error("didn't wait")
	default:
	}
	close(release)
	select {
	case <-returned:
	case <-time.After(wait):
		t.Fatal("waits for ever")
	}
	wg.Wait()
}

// TestNotifyRoom: whoever cannot wait is called once there is room, outside the stream.
func TestNotifyRoom(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	r := newReceiver(t, func(_ *Turn, e *Event) {
		if e.Kind == EventCall {
			close(entered)
			<-release
		}
	})
	var wg sync.WaitGroup
	wg.Go(func() { Do(func(turn *Turn) { r.target().Post(turn, Event{Kind: EventCall}) }) })
	<-entered
	turn := NewTurn()
	called := make(chan struct{})
	f := func(turn *Turn) {
		if turn.current != nil || !r.mon.HasRoom() {
			t.Error("called inside a stream, or without room")
		}
		close(called)
	}
	if r.mon.NotifyRoom(f) {
		t.Error("notes a call with an empty mailbox")
	}
	r.target().Post(turn, Event{Kind: EventData, Data: make([]byte, queueLimit+1)})
	if !r.mon.NotifyRoom(f) {
		t.Error("takes a full mailbox for one with room")
	}
	close(release)
	select {
	case <-called:
	case <-time.After(wait):
		t.Fatal("not called")
	}
	wg.Wait()
}

func TestPanic(t *testing.T) {
	t.Parallel()
	turn := NewTurn()
	var caught any
	r := newReceiver(t, nil)
	r.f = func(_ *Turn, e *Event) {
		if e.Kind == EventCall {
			r.inside.Store(false)
			panic("x")
		}
	}
	r.mon.OnPanic = func(_ *Turn, v any) { caught = v }
	r.target().Post(turn, Event{Kind: EventCall})
	r.target().Post(turn, Event{Kind: EventData})
	if caught != "x" || r.count.Load() != 1 {
		t.Errorf("caught %v, %d events after it", caught, r.count.Load())
	}
	r.mon.OnPanic = nil
	defer func() {
		if recover() != "x" {
			t.Error("swallowed without a handler")
		}
	}()
	r.target().Post(NewTurn(), Event{Kind: EventCall})
}

// TestInterleavings lets goroutines post to streams that post to each other. No two events of a stream
// overlap, none is lost, and nobody is ever inside two streams.
func TestInterleavings(t *testing.T) {
	t.Parallel()
	const streams, posters, posts = 8, 8, 200
	rs := make([]*receiver, streams)
	for i := range rs {
		rs[i] = newReceiver(t, nil)
		rs[i].f = func(turn *Turn, e *Event) {
			if n := e.Seq - 1; n > 0 {
				rs[rand.IntN(streams)].target().Post(turn, Event{Kind: EventData, Seq: n, Data: []byte{byte(n)}})
			}
		}
	}
	var wg sync.WaitGroup
	for range posters {
		wg.Go(func() {
			turn := NewTurn()
			for range posts {
				rs[rand.IntN(streams)].target().Post(turn, Event{Kind: EventData, Seq: 4})
				turn.End()
			}
		})
	}
	wg.Wait()
	deadline := time.Now().Add(wait)
	for time.Now().Before(deadline) {
		total := int64(0)
		for _, r := range rs {
			total += r.count.Load()
		}
		if total == posters*posts*4 {
			return
		}
		if total > posters*posts*4 {
			t.Fatalf("%d events", total)
		}
		runtime.Gosched() // what was handed over goes on
	}
	t.Fatal("events were lost")
}

type flusher struct {
	shared  bool
	flushed int
	f       func(t *Turn)
}

func (f *flusher) Flush(t *Turn) {
	f.flushed++
	if f.f != nil {
		f.f(t)
	}
}
func (f *flusher) Shared() bool { return f.shared }

func TestTurnEnd(t *testing.T) {
	t.Parallel()
	turn := NewTurn()
	second := &flusher{shared: true}
	r := newReceiver(t, func(turn *Turn, _ *Event) { turn.Dirty(second) })
	first := &flusher{f: func(turn *Turn) { r.target().Post(turn, Event{}) }}
	turn.Dirty(first)
	now := turn.Now()
	if turn.Now() != now {
		t.Error("the clock is read twice in a turn")
	}
	turn.End()
	if first.flushed != 1 || second.flushed != 1 {
		t.Errorf("flushed %d and %d times", first.flushed, second.flushed)
	}
	turn.End()
	if first.flushed != 1 {
		t.Error("flushed again")
	}
	if turn.Nano() <= 0 || turn.Now().Before(now) {
		t.Error("the clock went back")
	}
}

func TestPostAllocs(t *testing.T) {
	turn := NewTurn()
	r := &receiver{t: t, mon: new(Monitor)}
	x := r.target()
	data := []byte("x")
	if n := testing.AllocsPerRun(200, func() {
		x.Post(turn, Event{Kind: EventData, Data: data})
		turn.End()
	}); n > 0 {
		t.Errorf("%v allocations a post", n)
	}
}
