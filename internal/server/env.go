package server

import (
	"fmt"
	"math/rand/v2"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/format"
	"sidecar/internal/mutate"
	"sidecar/listener"
	"sidecar/listener/accesslog"
	"sidecar/listener/filters/network/tcpproxy"
	"sidecar/listener/hcm"
	"sidecar/listener/route"
	"sidecar/xds"
)

// fastRandom is for choices that no attacker gains from: it takes no lock.
func fastRandom() uint64 { return rand.Uint64() }

func (s *Server) logOptions() *accesslog.Options {
	return &accesslog.Options{Sinks: s.sinks, Format: s.formats, Runtime: s.runtimeNumber}
}

// accessLogs compiles access loggers for a consumer with its own interface of them.
func accessLogs[L any](s *Server, to func(*accesslog.Logger) L,
) func(*config.Path, []*accesslogv3.AccessLog, *config.Errors) []L {
	return func(p *config.Path, logs []*accesslogv3.AccessLog, errs *config.Errors) []L {
		var out []L
		for _, l := range accesslog.Compile(p, logs, s.logOptions(), errs) {
			out = append(out, to(l))
		}
		return out
	}
}

func (s *Server) listenerEnv() *listener.Env {
	return &listener.Env{
		Network: s.networkFilters(), ListenerFilters: listenerFilters(), Scope: s.scope,
		Log:        s.opts.Logs.Component("conn_handler"),
		AccessLogs: accessLogs(s, func(l *accesslog.Logger) listener.AccessLog { return l }),
		Runtime:    s.runtimeNumber,
		Transports: s.transports(), DynamicFilter: s.extensions.useNetwork, Digest: meaning,
	}
}

// meaning is xds.Digest in the form that listeners take.
func meaning(m proto.Message) (out [32]byte) {
	d, _ := xds.Digest(m)
	copy(out[:], d[:])
	return out
}

func (s *Server) compileTCP(m proto.Message, c filter.NetworkContext) (any, error) {
	msg, ok := m.(*tcpv3.TcpProxy)
	if !ok {
		return nil, fmt.Errorf("configuration is a %T", m)
	}
	return compiled(tcpproxy.Compile(msg, c, tcpproxy.Env{
		Clusters: s.clusters, Random: fastRandom, Format: s.formats,
		AccessLogs: accessLogs(s, func(l *accesslog.Logger) tcpproxy.AccessLog { return l }),
	}))
}

// compiled makes nothing of what did not compile, not a nil pointer in an interface.
func compiled[T any](x *T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return x, nil
}

func (s *Server) compileHCM(m proto.Message, c filter.NetworkContext) (any, error) {
	msg, ok := m.(*hcmv3.HttpConnectionManager)
	if !ok {
		return nil, fmt.Errorf("configuration is a %T", m)
	}
	prefix := "http." + msg.GetStatPrefix() + "."
	return compiled(hcm.Compile(msg, &hcm.Env{
		Filters: s.filters, Scope: s.scope, ListenerScope: c.ListenerScope,
		Log: s.opts.Logs.Component("http"), Codec: s.serverCodec, Clock: &s.clock, Random: fastRandom,
		LocalAddress: s.localAddress, Cluster: s.boot.Node.GetCluster(), Node: s.boot.Node.GetId(),
		Direction: c.Direction, BufferLimit: c.BufferLimit,
		Strict: s.runtimeBool(strictHTTP1),
		ClusterName: func(name string) (string, bool) {
			if c := s.clusters.Get(name); c != nil {
				return c.Config().ObservabilityName(), true
			}
			return "", false
		},
		CompileRoutes: func(rc *routev3.RouteConfiguration) (*route.Table, error) {
			env := s.routeEnv(prefix)
			env.ValidateClusters = true
			return route.Compile(rc, env)
		},
		DynamicRoutes: func(name string, cs *corev3.ConfigSource) (hcm.Routes, error) {
			return s.routes.use(name, prefix, cs)
		},
		DynamicFilter: s.extensions.use,
		AccessLogs:    s.httpAccessLogs,
		LogFilter: func(p *config.Path, f *accesslogv3.AccessLogFilter, errs *config.Errors) func(*stream.Info) bool {
			return accesslog.CompileFilter(p, f, s.logOptions(), errs)
		},
		Format: func(p *config.Path, f *corev3.SubstitutionFormatString, errs *config.Errors) hcm.Formatter {
			if sub := format.CompileAt(p, f, s.formats, errs); sub != nil {
				return sub
			}
			return nil
		},
		Mutations: func(p *config.Path, add []*corev3.HeaderValueOption, errs *config.Errors) func(*header.Map, *stream.Info) {
			return mutate.Compile(p, "headers", add, nil, s.headerFormat, errs).Apply
		},
	}))
}

// headerFormat compiles the value of a header; what is not known comes out empty.
func (s *Server) headerFormat(text string) (mutate.Formatter, error) {
	o := s.formats
	o.OmitEmpty = true
	f, err := format.Compile(text, o)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (s *Server) routeEnv(prefix string) route.Env {
	return route.Env{
		Format: s.formats, Filters: s.filters,
		Filter:  filter.Context{StatPrefix: prefix, Scope: s.scope, Log: s.opts.Logs.Component("router")},
		Runtime: s.runtimeFraction,
		HasCluster: func(name string) bool {
			return s.clusters.Get(name) != nil || s.staticClusters[name]
		},
	}
}
