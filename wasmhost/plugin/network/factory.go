package network

import (
	"fmt"

	wasmfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/wasm/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	wasmv1 "sidecar/api/sidecar/wasm/v1"
	"sidecar/internal/config"
	"sidecar/wasmhost"
)

var (
	envoyFields = config.Fields[*wasmfilterv3.Wasm]{Used: "config"}
	ownFields   = config.Fields[*wasmv1.Wasm]{
		Used:    "config limits recycling",
		Refused: "isolation canary",
	}
)

// FieldTables are the accounts of the filter's messages, for tests.
func FieldTables() []config.Table { return []config.Table{envoyFields, ownFields} }

// Factory makes the filters of one plugin. It serves after Warm, until Retire.
type Factory struct{ *wasmhost.Running }

var (
	_ filter.NetworkFactory = Factory{}
	_ filter.Warmer         = Factory{}
	_ filter.Awaiter        = Factory{}
	_ filter.Retirer        = Factory{}
)

// Entries are the filter under its two configuration types: Envoy's, and ours which adds limits.
func Entries(h *wasmhost.Host) []*filter.NetworkEntry {
	compile := func(c *wasmv3.PluginConfig, own *wasmv1.Wasm, nc filter.NetworkContext, errs *config.Errors) (any, error) {
		cfg, err := wasmhost.Compile(c, own.GetLimits(), h.Limits())
		errs.Wrap(config.Field("config"), err)
		if err := errs.Err(); err != nil {
			return nil, err
		}
		return Factory{wasmhost.NewRunning(h, cfg, nc.Name)}, nil
	}
	return []*filter.NetworkEntry{
		{
			Name: "envoy.filters.network.wasm", Config: &wasmfilterv3.Wasm{},
			Compile: func(m proto.Message, nc filter.NetworkContext) (any, error) {
				msg, ok := m.(*wasmfilterv3.Wasm)
				if !ok {
					return nil, fmt.Errorf("configuration is a %T", m)
				}
				var errs config.Errors
				envoyFields.Check(nil, msg, &errs)
				return compile(msg.GetConfig(), nil, nc, &errs)
			},
		},
		{
			Name: "sidecar.filters.network.wasm", Config: &wasmv1.Wasm{},
			Compile: func(m proto.Message, nc filter.NetworkContext) (any, error) {
				msg, ok := m.(*wasmv1.Wasm)
				if !ok {
					return nil, fmt.Errorf("configuration is a %T", m)
				}
				var errs config.Errors
				ownFields.Check(nil, msg, &errs)
				return compile(msg.GetConfig(), msg, nc, &errs)
			},
		},
	}
}

// NewNetworkFilter implements filter.NetworkFactory.
func (f Factory) NewNetworkFilter(c *filter.Connection) any {
	x := &Filter{factory: f, c: c, wake: make(chan struct{}, 1)}
	if x.plugin = f.Acquire(); x.plugin != nil {
		x.phases = x.plugin.NetworkPhases()
	}
	return x
}
