package server

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// builtins lists the extensions of the binary for management servers, which go by it in what they
// send (Node.extensions).
func (s *Server) builtins() []*corev3.Extension {
	var out []*corev3.Extension
	add := func(category, name, typ string) {
		out = append(out, &corev3.Extension{Name: name, Category: category, TypeUrls: []string{typ}})
	}
	for _, f := range s.filters.Names() {
		add("envoy.filters.http", f[0], f[1])
	}
	for typ, f := range s.networkFilters() {
		add("envoy.filters.network", f.Name, typ)
	}
	for name, typ := range accessLoggers() {
		add("envoy.access_loggers", name, typ)
	}
	add("envoy.bootstrap", "envoy.bootstrap.wasm", "envoy.extensions.wasm.v3.WasmService")
	add("envoy.stats_sinks", "envoy.stat_sinks.wasm", "envoy.extensions.stat_sinks.wasm.v3.Wasm")
	slices.SortFunc(out, func(a, b *corev3.Extension) int {
		return strings.Compare(a.GetCategory()+a.GetName(), b.GetCategory()+b.GetName())
	})
	return out
}
