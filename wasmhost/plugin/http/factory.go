package http

import (
	"context"
	"errors"
	"fmt"
	"sync"

	wasmfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"

	"sidecar/api/filter"
	wasmv1 "sidecar/api/sidecar/wasm/v1"
	"sidecar/internal/config"
	"sidecar/wasmhost"
	"sidecar/wasmhost/abi"
)

var (
	envoyFields = config.Fields[*wasmfilterv3.Wasm]{Used: "config"}
	ownFields   = config.Fields[*wasmv1.Wasm]{Used: "config limits isolation recycling canary"}
)

// FieldTables are the accounts of the filter's messages, for tests.
func FieldTables() []config.Table { return []config.Table{envoyFields, ownFields} }

// Entries are the filter under its two configuration types: Envoy's, and ours which adds limits.
func Entries(h *wasmhost.Host) []filter.HTTPEntry {
	return []filter.HTTPEntry{
		filter.RegisterHTTP("envoy.filters.http.wasm", &wasmfilterv3.Wasm{},
			func(m *wasmfilterv3.Wasm, c filter.Context) (any, error) {
				var errs config.Errors
				envoyFields.Check(nil, m, &errs)
				cfg, err := wasmhost.Compile(m.GetConfig(), nil, h.Limits())
				errs.Wrap(config.Field("config"), err)
				return newFactory(h, cfg, c, errs.Err())
			}),
		filter.RegisterHTTP("sidecar.filters.http.wasm", &wasmv1.Wasm{},
			func(m *wasmv1.Wasm, c filter.Context) (any, error) {
				var errs config.Errors
				ownFields.Check(nil, m, &errs)
				cfg, err := wasmhost.Compile(m.GetConfig(), m.GetLimits(), h.Limits())
				errs.Wrap(config.Field("config"), err)
				return newFactory(h, cfg, c, errs.Err())
			}),
	}
}

// Factory makes the filters of one plugin. It serves after Warm, until Retire.
type Factory struct {
	// Set by newFactory, never changed.
	host   *wasmhost.Host
	config *wasmhost.Config
	name   string

	// Set by Warm, before the first stream.
	plugin *wasmhost.Plugin
	phases abi.Phases

	mu      sync.Mutex // guards below
	retired bool
}

var (
	_ filter.Factory = (*Factory)(nil)
	_ filter.Warmer  = (*Factory)(nil)
	_ filter.Retirer = (*Factory)(nil)
)

func newFactory(h *wasmhost.Host, cfg *wasmhost.Config, c filter.Context, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return &Factory{host: h, config: cfg, name: c.Name}, nil
}

var errRetired = errors.New("the configuration was replaced meanwhile")

// Warm starts the plugin: its error is the reason to reject the configuration. Called once.
func (f *Factory) Warm(ctx context.Context) error {
	p, err := f.host.Start(ctx, f.config)
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.retired {
		p.Close()
		return errRetired
	}
	f.plugin, f.phases = p, p.Phases()
	return nil
}

// Retire lets the plugin go when its last stream has ended. Idempotent.
func (f *Factory) Retire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.retired && f.plugin != nil {
		f.plugin.Close()
	}
	f.retired = true
}

// NewFilter makes the filter of a stream. It binds to a VM when it is first called.
func (f *Factory) NewFilter(s filter.Stream) any {
	filter := &Filter{factory: f, s: s}
	if f.plugin != nil && f.plugin.Acquire() {
		filter.plugin = f.plugin
	}
	return filter
}

// Retired tells that the filter was made too late to have a plugin.
func (f *Filter) Retired() bool { return f.plugin == nil }
