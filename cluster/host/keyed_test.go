package host_test

import (
	"fmt"
	"testing"

	"sidecar/api/stream"
	"sidecar/cluster/host"
)

// fakePool is a pool that is as idle as it is told.
type fakePool struct{ idle, retired, drained bool }

func (p *fakePool) Drain(bool)    { p.drained = true }
func (p *fakePool) CloseRaw()     {}
func (p *fakePool) Close()        {}
func (p *fakePool) Idle() bool    { return p.idle }
func (p *fakePool) Retired() bool { return p.retired }

func TestKeyedPool(t *testing.T) {
	t.Parallel()
	h := host.New(stream.Addr{}, "", nil, &host.Attributes{})
	get := func(key string) *fakePool {
		p, _ := h.KeyedPool([]byte(key), func(string) host.KeyedPool { return &fakePool{} }).(*fakePool)
		return p
	}
	a := get("a")
	if get("a") != a || get("b") == a {
		t.Error("pools are not kept apart by key")
	}
	a.retired = true
	again := get("a")
	if again == a {
		t.Error("a retired pool is handed out")
	}
	h.DropPool("a", a)
	if get("a") != again {
		t.Error("the retired pool has taken its successor with it")
	}
	h.DropPool("a", again)
	if get("a") == again {
		t.Error("a pool that was dropped is handed out")
	}
}

func TestKeyedPool_Bound(t *testing.T) {
	t.Parallel()
	h := host.New(stream.Addr{}, "", nil, &host.Attributes{})
	var one *fakePool
	get := func(key string) host.KeyedPool {
		return h.KeyedPool([]byte(key), func(string) host.KeyedPool {
			one = &fakePool{}
			return one
		})
	}
	var first *fakePool
	for i := range host.MaxKeyedPools {
		if get(fmt.Sprint(i)) == nil {
			t.Fatalf("no pool %d", i)
		}
		if i == 0 {
			first = one
		}
	}
	if get("more") != nil {
		t.Error("one too many, though each is in use")
	}
	first.idle = true
	if get("more") == nil || !first.drained {
		t.Error("an idle pool makes no room")
	}
	h.Drain(true)
	if one.drained = false; get("late") != nil {
		t.Error("there is room for another one")
	}
	one.idle = true
	if get("late") == nil || !one.drained {
		t.Error("a pool of a host that was removed keeps its connections")
	}
}
