package wasmhost

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// Canary is a plugin's trial; the zero value is none.
type Canary struct {
	Percent         uint32
	Streams, Errors uint64
}

// Versions are the running plugins of one filter, one replacing the other. A filter's Running joins them
// when it has started, and has the one before it serve on while it is on trial itself.
type Versions struct {
	mu     sync.Mutex // guards below
	latest map[string]*Running
}

// trialState is where a trial stands.
type trialState = int32

const (
	onTrial trialState = iota
	promoted
	rolledBack
)

// trial is a Running's.
type trial struct {
	before  *Running // held until the trial has been passed, or to the end of a plugin that was rolled back
	config  Canary
	state   atomic.Int32
	served  atomic.Uint64
	failed  atomic.Uint64
	release sync.Once
}

// enterVersion makes r the latest of its filter, and starts its trial if there was one before it. It takes over
// the hold of the one before.
func (h *Host) enterVersion(key string, r *Running) {
	if key == "" { // It replaces nobody.
		return
	}
	v := &h.versions
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.latest == nil {
		v.latest = map[string]*Running{}
	}
	before := v.latest[key]
	if before != nil {
		before = before.effective()
	}
	v.latest[key] = r
	if r.config.Canary.Percent > 0 && before != nil && before != r && before.hold() {
		r.trial.Store(&trial{before: before, config: r.config.Canary})
		before.plugin.Load().note("serves on beside a canary")
		r.plugin.Load().note(fmt.Sprintf("canary: %d %% of the streams", r.config.Canary.Percent))
	}
}

// leaveVersion forgets r if it is the latest of its filter.
func (h *Host) leaveVersion(key string, r *Running) {
	v := &h.versions
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.latest[key] == r {
		delete(v.latest, key)
	}
}

// effective is the one that serves: the one before r unless r's trial is passed.
func (r *Running) effective() *Running {
	if t := r.trial.Load(); t != nil && t.state.Load() != promoted {
		return t.before
	}
	return r
}

// choose says which plugin a new stream gets.
func (r *Running) choose() *Running {
	t := r.trial.Load()
	if t == nil {
		return r
	}
	switch t.state.Load() {
	case promoted:
		return r
	case onTrial:
		if rand.Uint32N(100) < t.config.Percent {
			return r
		}
	}
	return t.before
}

// Served tells of a stream of the plugin that has ended; failed is that the plugin failed it.
func (p *Plugin) Served(failed bool) {
	if p.owner != nil {
		p.owner.served(failed)
	}
}

func (r *Running) served(failed bool) {
	t := r.trial.Load()
	if t == nil || t.state.Load() != onTrial {
		return
	}
	served := t.served.Add(1)
	if failed {
		if n := t.failed.Add(1); n > t.config.Errors && t.state.CompareAndSwap(onTrial, rolledBack) {
			why := fmt.Sprintf("canary rolled back: %d of %d streams failed, %d may: %s",
				n, served, t.config.Errors, r.plugin.Load().meter.lastFailure())
			r.plugin.Load().note(why)
			t.before.plugin.Load().note("is back: " + why)
			r.plugin.Load().stats.scope.Counter("canary_rolled_back").Inc()
			r.host.opts.Log.Error("wasm: "+why, "plugin", r.config.Name)
			return
		}
	}
	if served >= t.config.Streams && t.state.CompareAndSwap(onTrial, promoted) {
		why := fmt.Sprintf("canary passed: %d of %d streams failed", t.failed.Load(), served)
		r.plugin.Load().note(why)
		r.plugin.Load().stats.scope.Counter("canary_promoted").Inc()
		r.host.opts.Log.Info("wasm: "+why, "plugin", r.config.Name)
		t.end()
	}
}

// end lets go of the plugin before.
func (t *trial) end() { t.release.Do(t.before.release) }

// note sets what the status says of the plugin.
func (p *Plugin) note(text string) { p.status.Store(&text) }

// Status says what there is to say of the plugin beyond its serving; empty if nothing.
func (p *Plugin) Status() string {
	if s := p.status.Load(); s != nil {
		return *s
	}
	return ""
}
