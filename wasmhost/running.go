package wasmhost

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"sidecar/wasmhost/abi"
)

// Running is a plugin between the Warm and the Retire of the configuration that names it: what the
// factories of placements share.
type Running struct {
	// Set by NewRunning, never changed.
	host   *Host
	config *Config
	name   string

	// Set by Warm, before the first use.
	plugin *Plugin

	mu      sync.Mutex // guards below
	retired bool
}

// NewRunning is for a configuration that has compiled; name is that of the filter.
func NewRunning(h *Host, c *Config, name string) *Running {
	return &Running{host: h, config: c, name: name}
}

var errRetired = errors.New("the configuration was replaced meanwhile")

// Warm starts the plugin: its error is the reason to reject the configuration. Called once.
func (r *Running) Warm(ctx context.Context) error {
	p, err := r.host.Start(ctx, r.config)
	if err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.retired {
		p.Close()
		return errRetired
	}
	r.plugin = p
	return nil
}

// Retire lets the plugin go when its last stream has ended. Idempotent.
func (r *Running) Retire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.retired && r.plugin != nil {
		r.plugin.Close()
	}
	r.retired = true
}

// Acquire gives the plugin for one stream, which releases it; nil if it doesn't serve (any more).
func (r *Running) Acquire() *Plugin {
	if r.plugin == nil || !r.plugin.Acquire() {
		return nil
	}
	return r.plugin
}

// Config of the plugin.
func (r *Running) Config() *Config { return r.config }

// NetworkPhases tells which callbacks of connections the plugin has.
func (p *Plugin) NetworkPhases() abi.NetworkPhases { return p.module.NetworkPhases() }
