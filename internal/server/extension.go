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

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/internal/config"
	"sidecar/internal/config/source"
	"sidecar/internal/live"
)

// extension is one subscribed filter. It implements source.Watcher.
type extension struct {
	// Set by subscribe, never changed.
	s     *Server
	name  string
	types []string
	build compileExtension
	scope *stats.Scope
	stats *extensionStats
	sub   source.Subscription
	slot  *live.Slot[any]
	ready chan struct{} // closed when the first version is in force, or is not waited for any more

	once    sync.Once
	updated atomic.Int64 // when the version in force came, unix nanoseconds
}

// extensionStats are those that extension configs have besides those of every subscription.
type extensionStats struct {
	Reload   stats.Counter `stat:"config_reload"`
	Fail     stats.Counter `stat:"config_fail"`
	Conflict stats.Counter `stat:"config_conflict"`
}

// subscribe makes the extension of the use.
func (u *extensionUse) subscribe() *extension {
	s := u.list.s
	scope := s.scope.Sub("extension_config_discovery." + u.kind + "." + u.name)
	e := &extension{
		s: s, name: u.name, types: u.types, build: u.compile, ready: make(chan struct{}),
		scope: scope, stats: stats.Bind[extensionStats](scope),
	}
	e.slot = live.NewSlot(live.Hooks[any]{Warm: e.warmExtension, Swapped: e.swapped, Retire: retireFactory})
	e.sub = s.xds.Subscribe(source.Spec{
		TypeURL: source.ExtensionType, Names: []string{u.name}, Source: u.source, Watcher: e,
		Stats: stats.Bind[source.Stats](scope), ControlPlane: u.source.ControlPlane(scope),
	})
	return e
}

// close ends the subscription and the version in force after the last use.
func (e *extension) close() {
	e.sub.Close()
	e.slot.Close()
	e.scope.Close()
}

// Apply implements source.Watcher. The answer to the server waits until a version has started: a
// plugin that does not is rejected, and the one before it goes on.
func (e *extension) Apply(u *source.Update) {
	for _, d := range u.Resources {
		msg, ok := d.Message.(*corev3.TypedExtensionConfig)
		if !ok {
			d.Done(fmt.Errorf("is a %s", d.TypeURL))
			continue
		}
		compile := func() (any, error) {
			f, err := e.compile(msg)
			if err == nil && fetches(f) {
				d.Done(nil) // What comes of it is up to another server: see warmExtension.
			}
			return f, err
		}
		e.slot.Deliver(context.Background(), d, compile, e.ended)
	}
	if len(u.Removed) > 0 {
		e.slot.Clear()
	}
	if len(u.Resources) == 0 {
		e.markReady()
	}
}

// ended notes what became of a version. Whoever waits goes on after a rejected one too, as in Envoy.
func (e *extension) ended(o live.Outcome) {
	switch o {
	case live.Rejected:
		e.stats.Fail.Inc()
	case live.Superseded:
		return // the version that took its place ends the wait
	case live.Swapped, live.Unchanged, live.Unset:
	}
	e.markReady()
}

func (e *extension) compile(msg *corev3.TypedExtensionConfig) (any, error) {
	var errs config.Errors
	p := config.Field("typed_config")
	url := msg.GetTypedConfig().GetTypeUrl()
	if name := string(config.TypeName(msg.GetTypedConfig())); !slices.Contains(e.types, url) &&
		!slices.Contains(e.types, "type.googleapis.com/"+name) {
		errs.Addf(p, "Error: filter config has type URL %s but expect %s.", url, strings.Join(e.types, ", "))
		return nil, errs.Err()
	}
	made := e.build(p, msg.GetTypedConfig(), &errs)
	if errs.Err() == nil && made == nil {
		errs.Addf(p, "%s is no filter that ECDS can bring", url)
	}
	return made, errs.Err()
}

func warmFactory(ctx context.Context, f any) error {
	if w, ok := f.(filter.Warmer); ok {
		return w.Warm(ctx)
	}
	return nil
}

func (e *extension) swapped(_, _ *live.Version[any]) {
	e.updated.Store(time.Now().UnixNano())
	e.stats.Reload.Inc()
	e.s.configured() // What compiling and the old version have left is given back.
}

func retireFactory(f any) {
	if r, ok := f.(filter.Retirer); ok {
		r.Retire()
	}
}

// Unavailable implements source.Watcher.
func (e *extension) Unavailable(error) {
	e.stats.Fail.Inc()
	e.markReady()
}

func (e *extension) markReady() { e.once.Do(func() { close(e.ready) }) }
