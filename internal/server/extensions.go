package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/config/source"
	"sidecar/internal/task"
	"sidecar/listener/hcm"
)

// extensions holds the HTTP filters that ECDS brings, one for each name, source and place.
type extensions struct {
	s *Server

	mu   sync.Mutex // guards below
	held map[string]*extension
}

// extension is one subscribed filter. It implements source.Watcher.
type extension struct {
	s        *Server
	name     string
	types    []string
	context  filter.Context
	fallback *anypb.Any
	stats    *source.Stats
	sub      source.Subscription
	uses     int
	once     sync.Once
	ready    chan struct{}
	current  atomic.Pointer[extensionVersion]

	mu      sync.Mutex // guards below
	cancel  context.CancelFunc
	pending uint64
	raw     []byte
	version string
	updated time.Time
}

type extensionVersion struct{ factory filter.Factory }

// extensionUse is a connection manager's use of an extension: the factory that it keeps. A stream
// gets its filter from the version that is in force when it begins, and keeps that to its end.
type extensionUse struct {
	list   *extensions
	key    string
	source *source.ConfigSource
	types  []string
	noWait bool // apply_default_config_without_warming
	c      filter.Context
	name   string
	first  filter.Factory // default_config, until the first version comes

	once   sync.Once
	retire sync.Once
	loaded atomic.Pointer[extension]
}

func (x *extensions) use(name string, cs *corev3.ExtensionConfigSource, c filter.Context) (any, error) {
	var errs config.Errors
	extensionFields.Check(nil, cs, &errs)
	src, err := source.Compile(cs.GetConfigSource(), "config_source")
	if err != nil {
		return nil, err
	}
	if len(cs.GetTypeUrls()) == 0 {
		errs.Add(config.Field("type_urls"), "must not be empty")
	}
	u := &extensionUse{
		list: x, source: src, types: cs.GetTypeUrls(), c: c, name: name,
		noWait: cs.GetApplyDefaultConfigWithoutWarming(),
	}
	u.key = strings.Join([]string{src.Key, name, c.StatPrefix, strings.Join(cs.GetTypeUrls(), ",")}, "\x00")
	if d := cs.GetDefaultConfig(); d != nil {
		made := x.s.compileFilter(config.Field("default_config"), d, c, &errs)
		if f, ok := made.(filter.Factory); ok {
			u.first = f
		}
	}
	return u, errs.Err()
}

//nolint:gochecknoglobals // immutable table
var extensionFields = config.Fields[*corev3.ExtensionConfigSource]{
	Used: "config_source default_config apply_default_config_without_warming type_urls",
}

// NewFilter implements filter.Factory.
func (u *extensionUse) NewFilter(s filter.Stream) any {
	if e := u.loaded.Load(); e != nil {
		for v := e.current.Load(); v != nil; v = e.current.Load() {
			f := v.factory.NewFilter(s)
			if r, ok := f.(filter.Retired); !ok || !r.Retired() || e.current.Load() == v {
				return f
			}
			// Swapped after the load: the version that came after it is there already.
		}
	}
	if u.first != nil {
		return u.first.NewFilter(s)
	}
	return missing{s}
}

// Warm starts the default configuration.
func (u *extensionUse) Warm(ctx context.Context) error {
	if w, ok := u.first.(filter.Warmer); ok {
		return w.Warm(ctx)
	}
	return nil
}

// Await subscribes and waits until a version is in force or is not waited for any more.
func (u *extensionUse) Await(ctx context.Context) {
	u.once.Do(func() { u.loaded.Store(u.list.acquire(u)) })
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

func (x *extensions) acquire(u *extensionUse) *extension {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.held[u.key]; e != nil {
		e.uses++
		return e
	}
	e := &extension{
		s: x.s, name: u.name, types: u.types, context: u.c, uses: 1, ready: make(chan struct{}),
		stats: stats.Bind[source.Stats](x.s.scope.Sub("extension_config_discovery.http_filter." + u.name)),
	}
	x.held[u.key] = e
	e.sub = x.s.xds.Subscribe(source.Spec{
		TypeURL: source.ExtensionType, Names: []string{u.name}, Source: u.source, Watcher: e, Stats: e.stats,
	})
	return e
}

func (x *extensions) release(key string) {
	x.mu.Lock()
	e := x.held[key]
	if e == nil {
		x.mu.Unlock()
		return
	}
	e.uses--
	gone := e.uses == 0
	if gone {
		delete(x.held, key)
	}
	x.mu.Unlock()
	if gone {
		e.sub.Close()
		e.swap(nil)
	}
}

// Apply implements source.Watcher.
func (e *extension) Apply(u *source.Update) {
	for _, d := range u.Resources {
		msg, ok := d.Message.(*corev3.TypedExtensionConfig)
		if !ok {
			continue
		}
		e.apply(msg, d)
	}
	if len(u.Removed) > 0 {
		e.supersede()
		e.swap(nil)
	}
	if len(u.Resources) == 0 {
		e.markReady()
	}
}

// apply compiles a version and, when it has started, puts it in force. The answer to the server waits
// for that: a plugin that does not start is rejected, and the one before it goes on.
func (e *extension) apply(msg *corev3.TypedExtensionConfig, d *source.Delivery) {
	var errs config.Errors
	p := config.Field("typed_config")
	url := msg.GetTypedConfig().GetTypeUrl()
	if name := string(config.TypeName(msg.GetTypedConfig())); !slices.Contains(e.types, url) &&
		!slices.Contains(e.types, "type.googleapis.com/"+name) {
		errs.Addf(p, "Error: filter config has type URL %s but expect %s.", url, strings.Join(e.types, ", "))
		d.Done(errs.Err())
		return
	}
	made := e.s.compileFilter(p, msg.GetTypedConfig(), e.context, &errs)
	f, ok := made.(filter.Factory)
	if err := errs.Err(); err != nil || !ok {
		if err == nil {
			err = fmt.Errorf("typed_config: %T is no filter that ECDS can bring", made)
		}
		d.Done(err)
		e.markReady()
		return
	}
	ctx, mine := e.supersede()
	w, warms := f.(filter.Warmer)
	if !warms {
		e.install(f, d, mine)
		return
	}
	task.Go("warm extension "+e.name, func() {
		if err := w.Warm(ctx); err != nil {
			retireFactory(f)
			d.Done(err)
			e.markReady()
			return
		}
		e.install(f, d, mine)
	}, func(p *task.Panic) { d.Done(p) })
}

// supersede gives up a version that has not started yet.
func (e *extension) supersede() (context.Context, uint64) {
	ctx, cancel := context.WithCancel(context.Background())
	e.mu.Lock()
	if e.cancel != nil {
		e.cancel()
	}
	e.cancel = cancel
	e.pending++
	mine := e.pending
	e.mu.Unlock()
	return ctx, mine
}

func (e *extension) install(f filter.Factory, d *source.Delivery, mine uint64) {
	e.mu.Lock()
	stale := e.pending != mine
	if !stale {
		e.raw, e.version, e.updated = d.Raw, d.Version, time.Now()
	}
	e.mu.Unlock()
	if stale {
		retireFactory(f)
		d.Done(nil)
		return
	}
	e.swap(&extensionVersion{f})
	d.Done(nil)
	e.markReady()
}

// swap puts a version in force and lets go of the one before; streams that have it keep it.
func (e *extension) swap(v *extensionVersion) {
	if old := e.current.Swap(v); old != nil {
		retireFactory(old.factory)
	}
}

func retireFactory(f filter.Factory) {
	if r, ok := f.(filter.Retirer); ok {
		r.Retire()
	}
}

// Unavailable implements source.Watcher.
func (e *extension) Unavailable(error) { e.markReady() }

func (e *extension) markReady() { e.once.Do(func() { close(e.ready) }) }

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
