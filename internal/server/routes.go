package server

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"sidecar/api/stats"
	"sidecar/internal/config/source"
	"sidecar/listener/hcm"
	"sidecar/listener/route"
)

// routeTables holds the tables that RDS brings, one for each name and source, however many listeners
// use it.
type routeTables struct {
	s *Server
	shared[*routeTable]
}

// routeTable is one subscribed table. It implements source.Watcher.
type routeTable struct {
	name    string
	dynamic *route.Dynamic
	scope   *stats.Scope
	sub     source.Subscription
	once    sync.Once
	ready   chan struct{} // the first answer came, or is not waited for any more

	mu      sync.Mutex // guards below, for config_dump
	raw     []byte
	version string
	updated time.Time
}

// routeUse is a connection manager's use of a table. It is made by Compile and subscribes when it is
// warmed.
type routeUse struct {
	tables *routeTables
	key    string
	name   string
	source *source.ConfigSource
	prefix string

	once   sync.Once
	retire sync.Once
	table  *routeTable
	loaded chan struct{}
}

var _ hcm.Routes = (*routeUse)(nil)

func (r *routeTables) use(name, prefix string, cs *corev3.ConfigSource) (hcm.Routes, error) {
	src, err := source.Compile(cs, "config_source")
	if err != nil {
		return nil, err
	}
	return &routeUse{
		tables: r, key: src.Key + "\x00" + name, name: name, source: src, prefix: prefix,
		loaded: make(chan struct{}),
	}, nil
}

// Await subscribes and waits for the first table, or for the end of initial_fetch_timeout.
func (u *routeUse) Await(ctx context.Context) {
	u.once.Do(func() {
		u.table = u.tables.acquire(u.key, u.subscribe)
		close(u.loaded)
	})
	select {
	case <-u.table.ready:
	case <-ctx.Done():
	}
}

// Load implements hcm.Routes.
func (u *routeUse) Load() *route.Table {
	select {
	case <-u.loaded:
		return u.table.dynamic.Load()
	default:
		return nil
	}
}

// Retire ends the use; the last one ends the subscription.
func (u *routeUse) Retire() {
	u.retire.Do(func() {
		select {
		case <-u.loaded:
			u.tables.release(u.key)
		default:
		}
	})
}

// subscribe makes the table of the use.
func (u *routeUse) subscribe() *routeTable {
	s := u.tables.s
	t := &routeTable{name: u.name, dynamic: route.NewDynamic(s.routeEnv(u.prefix)), ready: make(chan struct{})}
	t.scope = s.scope.Sub(u.prefix + "rds." + u.name)
	t.sub = s.xds.Subscribe(source.Spec{
		TypeURL: source.RouteType, Names: []string{u.name}, Source: u.source, Watcher: t,
		Stats: stats.Bind[source.Stats](t.scope), ControlPlane: u.source.ControlPlane(t.scope),
	})
	return t
}

// close ends the subscription after the last use.
func (t *routeTable) close() {
	t.sub.Close()
	t.scope.Close()
}

// Apply implements source.Watcher.
func (t *routeTable) Apply(u *source.Update) {
	for _, d := range u.Resources {
		m, ok := d.Message.(*routev3.RouteConfiguration)
		if !ok {
			d.Done(fmt.Errorf("is a %s", d.TypeURL))
			continue
		}
		err := t.dynamic.Apply(m)
		if err == nil {
			t.mu.Lock()
			t.raw, t.version, t.updated = d.Raw, d.Version, time.Now()
			t.mu.Unlock()
		}
		d.Done(err)
	}
	if len(u.Removed) > 0 {
		t.dynamic.Remove()
	}
	t.markReady()
}

// Unavailable implements source.Watcher.
func (t *routeTable) Unavailable(error) { t.markReady() }

func (t *routeTable) markReady() { t.once.Do(func() { close(t.ready) }) }
