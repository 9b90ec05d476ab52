package server

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/config/source"
	"sidecar/listener"
	"sidecar/listener/hcm"
)

// extensions holds the HTTP and network filters that ECDS brings, one for each name, source and place.
type extensions struct {
	s *Server
	shared[*extension]
}

// compileExtension compiles the configuration of a filter, of which it makes a factory.
type compileExtension func(p *config.Path, a *anypb.Any, errs *config.Errors) any

// extensionUse is a filter chain's use of an extension: the factory that it keeps. A stream or
// connection gets its filter from the version that is in force when it begins, and keeps that to its
// end.
type extensionUse struct {
	list   *extensions
	key    string
	source *source.ConfigSource
	types  []string
	noWait bool // apply_default_config_without_warming
	name   string
	// kind is part of the names of its stats.
	kind    string
	compile compileExtension
	first   any // default_config, until the first version comes

	once   sync.Once
	retire sync.Once
	loaded atomic.Pointer[extension]
}

// httpUse is that of a connection manager.
type httpUse struct{ *extensionUse }

// networkUse is that of a filter chain.
type networkUse struct{ *extensionUse }

func (x *extensions) use(name string, cs *corev3.ExtensionConfigSource, c filter.Context) (any, error) {
	u := &extensionUse{list: x, name: name, kind: "http_filter"}
	u.compile = func(p *config.Path, a *anypb.Any, errs *config.Errors) any {
		made := x.s.compileFilter(p, a, c, errs)
		if f, ok := made.(filter.Factory); ok {
			return f
		}
		return nil
	}
	if err := u.configure(cs, c.StatPrefix); err != nil {
		return nil, err
	}
	return httpUse{u}, nil
}

// useNetwork is use for a network filter.
func (x *extensions) useNetwork(name string, cs *corev3.ExtensionConfigSource, c filter.NetworkContext) (any, error) {
	u := &extensionUse{list: x, name: name, kind: "network_filter"}
	table := x.s.networkFilters()
	u.compile = func(p *config.Path, a *anypb.Any, errs *config.Errors) any {
		made := listener.CompileNetwork(p, name, a, table, c, errs)
		if f, ok := made.(filter.NetworkFactory); ok {
			return f
		}
		return nil
	}
	if err := u.configure(cs, c.ListenerName); err != nil {
		return nil, err
	}
	return networkUse{u}, nil
}

// configure reads where the extension comes from. Uses of one place share it.
func (u *extensionUse) configure(cs *corev3.ExtensionConfigSource, place string) error {
	var errs config.Errors
	extensionFields.Check(nil, cs, &errs)
	src, err := source.Compile(cs.GetConfigSource(), "config_source")
	if err != nil {
		return err
	}
	if len(cs.GetTypeUrls()) == 0 {
		errs.Add(config.Field("type_urls"), "must not be empty")
	}
	u.source, u.types, u.noWait = src, cs.GetTypeUrls(), cs.GetApplyDefaultConfigWithoutWarming()
	u.key = strings.Join([]string{u.kind, src.Key, u.name, place, strings.Join(u.types, ",")}, "\x00")
	if d := cs.GetDefaultConfig(); d != nil {
		u.first = u.compile(config.Field("default_config"), d, &errs)
	}
	return errs.Err()
}

//nolint:gochecknoglobals // immutable table
var extensionFields = config.Fields[*corev3.ExtensionConfigSource]{
	Used: "config_source default_config apply_default_config_without_warming type_urls",
}

// NewFilter implements filter.Factory.
func (u httpUse) NewFilter(s filter.Stream) any {
	if e := u.loaded.Load(); e != nil {
		for v := e.slot.Load(); v != nil; v = e.slot.Load() {
			made, ok := v.Value.(filter.Factory)
			if !ok {
				break
			}
			f := made.NewFilter(s)
			if r, ok := f.(filter.Retired); !ok || !r.Retired() || e.slot.Load() == v {
				return f
			}
			// Swapped after the load: the version that came after it is there already.
		}
	}
	if f, ok := u.first.(filter.Factory); ok {
		return f.NewFilter(s)
	}
	return missing{s}
}

// NewNetworkFilter implements filter.NetworkFactory.
func (u networkUse) NewNetworkFilter(c *filter.Connection) any {
	if e := u.loaded.Load(); e != nil {
		for v := e.slot.Load(); v != nil; v = e.slot.Load() {
			made, ok := v.Value.(filter.NetworkFactory)
			if !ok {
				break
			}
			f := made.NewNetworkFilter(c)
			if r, ok := f.(filter.Retired); !ok || !r.Retired() || e.slot.Load() == v {
				return f
			}
		}
	}
	if f, ok := u.first.(filter.NetworkFactory); ok {
		return f.NewNetworkFilter(c)
	}
	return missingNetwork{}
}

// missingNetwork closes a connection that needs a filter whose configuration has not come.
type missingNetwork struct{}

// OnNewConnection implements filter.NewConnection.
func (missingNetwork) OnNewConnection(*stream.Turn) bool { return false }

// Warm starts the default configuration.
func (u *extensionUse) Warm(ctx context.Context) error {
	if w, ok := u.first.(filter.Warmer); ok {
		return w.Warm(ctx)
	}
	return nil
}

// Await subscribes and waits until a version is in force or is not waited for any more.
func (u *extensionUse) Await(ctx context.Context) {
	u.once.Do(func() { u.loaded.Store(u.list.acquire(u.key, u.subscribe)) })
	if u.noWait && u.first != nil {
		return
	}
	select {
	case <-u.loaded.Load().ready:
	case <-ctx.Done():
	}
}

// Retire ends the use; the last one ends the subscription and the plugin.
func (u *extensionUse) Retire() {
	u.retire.Do(func() {
		if u.loaded.Load() != nil {
			u.list.release(u.key)
		}
		if r, ok := u.first.(filter.Retirer); ok {
			r.Retire()
		}
	})
}

// compileFilter compiles the configuration of any HTTP filter that the binary knows.
func (s *Server) compileFilter(p *config.Path, a *anypb.Any, c filter.Context, errs *config.Errors) any {
	name := string(config.TypeName(a))
	entry := s.filters.ByType(name)
	if entry == nil {
		errs.Addf(p, "HTTP filter of type %q is not supported", name)
		return nil
	}
	return hcm.CompileEntry(p, entry, a, c, errs)
}

// missing answers for a filter whose configuration has not come (Envoy: MissingConfigFilter).
type missing struct{ s filter.Stream }

// OnRequestHeaders implements filter.RequestHeaders.
func (m missing) OnRequestHeaders(t *stream.Turn, _ *header.Map, _ bool) filter.Action {
	m.s.Reply(t, &filter.Reply{
		Status: 500, Details: "no_filter_config_found", Flag: stream.NoFilterConfigFound, GRPCStatus: -1,
	})
	return filter.Done
}
