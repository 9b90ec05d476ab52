package server

import "sync"

// shared holds what several users ask for by one key, such as the route table that many listeners
// name: it is made for the first and closed after the last. The zero value is ready.
type shared[T interface{ close() }] struct {
	mu   sync.Mutex // guards below
	held map[string]*heldOnce[T]
}

type heldOnce[T any] struct {
	value T
	uses  int
}

// acquire returns the object of the key; create makes it and must not block.
func (x *shared[T]) acquire(key string, create func() T) T {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.held[key]
	if h == nil {
		if x.held == nil {
			x.held = map[string]*heldOnce[T]{}
		}
		h = &heldOnce[T]{value: create()}
		x.held[key] = h
	}
	h.uses++
	return h.value
}

// release ends one use of the key.
func (x *shared[T]) release(key string) {
	x.mu.Lock()
	h := x.held[key]
	if h == nil {
		x.mu.Unlock()
		return
	}
	h.uses--
	last := h.uses == 0
	if last {
		delete(x.held, key)
	}
	x.mu.Unlock()
	if last {
		h.value.close()
	}
}

// list returns the objects in use, in no order.
func (x *shared[T]) list() []T {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := make([]T, 0, len(x.held))
	for _, h := range x.held {
		out = append(out, h.value)
	}
	return out
}
