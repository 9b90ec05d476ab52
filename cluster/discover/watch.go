package discover

import (
	"context"
	"sync"
	"time"

	"sidecar/internal/task"
)

// Watch resolves one name again and again until it is stopped. Between two lookups it is a timer, no
// goroutine.
type Watch struct {
	// Set by Start, never changed.
	ctx      context.Context //nolint:containedctx // the life of the watch
	cancel   context.CancelFunc
	resolver Resolver
	name     string
	opt      *Options
	random   func() uint64
	result   func(Answer, error)

	// Owned by the lookup under way.
	failures int

	mu      sync.Mutex // guards below
	timer   *time.Timer
	stopped bool
}

// Start begins to watch a name. attempt, if not nil, is called before each lookup and result after it,
// one at a time, on a goroutine of the watch; they must not call Stop.
func Start(ctx context.Context, r Resolver, name string, opt *Options, random func() uint64,
	attempt func(), result func(Answer, error),
) *Watch {
	w := &Watch{resolver: r, name: name, opt: opt, random: random, result: result}
	w.ctx, w.cancel = context.WithCancel(ctx)
	var lookup func()
	lookup = func() {
		if attempt != nil {
			attempt()
		}
		a, err := w.resolver.Lookup(w.ctx, w.name, w.opt.Family)
		if w.ctx.Err() != nil {
			return
		}
		w.result(a, err)
		w.again(w.next(a, err), lookup)
	}
	task.Go("dns", lookup, nil)
	return w
}

// next is how long to wait until the next lookup (StrictDnsClusterImpl::ResolveTarget).
func (w *Watch) next(a Answer, err error) time.Duration {
	d := w.opt.Refresh
	switch {
	case err != nil && w.opt.FailureBase > 0:
		d = w.backoff()
		w.failures++
		return d
	case err != nil:
		return d
	case w.opt.RespectTTL && len(a.Addrs) > 0 && a.TTL > 0:
		d = max(a.TTL, w.opt.MinRefresh)
	}
	w.failures = 0
	if w.opt.Jitter > 0 {
		d += time.Duration(w.random() % uint64(w.opt.Jitter))
	}
	return d
}

// backoff is Envoy's JitteredExponentialBackOffStrategy: between 0 and the doubled base, at most max.
func (w *Watch) backoff() time.Duration {
	ceiling := w.opt.FailureMax
	if n := w.failures; n < 32 {
		ceiling = min(ceiling, w.opt.FailureBase<<n)
	}
	if ceiling <= 0 {
		ceiling = w.opt.FailureMax
	}
	return max(time.Duration(w.random()%uint64(ceiling)), time.Millisecond)
}

func (w *Watch) again(d time.Duration, lookup func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	w.timer = time.AfterFunc(d, func() { task.Go("dns", lookup, nil) })
}

// Stop ends the watch. A lookup under way ends soon; its result may still be told.
func (w *Watch) Stop() {
	w.cancel()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.timer != nil {
		w.timer.Stop()
	}
}
