package wasmhost

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

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

	trial atomic.Pointer[trial]

	mu    sync.Mutex // guards below
	holds int        // the owner's, and that of a canary that replaces it
}

// NewRunning is for a configuration that has compiled; name is that of the filter, by which a canary
// finds the version before it.
func NewRunning(h *Host, c *Config, name string) *Running {
	return &Running{host: h, config: c, name: name, holds: 1}
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
	if r.holds == 0 {
		p.Close()
		return errRetired
	}
	r.plugin = p
	r.host.enterVersion(r.name, r)
	return nil
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

// Retire lets the plugin go when its last stream has ended. Once for each hold.
func (r *Running) Retire() {
	r.mu.Lock()
	r.holds = max(0, r.holds-1)
	last := r.holds == 0
	p := r.plugin
	r.mu.Unlock()
	if !last || p == nil {
		return
	}
	r.host.leaveVersion(r.name, r)
	if t := r.trial.Load(); t != nil {
		t.end()
	}
	p.Close()
}

// Acquire gives the plugin for one stream, which releases it, with the Running that it is of: that may
// be the version before this one. nil if none serves (any more).
func (r *Running) Acquire() (*Plugin, *Running) {
	if r.plugin == nil {
		return nil, r
	}
	c := r.choose()
	if !c.plugin.Acquire() {
		return nil, r
	}
	return c.plugin, c
}

// Config of the plugin.
func (r *Running) Config() *Config { return r.config }

// Host that runs it.
func (r *Running) Host() *Host { return r.host }

// NetworkPhases tells which callbacks of connections the plugin has.
func (p *Plugin) NetworkPhases() abi.NetworkPhases { return p.module.NetworkPhases() }
