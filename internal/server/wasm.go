package server

import (
	"sidecar/cluster/discover"
	"sidecar/wasmhost"
)

// wasmOptions is what plugins have of the proxy.
func (s *Server) wasmOptions() wasmhost.Options {
	c := caller{s}
	return wasmhost.Options{
		Log: s.opts.Logs.Component("wasm"), Stats: s.store, Concurrency: s.opts.Concurrency,
		Calls: c, GRPC: c, Resolver: lookups{discover.NewResolver(discover.ResolverOptions{})},
		Node: s.node, Endpoints: c.endpoints,
		Compiler: s.opts.WasmCompiler, CacheDir: s.wasmCacheDir(), InsecureHosts: insecureRegistries(),
	}
}
