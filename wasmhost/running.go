package wasmhost

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/internal/task"
	"sidecar/wasmhost/abi"
)

// Running is a plugin between the Warm and the Retire of the configuration that names it: what the
// factories of placements share.
type Running struct {
	// Set by NewRunning, never changed.
	host   *Host
	config *Config
	name   string
	ready  chan struct{}   // closed when the plugin serves, or won't
	ctx    context.Context //nolint:containedctx // of a fetch that goes on after Warm; ended by Retire
	stop   context.CancelFunc

	plugin atomic.Pointer[Plugin] // set once
	trial  atomic.Pointer[trial]
	once   sync.Once     // closes ready
	ended  chan struct{} // closed when the plugin serves, or when nobody tries to start it any more

	mu  sync.Mutex // guards below
	err error      // why nobody tries
	// holds are the owner's, and that of a canary that replaces it.
	holds   int
	retired bool // by the owner
}

// NewRunning is for a configuration that has compiled; name is that of the filter, by which a canary
// finds the version before it.
func NewRunning(h *Host, c *Config, name string) *Running {
	r := &Running{host: h, config: c, name: name, holds: 1, ready: make(chan struct{}), ended: make(chan struct{})}
	r.ctx, r.stop = context.WithCancel(h.ctx)
	return r
}

var (
	errRetired = errors.New("the configuration was replaced meanwhile")
	errMiss    = errors.New("its code is not in the cache, and is being fetched")
)

// Warm starts the plugin: its error is the reason to reject the configuration. Code that has to be
// fetched is not waited for (Await does): its start is then no reason any more, unless the configuration
// says that code must be there. Called once.
func (r *Running) Warm(ctx context.Context) error {
	if !r.host.atHand(r.config) {
		if !r.host.use() {
			return errRetired
		}
		if !r.config.nackOnMiss {
			r.host.registry.await(r)
		}
		task.Go("wasm fetch", func() {
			defer r.host.done.Done()
			if r.config.nackOnMiss { // The management server will ask again, with the code in the cache.
				if _, err := r.host.sources.Get(r.host.ctx, r.config.remote, false); err != nil {
					r.host.opts.Log.Error("wasm: code could not be fetched", "plugin", r.config.Name, "error", err)
				}
				return
			}
			r.fetch() //nolint:contextcheck // it goes on after Warm
		}, r.host.panicked)
		if r.config.nackOnMiss {
			return fmt.Errorf("%s: Unable to create Wasm plugin %s: %w", r.name, r.config.Name, errMiss)
		}
		return nil
	}
	defer close(r.ended)
	defer r.settled()
	p, err := r.host.Start(ctx, r.config)
	if err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	return r.serve(p)
}

func (r *Running) settled() { r.once.Do(func() { close(r.ready) }) }

// serve puts the plugin in force.
func (r *Running) serve(p *Plugin) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holds == 0 {
		p.Close()
		return errRetired
	}
	p.owner = r
	r.plugin.Store(p)
	r.host.registry.arrived(r)
	r.config.code.drop()
	r.host.enterVersion(r.name, r)
	return nil
}

// Backoff between attempts to fetch code, jittered by a fifth. DIVERGES(wasm-remote-retry): Envoy gives up
// after the attempts of the retry policy, and the plugin stays as it is.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// fetch starts the plugin once its code was fetched; it tries again until it is retired. A slow or
// failing fetch delays its own plugin only.
func (r *Running) fetch() {
	defer close(r.ended)
	defer r.settled()
	wait := firstRetry
	for fresh := false; ; fresh = true {
		p, err := r.host.open(r.ctx, r.config, fresh)
		if err == nil {
			if err = r.serve(p); err == nil {
				return
			}
		}
		if r.ctx.Err() != nil || errors.Is(err, errRetired) {
			return
		}
		r.host.registry.failed(r, err)
		r.host.opts.Log.Error("wasm: plugin could not be started", "plugin", r.config.Name, "error", err)
		if _, unfetched := errors.AsType[*FetchError](err); !unfetched {
			r.mu.Lock()
			r.err = err
			r.mu.Unlock()
			return
		}
		r.settled() // Whoever waits goes on without it, as with any failed plugin.
		if task.Sleep(r.ctx, wait+rand.N(wait/5+1)) != nil {
			return
		}
		wait = min(2*wait, lastRetry)
	}
}

// Await waits until the plugin serves, or its code could not be had at the first attempt.
func (r *Running) Await(ctx context.Context) {
	select {
	case <-r.ready:
	case <-ctx.Done():
	}
}

// Fetches tells that the code must be asked for before the plugin can start, so that Warm won't wait.
func (r *Running) Fetches() bool { return !r.config.nackOnMiss && !r.host.atHand(r.config) }

// Serving waits after Warm until the plugin serves, for as long as its code can't be had. The error is
// that of a plugin that doesn't start, or of ctx.
func (r *Running) Serving(ctx context.Context) error {
	select {
	case <-r.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.plugin.Load() != nil:
		return nil
	case r.err != nil:
		return fmt.Errorf("%s: %w", r.name, r.err)
	}
	return errRetired
}

// Missing is what a stream gets of a plugin that doesn't serve (yet).
func (r *Running) Missing() Verdict {
	switch r.config.Policy {
	case FailOpen, FailOpenLegacy:
		return Bypass
	case FailClosed, FailReload:
	}
	return Refuse
}

// hold keeps the plugin beyond its Retire; false if that was called already.
func (r *Running) hold() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holds == 0 {
		return false
	}
	r.holds++
	return true
}

// Retire lets the plugin go when its last stream has ended, unless a canary holds it. Idempotent.
func (r *Running) Retire() {
	r.mu.Lock()
	again := r.retired
	r.retired = true
	r.mu.Unlock()
	if !again {
		r.release()
	}
}

// release ends one hold; the last one closes the plugin.
func (r *Running) release() {
	r.mu.Lock()
	r.holds--
	last := r.holds == 0
	p := r.plugin.Load()
	r.mu.Unlock()
	if !last {
		return
	}
	r.host.registry.arrived(r) // It won't.
	r.stop()
	r.settled()
	if p == nil {
		return
	}
	r.host.leaveVersion(r.name, r)
	if t := r.trial.Load(); t != nil {
		t.end()
	}
	p.Close()
}

// Acquire gives the plugin for one stream, which releases it: that of the version before this one for
// a part of the streams while this one is on trial. nil if none serves (any more).
func (r *Running) Acquire() *Plugin {
	p := r.choose().plugin.Load()
	if p == nil || !p.Acquire() {
		return nil
	}
	return p
}

// Host that runs it.
func (r *Running) Host() *Host { return r.host }

// Config of the plugin.
func (r *Running) Config() *Config { return r.config }

// Plugin is the one that was started; nil before.
func (r *Running) Plugin() *Plugin { return r.plugin.Load() }

// NetworkPhases tells which callbacks of connections the plugin has.
func (p *Plugin) NetworkPhases() abi.NetworkPhases { return p.module.NetworkPhases() }
