package http

import (
	"strings"

	"sidecar/wasmhost/abi"
	"sidecar/wasmhost/attribute"
)

// AppendProperty implements abi.Properties: Envoy's attributes, then what a plugin has set.
func (f *Filter) AppendProperty(b []byte, path string) ([]byte, abi.Status) {
	return f.plugin.AppendProperty(b, f.Info(), f, path)
}

// Resolve implements abi.Properties.
func (f *Filter) Resolve(path string) (any, bool) { return f.plugin.Resolve(f.Info(), f, path) }

// SetProperty implements abi.Properties: it never changes an attribute.
func (f *Filter) SetProperty(path string, value []byte, d abi.Declared) abi.Status {
	if f.ended {
		return abi.NotFound
	}
	return attribute.SetProperty(f.Info(), path, value, d)
}

// SetFilterState implements abi.Properties.
func (f *Filter) SetFilterState(name string, value []byte) abi.Status {
	if f.ended {
		return abi.NotFound
	}
	return attribute.SetState(f.Info(), strings.Clone(name), value)
}
