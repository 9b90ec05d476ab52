package cluster

import (
	"runtime"
	"sync"
	"weak"
)

// interner keeps one copy of equal values for as long as anybody holds it.
type interner[K comparable, V any] struct {
	mu sync.Mutex // guards below; a leaf
	m  map[K]weak.Pointer[V]
}

// get returns the value of key, made by make when nobody holds one. What it returns must not be
// changed.
func (i *interner[K, V]) get(key K, make func() *V) *V {
	i.mu.Lock()
	defer i.mu.Unlock()
	if v := i.m[key].Value(); v != nil {
		return v
	}
	v := make()
	if i.m == nil {
		i.m = map[K]weak.Pointer[V]{}
	}
	i.m[key] = weak.Make(v)
	runtime.AddCleanup(v, i.forget, key)
	return v
}

// forget drops a key whose value was collected, unless it has got a new one meanwhile.
func (i *interner[K, V]) forget(key K) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if w, ok := i.m[key]; ok && w.Value() == nil {
		delete(i.m, key)
	}
}
