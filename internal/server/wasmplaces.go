package server

import (
	"context"
	"errors"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	wasmlogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/wasm/v3"
	wasmsinkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/stat_sinks/wasm/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"sidecar/internal/config"
	"sidecar/listener/accesslog"
	"sidecar/listener/hcm"
	wasmlog "sidecar/wasmhost/plugin/accesslog"
	"sidecar/wasmhost/plugin/service"
	"sidecar/wasmhost/plugin/statsink"
)

// places are the plugins that have no traffic of their own.
type places struct {
	services []*service.Service
	sinks    []*statsink.Sink
}

// compilePlaces compiles the services and stat sinks of the bootstrap.
func (s *Server) compilePlaces(errs *config.Errors) {
	for _, m := range s.boot.Services {
		if x := service.Compile(s.wasm, m.Path, m.Message, errs); x != nil {
			s.places.services = append(s.places.services, x)
		}
	}
	for i, m := range s.boot.StatsSinks {
		p := config.Field("stats_sinks").Index(i)
		sinkFields.Check(p, m, errs)
		at := p.Field("typed_config")
		if config.TypeName(m.GetTypedConfig()) != (*wasmsinkv3.Wasm)(nil).ProtoReflect().Descriptor().FullName() {
			errs.Addf(at, "%w", config.UnknownType(m.GetTypedConfig()))
			continue
		}
		if msg, ok := config.OpenAs[*wasmsinkv3.Wasm](at, m.GetTypedConfig(), errs); ok {
			if x := statsink.Compile(s.wasm, s.store, at, msg, errs); x != nil {
				s.places.sinks = append(s.places.sinks, x)
			}
		}
	}
}

//nolint:gochecknoglobals // immutable table
var sinkFields = config.Fields[*metricsv3.StatsSink]{
	Used: "typed_config",
	NoOp: map[string]string{"name": "the type of typed_config says which sink it is"},
}

// startPlaces starts them; one that does not start ends the process, as in Envoy.
func (s *Server) startPlaces(ctx context.Context) error {
	var errs []error
	for _, x := range s.places.services {
		errs = append(errs, x.Start(ctx))
	}
	for _, x := range s.places.sinks {
		errs = append(errs, x.Start(ctx))
	}
	return errors.Join(errs...)
}

// flush shows the stat sinks the stats.
func (p *places) flush() {
	for _, x := range p.sinks {
		x.Flush()
	}
}

func (p *places) retire() {
	for _, x := range p.services {
		x.Retire()
	}
	for _, x := range p.sinks {
		x.Retire()
	}
}

// httpAccessLogs are the access loggers of connection managers, which may be plugins.
func (s *Server) httpAccessLogs(p *config.Path, logs []*accesslogv3.AccessLog, errs *config.Errors) []hcm.AccessLog {
	o := s.logOptions()
	o.Other = s.otherLog
	var out []hcm.AccessLog
	for _, l := range accesslog.Compile(p, logs, o, errs) {
		out = append(out, l)
	}
	return out
}

func (s *Server) otherLog(p *config.Path, a *anypb.Any, errs *config.Errors) (accesslog.Log, bool) {
	if config.TypeName(a) != (*wasmlogv3.WasmAccessLog)(nil).ProtoReflect().Descriptor().FullName() {
		return nil, false
	}
	if msg, ok := config.OpenAs[*wasmlogv3.WasmAccessLog](p, a, errs); ok {
		if l := wasmlog.Compile(s.wasm, p, msg, errs); l != nil {
			return l, true
		}
	}
	return nil, true
}
