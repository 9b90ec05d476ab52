package wasmhost

import (
	"context"
	"errors"
	"fmt"

	"sidecar/api/stream"
	"sidecar/wasmhost/abi"
)

// LogRoot runs on_log on the plugin's root context with the data of c: now if a VM is free, else later
// with what keep gives, since the data of c holds only during the call. It doesn't block. The plugin must
// be acquired.
func (p *Plugin) LogRoot(t *stream.Turn, c abi.Context, keep func() abi.Context) {
	v := p.pick()
	if v == nil {
		p.stats.refusals.Inc()
		return
	}
	if v.TryEnter(t) {
		v.conclude(t, v.abi.Log(c, rootContext))
		return
	}
	kept := keep()
	v.Do(t, "on_log", func() error { return v.abi.Log(kept, rootContext) })
}

// UpdateStats runs envoy_on_stats_update in one of the plugin's VMs, when that is free.
func (p *Plugin) UpdateStats(block []byte) {
	v := p.pick()
	if v == nil {
		p.stats.refusals.Inc()
		return
	}
	stream.Do(func(t *stream.Turn) {
		v.Do(t, "envoy_on_stats_update", func() error { return v.abi.StatsUpdate(&v.root, rootContext, block) })
	})
}

// Fill starts VMs until there are n: for a plugin that runs in each worker without being asked.
func (p *Plugin) Fill(ctx context.Context, n int) error {
	for {
		p.mu.Lock()
		enough := len(p.vms)+p.pending >= n || p.closing
		if !enough {
			p.pending++
			p.starts.Add(1)
		}
		p.mu.Unlock()
		if enough {
			return nil
		}
		v, err := p.startVM(ctx)
		p.add(v)
		if err != nil {
			return fmt.Errorf("Unable to create Wasm plugin %s: %w", p.config.Name, err) //nolint:staticcheck // Envoy's text
		}
	}
}

// Concurrency is how many VMs a plugin for each worker has.
func (h *Host) Concurrency() int { return h.opts.Concurrency }

// ErrNoPlugin is the answer of a Running that doesn't serve (yet).
var ErrNoPlugin = errors.New("the plugin does not serve")
