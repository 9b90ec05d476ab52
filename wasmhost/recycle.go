package wasmhost

import (
	"context"
	"time"

	"sidecar/api/stream"
	"sidecar/internal/task"
)

// Recycling says when a VM is replaced by a new one; 0 is no reason.
type Recycling struct {
	Streams     uint64
	Age         time.Duration
	MemoryBytes int64
}

// retryRecycling is how long a VM goes on whose replacement could not be started.
const retryRecycling = time.Minute

// watchAge has the VM replaced when it is old.
func (p *Plugin) watchAge(v *VM) {
	if age := p.config.Recycling.Age; age > 0 {
		p.later(age, func() { p.replace(v, "age") })
	}
}

// later runs f after a time unless the plugin is closed before.
func (p *Plugin) later(after time.Duration, f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return
	}
	var t *time.Timer
	started := make(chan struct{})
	t = time.AfterFunc(after, func() {
		<-started
		p.mu.Lock()
		delete(p.ages, t)
		p.mu.Unlock()
		f()
	})
	p.ages[t] = struct{}{}
	close(started)
}

// replace starts another VM in v's place, off the data path. v serves on until that does, and then to
// the end of the streams that it has.
func (p *Plugin) replace(v *VM, reason string) {
	p.mu.Lock()
	serves := false
	for _, w := range p.vms {
		serves = serves || w == v
	}
	if p.closing || v.replacing || !serves {
		p.mu.Unlock()
		return
	}
	v.replacing = true
	p.pending++
	p.starts.Add(1)
	p.mu.Unlock()
	task.Go("wasm vm recycling", func() {
		defer p.starts.Done()
		n, err := p.startVM(context.Background()) //nolint:forbidigo // bounded by the start deadline; Close waits
		p.mu.Lock()
		p.pending--
		if err != nil {
			p.mu.Unlock()
			p.host.opts.Log.Error("wasm: a VM could not be replaced", "plugin", p.config.Name, "reason", reason, "error", err)
			p.later(retryRecycling, func() {
				p.mu.Lock()
				v.replacing = false
				p.mu.Unlock()
				p.replace(v, reason)
			})
			return
		}
		found := false
		for i, w := range p.vms {
			if w == v {
				p.vms[i], found = n, true
			}
		}
		if !found { // It has failed meanwhile; whatever the policy, there is one that serves.
			p.vms = append(p.vms, n)
		}
		p.mu.Unlock()
		p.serves(n)
		p.stats.recycled.Inc()
		p.host.opts.Log.Debug("wasm: a VM was replaced", "plugin", p.config.Name, "reason", reason)
		if found {
			p.drains.Add(1)
			v.drain()
		}
	}, p.host.panicked)
}

// drain ends the VM with its last stream.
func (v *VM) drain() {
	v.mu.Lock()
	v.draining = true
	idle := len(v.streams) == 0
	if idle {
		v.draining = false
	}
	v.drained = true
	v.mu.Unlock()
	if idle {
		v.shutDown()
	}
}

// endDrain is called when a stream has left the VM: true if it was the last one of a VM that drains. It
// holds mu.
func (v *VM) endDrain() bool {
	if !v.draining || len(v.streams) > 0 {
		return false
	}
	v.draining = false
	return true
}

// grewTo notes the size of the memory, and has the VM replaced when it is too large.
func (v *VM) grewTo(bytes int64) {
	v.memory.Store(bytes)
	if limit := v.plugin.config.Recycling.MemoryBytes; limit > 0 && bytes >= limit && !v.isClone && !v.large {
		v.large = true
		v.Defer(func(*stream.Turn) { v.plugin.replace(v, "memory") })
	}
}
