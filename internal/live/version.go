package live

import (
	"sync/atomic"

	"sidecar/internal/config/source"
)

// Version is one compiled version of a resource, with the count of those who use it.
type Version[T any] struct {
	// Set before the version goes live, never changed.
	Value T
	// Resource is what Value was compiled from, for config_dump.
	Resource *source.Resource
	retire   func(T)

	// The users are counted in stripes so that cores don't fight for one cache line. The sum means
	// something only once dead is set: from then on no count can grow for good.
	dead    atomic.Bool
	closed  atomic.Bool
	first   stripe
	stripes []stripe // of more than one; first is unused then
}

// stripe fills a cache line.
type stripe struct {
	n atomic.Int64
	_ [56]byte
}

func (v *Version[T]) stripe(hint uint32) *atomic.Int64 {
	if len(v.stripes) == 0 {
		return &v.first.n
	}
	return &v.stripes[hint%uint32(len(v.stripes))].n
}

// Acquire pins the version; false means that it is retired and the slot must be loaded again. hint
// picks the stripe (a connection's number, say). Each Acquire that returned true is matched by one
// Release with the same or any other hint.
func (v *Version[T]) Acquire(hint uint32) bool {
	n := v.stripe(hint)
	n.Add(1)
	if !v.dead.Load() {
		return true
	}
	// Taken back from the same stripe: a sum never sees the one without the other.
	n.Add(-1)
	v.closeIfUnused()
	return false
}

// Release undoes one Acquire. The last one after the version was retired closes it, on the caller's
// goroutine.
func (v *Version[T]) Release(hint uint32) {
	v.stripe(hint).Add(-1)
	if v.dead.Load() {
		v.closeIfUnused()
	}
}

// Retired tells whether another version took the place of this one.
func (v *Version[T]) Retired() bool { return v.dead.Load() }

// Users counts those who pin the version; it is exact when nobody comes or goes meanwhile.
func (v *Version[T]) Users() int64 {
	if len(v.stripes) == 0 {
		return v.first.n.Load()
	}
	var sum int64
	for i := range v.stripes {
		sum += v.stripes[i].n.Load()
	}
	return sum
}

func (v *Version[T]) kill() {
	v.dead.Store(true)
	v.closeIfUnused()
}

func (v *Version[T]) closeIfUnused() {
	if v.Users() != 0 || !v.closed.CompareAndSwap(false, true) {
		return
	}
	if v.retire != nil {
		v.retire(v.Value)
	}
}
