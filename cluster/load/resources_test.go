package load_test

import (
	"testing"

	"sidecar/cluster/load"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	l := load.Limits{Connections: 1, Pending: 1, Requests: 1, Retries: 1, TrackRemaining: true}
	var tr load.Traffic
	var left load.Remaining
	b := load.NewBreakers(&[2]load.Limits{l, load.DefaultLimits()}, &tr, [2]*load.Remaining{&left, nil})
	if left.Cx.Value() != 1 || left.Pending.Value() != 1 || left.Rq.Value() != 1 || left.Retries.Value() != 1 {
		t.Fatal("nothing is taken, and something is missing")
	}
	if !b.MayConnect(load.Default) {
		t.Fatal("no first connection")
	}
	b.Connection(load.Default, 1)
	if b.MayConnect(load.Default) || !b.MayConnect(load.High) {
		t.Fatal("the limit isn't that of one priority")
	}
	if !b.TakePending(load.Default) || b.TakePending(load.Default) {
		t.Fatal("pending is not limited to one")
	}
	if !b.TakeRequest(load.Default) || b.TakeRequest(load.Default) {
		t.Fatal("requests are not limited to one")
	}
	if !b.TakeRetry(load.Default) || b.TakeRetry(load.Default) {
		t.Fatal("retries are not limited to one")
	}
	o := &tr.Default
	if o.Cx.Value() != 1 || o.Pending.Value() != 1 || o.Rq.Value() != 1 || o.Retry.Value() != 1 {
		t.Fatal("the breakers are not shown open")
	}
	if left.Cx.Value() != 0 || left.Pending.Value() != 0 || left.Rq.Value() != 0 || left.Retries.Value() != 0 {
		t.Fatal("something is shown to remain")
	}
	b.Connection(load.Default, -1)
	b.GivePending(load.Default)
	b.GiveRequest(load.Default)
	b.GiveRetry(load.Default)
	if o.Cx.Value() != 0 || o.Pending.Value() != 0 || o.Rq.Value() != 0 || o.Retry.Value() != 0 {
		t.Fatal("the breakers are not shown closed")
	}
	if left.Cx.Value() != 1 || left.Pending.Value() != 1 || left.Rq.Value() != 1 || left.Retries.Value() != 1 {
		t.Fatal("what was given back is missing")
	}
}

func TestRetryBudget(t *testing.T) {
	t.Parallel()
	l := load.DefaultLimits()
	l.HasBudget, l.BudgetPercent, l.MinRetries = true, 20, 1
	var tr load.Traffic
	b := load.NewBreakers(&[2]load.Limits{l, l}, &tr, [2]*load.Remaining{})
	take := func(want int) {
		t.Helper()
		n := 0
		for b.TakeRetry(load.Default) {
			n++
		}
		if n != want {
			t.Fatalf("%d retries allowed, want %d", n, want)
		}
	}
	take(1) // the minimum
	for range 15 {
		b.TakeRequest(load.Default)
	}
	take(2) // 20 % of 15 is 3, of which one is taken
	for range 10 {
		b.TakePending(load.Default)
	}
	take(2) // 20 % of 25 is 5
}
