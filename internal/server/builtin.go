package server

import (
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/cluster/dnscache"
	"sidecar/listener/filters/http/compressor"
	"sidecar/listener/filters/http/cors"
	"sidecar/listener/filters/http/dynamicforwardproxy"
	"sidecar/listener/filters/http/fault"
	"sidecar/listener/filters/http/grpchttp1bridge"
	"sidecar/listener/filters/http/grpcstats"
	"sidecar/listener/filters/http/grpcweb"
	"sidecar/listener/filters/http/rbac"
	"sidecar/listener/filters/http/router"
	"sidecar/listener/filters/listener/httpinspector"
	"sidecar/listener/filters/listener/originaldst"
	"sidecar/listener/filters/listener/proxyprotocol"
	"sidecar/listener/filters/listener/tlsinspector"
	"sidecar/listener/filters/network/mongoproxy"
	networkrbac "sidecar/listener/filters/network/rbac"
	"sidecar/listener/filters/network/snidynamicforwardproxy"
	wasm "sidecar/wasmhost/plugin/http"
	wasmnetwork "sidecar/wasmhost/plugin/network"
)

// httpFilters is the table of HTTP filters.
func (s *Server) httpFilters() *filter.Table {
	entries := []filter.HTTPEntry{
		filter.RegisterHTTP("envoy.filters.http.router", &routerv3.Router{},
			func(m *routerv3.Router, c filter.Context) (any, error) {
				return router.Compile(m, c, router.Env{
					Clusters: s.clusters, Random: fastRandom, LocalAddress: s.localAddress,
				})
			}),
	}
	entries = append(entries, grpcstats.Entry(), grpcweb.Entry(), grpchttp1bridge.Entry(),
		compressor.Entry(compressor.Env{Runtime: s.runtimeSwitch}),
		cors.Entry(cors.Env{Random: fastRandom, Runtime: s.runtimeFraction}),
		fault.Entry(fault.Env{Random: fastRandom, Runtime: s.runtimeFraction, RuntimeNumber: s.runtimeNumber}))
	entries = append(entries, rbac.Entry(), dynamicforwardproxy.Entry(s.clusters))
	entries = append(entries, s.istioHTTP()...)
	return filter.NewTable(append(entries, wasm.Entries(s.wasm)...)...)
}

// networkFilters is the table of network filters, by configuration type.
func (s *Server) networkFilters() map[string]*filter.NetworkEntry {
	list := append(wasmnetwork.Entries(s.wasm), s.istioNetwork()...)
	return byType(append(list, mongoproxy.Entry(), networkrbac.Entry(),
		snidynamicforwardproxy.Entry(func() *dnscache.Caches { return s.clusters.DNSCaches() }),
		&filter.NetworkEntry{
			Name: "envoy.filters.network.http_connection_manager", Config: &hcmv3.HttpConnectionManager{},
			Compile: s.compileHCM,
		},
		&filter.NetworkEntry{
			Name: "envoy.filters.network.tcp_proxy", Config: &tcpv3.TcpProxy{}, Compile: s.compileTCP,
		},
	)...)
}

// listenerFilters is the table of listener filters, by configuration type.
func listenerFilters() map[string]filter.ListenerEntry {
	out := map[string]filter.ListenerEntry{}
	for _, e := range []filter.ListenerEntry{
		originaldst.Entry(),
		proxyprotocol.Entry(),
		tlsinspector.Entry(),
		httpinspector.Entry(),
	} {
		out[typeName(e.Config)] = e
	}
	return out
}

// accessLoggers names the access loggers, which package accesslog and otherLog know by type, for the node.
func accessLoggers() map[string]string {
	return map[string]string{
		"envoy.access_loggers.file":   "envoy.extensions.access_loggers.file.v3.FileAccessLog",
		"envoy.access_loggers.stdout": "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
		"envoy.access_loggers.stderr": "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
		"envoy.access_loggers.wasm":   "envoy.extensions.access_loggers.wasm.v3.WasmAccessLog",
	}
}

func byType(entries ...*filter.NetworkEntry) map[string]*filter.NetworkEntry {
	out := map[string]*filter.NetworkEntry{}
	for _, e := range entries {
		out[typeName(e.Config)] = e
	}
	return out
}

func typeName(m proto.Message) string { return string(m.ProtoReflect().Descriptor().FullName()) }
