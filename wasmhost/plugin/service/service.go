// Package service runs plugins as services of the bootstrap (envoy.bootstrap.wasm): they have no traffic
// but ticks, queues and call-outs, and live as long as the process.
package service

import (
	"context"

	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"

	"sidecar/internal/config"
	"sidecar/wasmhost"
)

var fields = config.Fields[*wasmv3.WasmService]{Used: "config singleton"}

// FieldTables are the accounts of the service's message, for tests.
func FieldTables() []config.Table { return []config.Table{fields} }

// Service is a compiled service.
type Service struct {
	*wasmhost.Running
	vms int
}

// Compile compiles a service; errors are reported at p.
func Compile(h *wasmhost.Host, p *config.Path, m *wasmv3.WasmService, errs *config.Errors) *Service {
	fields.Check(p, m, errs)
	cfg, err := wasmhost.Compile(m.GetConfig(), nil, h.Limits())
	if err != nil {
		errs.Wrap(p.Field("config"), err)
		return nil
	}
	s := &Service{wasmhost.NewRunning(h, cfg, ""), 1}
	if !m.GetSingleton() {
		s.vms = h.Concurrency()
	}
	return s
}

// Start starts the service: one VM, or as many as there are workers. It blocks until they are configured.
func (s *Service) Start(ctx context.Context) error {
	if err := s.Warm(ctx); err != nil {
		return err
	}
	s.Await(ctx)
	p := s.Acquire()
	if p == nil {
		return wasmhost.ErrNoPlugin
	}
	defer p.Release()
	return p.Fill(ctx, s.vms)
}
