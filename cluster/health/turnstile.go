package health

import "sync"

// Turnstile lets a bounded number of checks run at a time: a process that learns of thousands of hosts
// at once must not dial them all at once. The zero value lets none through.
type Turnstile struct {
	mu     sync.Mutex // guards below; a leaf
	room   int
	queued []func()
}

// NewTurnstile lets n checks run at a time.
func NewTurnstile(n int) *Turnstile { return &Turnstile{room: n} }

// enter runs f, now or when there is room; leave is called when what f has begun is over.
func (x *Turnstile) enter(f func()) {
	x.mu.Lock()
	if x.room == 0 {
		x.queued = append(x.queued, f)
		x.mu.Unlock()
		return
	}
	x.room--
	x.mu.Unlock()
	f()
}

// leave returns what waits for the place that has become free, to be run outside of streams and
// locks; nil for nothing.
func (x *Turnstile) leave() func() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.queued) == 0 {
		x.room++
		x.queued = nil
		return nil
	}
	f := x.queued[0]
	x.queued = x.queued[1:]
	return f
}
