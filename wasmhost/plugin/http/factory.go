package http

import (
	"sync/atomic"

	wasmfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	wasmv1 "sidecar/api/sidecar/wasm/v1"
	"sidecar/internal/config"
	"sidecar/wasmhost"
)

var (
	envoyFields = config.Fields[*wasmfilterv3.Wasm]{Used: "config"}
	ownFields   = config.Fields[*wasmv1.Wasm]{Used: "config limits isolation recycling canary"}
)

// FieldTables are the accounts of the filter's messages, for tests.
func FieldTables() []config.Table { return []config.Table{envoyFields, ownFields, routeFields} }

// Entries are the filter under its two configuration types: Envoy's, and ours which adds limits.
func Entries(h *wasmhost.Host) []filter.HTTPEntry {
	routes := new(atomic.Bool)
	list := []filter.HTTPEntry{
		filter.RegisterHTTP("envoy.filters.http.wasm", &wasmfilterv3.Wasm{},
			func(m *wasmfilterv3.Wasm, c filter.Context) (any, error) {
				var errs config.Errors
				envoyFields.Check(nil, m, &errs)
				cfg, err := wasmhost.Compile(m.GetConfig(), nil, h.Limits())
				errs.Wrap(config.Field("config"), err)
				return newFactory(h, cfg, c, routes, errs.Err())
			}),
		filter.RegisterHTTP("sidecar.filters.http.wasm", &wasmv1.Wasm{},
			func(m *wasmv1.Wasm, c filter.Context) (any, error) {
				var errs config.Errors
				ownFields.Check(nil, m, &errs)
				cfg, err := wasmhost.CompileOwn(m, h.Limits())
				errs.Wrap(nil, err)
				return newFactory(h, cfg, c, routes, errs.Err())
			}),
	}
	for i := range list {
		list[i].Route = &wasmv1.WasmPerRoute{}
		list[i].CompileRoute = func(m proto.Message, c filter.Context) (any, error) {
			routes.Store(true)
			return compileRoute(m, c)
		}
	}
	return list
}

// Factory makes the filters of one plugin. It serves after Warm, until Retire.
type Factory struct {
	*wasmhost.Running
	config *wasmhost.Config
	// routes says that there may be routes with a word on the plugin: others need not be asked.
	routes   *atomic.Bool
	variants variants
}

var (
	_ filter.Factory = (*Factory)(nil)
	_ filter.Warmer  = (*Factory)(nil)
	_ filter.Awaiter = (*Factory)(nil)
	_ filter.Retirer = (*Factory)(nil)
)

func newFactory(h *wasmhost.Host, cfg *wasmhost.Config, c filter.Context, routes *atomic.Bool, err error,
) (any, error) {
	if err != nil {
		return nil, err
	}
	return &Factory{Running: wasmhost.NewRunning(h, cfg, c.StatPrefix+c.Name), config: cfg, routes: routes}, nil
}

// Retire lets the plugin go, and those of its routes, when their last streams have ended.
func (f *Factory) Retire() {
	f.Running.Retire()
	f.variants.retire()
}

// NewFilter makes the filter of a stream. It binds to a VM when it is first called.
func (f *Factory) NewFilter(s filter.Stream) any {
	x := &Filter{factory: f, s: s}
	if x.plugin = f.Acquire(); x.plugin != nil {
		x.phases = x.plugin.Phases()
	}
	return x
}

// Retired tells that the filter was made too late to have a plugin, or too early.
func (f *Filter) Retired() bool { return f.plugin == nil }
