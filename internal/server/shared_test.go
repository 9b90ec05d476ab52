package server

import "testing"

type closed struct{ n *int }

func (c closed) close() { *c.n++ }

func TestShared(t *testing.T) {
	t.Parallel()
	var x shared[closed]
	made, ends := 0, 0
	create := func() closed { made++; return closed{&ends} }
	x.acquire("a", create)
	x.acquire("a", create)
	x.acquire("b", create)
	if made != 2 || len(x.list()) != 2 {
		t.Errorf("%d made, %d listed, want 2 and 2", made, len(x.list()))
	}
	x.release("a")
	if ends != 0 {
		t.Error("closed while in use")
	}
	x.release("a")
	x.release("a") // one too many does nothing
	if ends != 1 || len(x.list()) != 1 {
		t.Errorf("%d closed, %d listed, want 1 and 1", ends, len(x.list()))
	}
	x.acquire("a", create)
	if made != 3 {
		t.Error("a key that was closed was not made again")
	}
}
