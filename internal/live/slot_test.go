package live_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"sidecar/internal/config/source"
	"sidecar/internal/live"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type thing struct {
	id     byte
	closed atomic.Int32
}

type result struct {
	outcome live.Outcome
	err     error
}

// rig is a slot whose warming is steered by the test.
type rig struct {
	t       *testing.T
	slot    *live.Slot[*thing]
	compile int
	gates   map[byte]chan error
}

func newRig(t *testing.T, warm bool) *rig {
	t.Helper()
	r := &rig{t: t, gates: map[byte]chan error{}}
	hooks := live.Hooks[*thing]{Retire: func(v *thing) { v.closed.Add(1) }}
	if warm {
		for id := byte(1); id < 5; id++ {
			r.gates[id] = make(chan error, 1)
		}
		hooks.Warm = func(ctx context.Context, v *thing) error {
			select {
			case err := <-r.gates[v.id]:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	r.slot = live.NewSlot(hooks)
	return r
}

func (r *rig) update(id byte, err error) (*thing, chan result) {
	v, ch := &thing{id: id}, make(chan result, 1)
	r.slot.Update(r.t.Context(), resource(id), func() (*thing, error) {
		r.compile++
		return v, err
	}, func(o live.Outcome, err error) { ch <- result{o, err} })
	return v, ch
}

func (r *rig) want(ch chan result, want live.Outcome) {
	r.t.Helper()
	if got := <-ch; got.outcome != want {
		r.t.Fatalf("outcome %d (%v), want %d", got.outcome, got.err, want)
	}
}

func resource(id byte) *source.Resource { return &source.Resource{Digest: source.Digest{id}} }

func TestSlotSwapRetire(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	if r.slot.Acquire(0) != nil {
		t.Fatal("an empty slot gave a version")
	}
	one, ch := r.update(1, nil)
	r.want(ch, live.Swapped)
	pin := r.slot.Acquire(0)
	two, ch := r.update(2, nil)
	r.want(ch, live.Swapped)
	if one.closed.Load() != 0 {
		t.Fatal("closed while in use")
	}
	if !pin.Retired() || pin.Acquire(0) {
		t.Fatal("a retired version was acquired")
	}
	pin.Release(3)
	if one.closed.Load() != 1 {
		t.Fatal("not closed by the last release")
	}
	r.slot.Close()
	r.slot.Close()
	if two.closed.Load() != 1 {
		t.Fatal("not closed with the slot")
	}
	_, ch = r.update(3, nil)
	r.want(ch, live.Superseded)
}

func TestSlotUnchangedAndRejected(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	one, ch := r.update(1, nil)
	r.want(ch, live.Swapped)
	_, ch = r.update(1, nil)
	r.want(ch, live.Unchanged)
	if r.compile != 1 {
		t.Fatal("an equal version was compiled")
	}
	_, ch = r.update(2, errors.New("bad"))
	r.want(ch, live.Rejected)
	if r.slot.Load().Value != one || one.closed.Load() != 0 {
		t.Fatal("a rejected version touched the live one")
	}
}

func TestSlotWarming(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	one, first := r.update(1, nil)
	if r.slot.Load() != nil || !r.slot.Warming() {
		t.Fatal("live before it is warm")
	}
	r.gates[1] <- nil
	r.want(first, live.Swapped)

	// A newer version cancels the one that warms.
	two, second := r.update(2, nil)
	three, third := r.update(3, nil)
	r.want(second, live.Superseded)
	// An equal one joins.
	_, again := r.update(3, nil)
	r.gates[3] <- nil
	r.want(third, live.Swapped)
	r.want(again, live.Swapped)
	if one.closed.Load() != 1 || r.slot.Load().Value != three {
		t.Fatal("not swapped")
	}

	// Going back to what is live cancels too, and compiles nothing.
	before := r.compile
	_, fourth := r.update(4, nil)
	_, back := r.update(3, nil)
	r.want(fourth, live.Superseded)
	r.want(back, live.Unchanged)
	if r.compile != before+1 {
		t.Fatal("the live version was compiled again")
	}

	// A version that fails to warm leaves the live one.
	_, failed := r.update(1, nil)
	r.gates[1] <- errors.New("no")
	r.want(failed, live.Rejected)
	if r.slot.Load().Value != three || three.closed.Load() != 0 {
		t.Fatal("a failed warm touched the live version")
	}
	_, last := r.update(2, nil)
	r.slot.Close()
	r.want(last, live.Superseded)
	_ = two
}

func TestSlotWarmPanic(t *testing.T) {
	t.Parallel()
	slot := live.NewSlot(live.Hooks[int]{Warm: func(context.Context, int) error { panic("boom") }})
	ch := make(chan error, 1)
	slot.Update(t.Context(), resource(1), func() (int, error) { return 1, nil },
		func(_ live.Outcome, err error) { ch <- err })
	if err := <-ch; err == nil || !strings.Contains(err.Error(), "boom") {
		t.Fatalf("got %v", err)
	}
	if slot.Load() != nil {
		t.Fatal("a version that panicked is live")
	}
}

// TestSlotHammer checks that a version is closed exactly once, and never while it is pinned.
func TestSlotHammer(t *testing.T) {
	t.Parallel()
	for _, stripes := range []int{1, 4} {
		var made []*thing
		slot := live.NewSlot(live.Hooks[*thing]{
			Stripes: stripes, Retire: func(v *thing) { v.closed.Add(1) },
		})
		update := func(id byte) {
			v := &thing{id: id}
			made = append(made, v)
			slot.Update(t.Context(), resource(id), func() (*thing, error) { return v, nil }, nil)
		}
		update(0)
		var wg sync.WaitGroup
		var stop atomic.Bool
		for i := range uint32(4) {
			wg.Go(func() {
				for !stop.Load() {
					v := slot.Acquire(i)
					if v.Value.closed.Load() != 0 {
						t.Error("closed while pinned")
					}
					v.Release(i + 1)
				}
			})
		}
		for i := range 200 {
			update(byte(i%250) + 1)
		}
		stop.Store(true)
		wg.Wait()
		slot.Close()
		for i, v := range made {
			if n := v.closed.Load(); n != 1 {
				t.Fatalf("stripes %d: version %d closed %d times", stripes, i, n)
			}
		}
	}
}

func TestAllocsAcquire(t *testing.T) {
	slot := live.NewSlot(live.Hooks[int]{})
	slot.Update(t.Context(), resource(1), func() (int, error) { return 1, nil }, nil)
	if n := testing.AllocsPerRun(100, func() { slot.Acquire(1).Release(1) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestSlotDeliver(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	deliver := func(id byte, err error) chan error {
		ch := make(chan error, 1)
		d := source.NewDelivery(resource(id), nil, func(err error) { ch <- err })
		r.slot.Deliver(t.Context(), d, func() (*thing, error) { return &thing{id: id}, err },
			func(live.Outcome) {})
		return ch
	}
	bad := errors.New("field: bad")
	if err := <-deliver(1, bad); !errors.Is(err, bad) {
		t.Fatalf("got %v", err)
	}
	first, second := deliver(1, nil), deliver(2, nil)
	if err := <-first; err != nil {
		t.Fatalf("a superseded version was answered with %v", err)
	}
	r.gates[2] <- nil
	if err := <-second; err != nil || r.slot.Load().Resource.Digest != (source.Digest{2}) {
		t.Fatalf("got %v", err)
	}
	// What was taken away may come again.
	r.slot.Clear()
	if r.slot.Load() != nil {
		t.Fatal("still there")
	}
	again := deliver(2, nil)
	r.gates[2] <- nil
	if err := <-again; err != nil || r.slot.Load() == nil {
		t.Fatalf("got %v", err)
	}
	r.slot.Close()
}
