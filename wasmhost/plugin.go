package wasmhost

import (
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/task"
	"sidecar/wasmhost/abi"
)

// Plugin is a running plugin: a pool of VMs that were started and configured alike.
type Plugin struct {
	// Set by newPlugin, never changed.
	host   *Host
	config *Config
	module *abi.Module
	stats  pluginStats
	custom *stats.Scope
	meter  *meter
	digest [sha256.Size]byte // of the code
	refs   atomic.Int64      // the owner's, and one for each stream
	starts sync.WaitGroup
	drains sync.WaitGroup // VMs that were replaced and have not ended
	iso    *isolation     // nil: streams share VMs

	owner  *Running // nil: nobody's; set before it serves
	status atomic.Pointer[string]
	lines  lines

	running int // guests that run now; guarded by gate.mu

	mu      sync.Mutex // guards below
	vms     []*VM
	next    int // where the search for a free VM starts
	pending int // VMs that are being made, or will be when a backoff is over
	waits   int // streams that found no free VM since the last VM was made
	broken  bool
	closing bool
	timers  map[*time.Timer]struct{}
	ages    map[*time.Timer]struct{} // timers that no start is pending for
}

type pluginStats struct {
	scope, vmScope                                  *stats.Scope
	reloadBackoff, reloadSuccess, reloadFailure     *stats.Counter
	created                                         *stats.Counter
	active                                          *stats.Gauge
	traps, deadlines, overloads, bypassed, refusals *stats.Counter
	recycled, discarded, dropped                    *stats.Counter
}

// growAfter is how many streams must have waited before a plugin gets another VM.
const growAfter = 32

func newPlugin(h *Host, c *Config, m *abi.Module, digest [sha256.Size]byte) *Plugin {
	scope := h.opts.Stats.Scope("wasm." + c.Name)
	vmScope := h.opts.Stats.Scope("wasm." + c.Runtime)
	p := &Plugin{
		host: h, config: c, module: m, digest: digest, custom: h.opts.Stats.Scope("wasmcustom"),
		timers: map[*time.Timer]struct{}{}, ages: map[*time.Timer]struct{}{},
		stats: pluginStats{
			scope: scope, vmScope: vmScope,
			reloadBackoff: scope.Counter("vm_reload_backoff"), reloadSuccess: scope.Counter("vm_reload_success"),
			reloadFailure: scope.Counter("vm_reload_failure"),
			traps:         scope.Counter("vm_failures"), deadlines: scope.Counter("vm_deadline_exceeded"),
			overloads: scope.Counter("vm_queue_overflow"), bypassed: scope.Counter("bypassed"),
			refusals: scope.Counter("refused"),
			recycled: scope.Counter("vm_recycled"), discarded: scope.Counter("vm_discarded"),
			dropped: scope.Counter("log_lines_dropped"),
			created: vmScope.Counter("created"), active: vmScope.Gauge("active"),
		},
	}
	p.meter = newMeter(scope)
	p.refs.Store(1)
	if c.Isolated {
		p.iso = &isolation{}
	}
	return p
}

// Config of the plugin.
func (p *Plugin) Config() *Config { return p.config }

// Phases tells which stream callbacks the plugin has.
func (p *Plugin) Phases() abi.Phases { return p.module.Phases() }

// Failed tells that no VM serves now: what a new stream would get is up to the policy.
func (p *Plugin) Failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken || len(p.vms) == 0
}

// Close retires the plugin: streams that it has go on, and when the last has ended its VMs run on_done
// and on_delete. It doesn't wait for them; Host.Close does.
func (p *Plugin) Close() {
	p.mu.Lock()
	p.closing = true
	for t := range p.timers {
		if t.Stop() {
			p.pending--
			p.starts.Done()
		}
	}
	clear(p.timers)
	for t := range p.ages {
		t.Stop()
	}
	clear(p.ages)
	p.mu.Unlock()
	p.unref()
}

func (p *Plugin) unref() {
	if p.refs.Add(-1) == 0 {
		task.Go("wasm plugin end", p.end, p.host.panicked)
	}
}

// end shuts the VMs down and frees what is left.
func (p *Plugin) end() {
	p.starts.Wait() // None begins after Close.
	p.mu.Lock()
	vms := p.vms
	p.vms = nil
	p.mu.Unlock()
	for _, v := range vms {
		v.shutDown()
	}
	for _, v := range vms {
		<-v.gone
	}
	p.drains.Wait()
	if p.iso != nil {
		p.iso.end()
	}
	p.free()
	p.host.done.Done()
}

func (p *Plugin) free() {
	p.host.registry.remove(p)
	p.module.Close()
	p.host.release(p.digest)
	p.host.shared.Release(p.config.VMID)
	p.custom.Close()
	p.stats.scope.Close()
	p.stats.vmScope.Close()
}

// pick takes the VM that a new stream is bound to: a free one, else that with the shortest queue. nil
// means that none serves.
func (p *Plugin) pick() *VM {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken {
		return nil
	}
	var best *VM
	var least int32
	for i := range p.vms {
		v := p.vms[(p.next+i)%len(p.vms)]
		load := v.load.Load()
		if best == nil || load < least {
			best, least = v, load
		}
		if load == 0 {
			break
		}
	}
	if best != nil && least > 0 {
		p.next++
		if p.waits++; p.waits >= growAfter && len(p.vms)+p.pending < p.host.opts.Concurrency && !p.closing &&
			p.iso == nil {
			p.waits = 0
			p.pending++
			p.starts.Add(1)
			task.Go("wasm vm start", p.grow, p.host.panicked)
		}
	}
	return best
}

// grow adds a VM. Its failure is logged: the others go on serving.
func (p *Plugin) grow() {
	v, err := p.startVM(context.Background()) //nolint:forbidigo // bounded by the start deadline; Close waits
	if err != nil {
		p.host.opts.Log.Error("wasm: another VM could not be started", "plugin", p.config.Name, "error", err)
	}
	p.add(v)
}

// add takes the outcome of a pending start into the pool.
func (p *Plugin) add(v *VM) {
	p.mu.Lock()
	p.pending--
	if v != nil {
		p.vms = append(p.vms, v)
	}
	p.mu.Unlock()
	if v != nil {
		p.serves(v)
	}
	p.starts.Done()
}

// serves is called once a VM is in the pool.
func (p *Plugin) serves(v *VM) {
	if p.iso != nil {
		p.iso.serveFrom(v)
	}
	p.watchAge(v)
}

// failed is told of a VM that trapped, by its user.
func (p *Plugin) failed(v *VM, err error) {
	p.host.opts.Log.Error("wasm: plugin failed", "plugin", p.config.Name, "root_id", p.config.RootID,
		"callback", callbackOf(err), "request_id", v.requestID(), "error", err, "trace", trace(err))
	if v.isClone { // A failure of its stream alone.
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, w := range p.vms {
		if w == v {
			p.vms = append(p.vms[:i], p.vms[i+1:]...)
			break
		}
	}
	switch p.config.Policy {
	case FailClosed:
		p.broken = true
	case FailReload:
		p.reloadLater()
	case FailOpen, FailOpenLegacy:
	}
}

// reloadLater starts the replacement when the backoff, jittered by up to a fifth, is over. It holds mu.
func (p *Plugin) reloadLater() {
	if p.closing {
		return
	}
	p.pending++
	p.starts.Add(1)
	base := p.config.ReloadBackoff
	var t *time.Timer
	started := make(chan struct{})
	t = time.AfterFunc(base+rand.N(base/5+1), func() {
		<-started
		p.mu.Lock()
		delete(p.timers, t)
		p.mu.Unlock()
		task.Go("wasm vm reload", p.reload, p.host.panicked)
	})
	p.timers[t] = struct{}{}
	close(started)
}

func (p *Plugin) reload() {
	v, err := p.startVM(context.Background()) //nolint:forbidigo // bounded by the start deadline; Close waits
	if err != nil {
		p.stats.reloadFailure.Inc()
		p.host.opts.Log.Error("wasm: plugin could not be reloaded", "plugin", p.config.Name, "error", err)
		p.mu.Lock()
		p.reloadLater()
		p.mu.Unlock()
	} else {
		p.stats.reloadSuccess.Inc()
	}
	p.add(v)
}

// startVM makes a VM and runs it up to on_configure. It waits for one of the places for starts, so
// that a start never takes one from the request path.
func (p *Plugin) startVM(ctx context.Context) (*VM, error) {
	select {
	case p.host.starts <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-p.host.starts }()
	v, err := newVM(p)
	if err != nil {
		return nil, err
	}
	p.stats.created.Inc()
	p.stats.active.Inc()
	stream.Do(func(t *stream.Turn) { err = v.start(ctx, t) })
	if err != nil {
		v.discard(err)
		return nil, err
	}
	return v, nil
}

var (
	errVMStart   = errors.New("on_vm_start returned false")
	errConfigure = errors.New("on_configure returned false: the plugin refused its configuration")
)
