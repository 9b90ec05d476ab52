package transport

import (
	"math/rand/v2"
	"time"
)

// Envoy's defaults for xDS streams.
const (
	DefaultBackOffBase = 500 * time.Millisecond
	DefaultBackOffMax  = 30 * time.Second
)

// backOff is Envoy's fully jittered exponential back-off: a random time below base, 2 base, 4 base
// and so on up to max.
type backOff struct {
	base, max, next time.Duration
}

func newBackOff(base, limit time.Duration) backOff {
	if base <= 0 {
		base = DefaultBackOffBase
	}
	if limit < base {
		limit = max(base, DefaultBackOffMax)
	}
	return backOff{base: base, max: limit, next: base}
}

func (b *backOff) wait() time.Duration {
	d := rand.N(b.next)
	b.next = min(2*b.next, b.max)
	return d
}

func (b *backOff) reset() { b.next = b.base }
