package http

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	wasmv1 "sidecar/api/sidecar/wasm/v1"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/task"
	"sidecar/wasmhost"
)

var routeFields = config.Fields[*wasmv1.WasmPerRoute]{Used: "disabled configuration"}

// perRoute is what a route says of the plugin.
type perRoute struct {
	disabled      bool
	set           bool
	configuration []byte
	key           [sha256.Size]byte
}

func compileRoute(m proto.Message, _ filter.Context) (any, error) {
	msg, ok := m.(*wasmv1.WasmPerRoute)
	if !ok {
		return nil, fmt.Errorf("configuration is a %T", m)
	}
	var errs config.Errors
	routeFields.Check(nil, msg, &errs)
	r := &perRoute{disabled: msg.GetDisabled(), set: msg.GetConfiguration() != nil}
	r.configuration = wasmhost.Configuration(config.Field("configuration"), msg.GetConfiguration(), &errs)
	r.key = sha256.Sum256(r.configuration)
	if r.disabled && r.set {
		errs.Add(config.Field("configuration"), "has no effect where the plugin is disabled")
	}
	return r, errs.Err()
}

// maxVariants bounds how many configurations one filter's routes may give it.
const maxVariants = 64

// variants are the plugins that routes have given configurations of their own, started when the first
// request needs them.
type variants struct {
	mu      sync.Mutex // guards below
	byKey   map[[sha256.Size]byte]*variant
	retired bool
}

type variant struct {
	running *wasmhost.Running
	waiting []func(*stream.Turn) // guarded by variants.mu
	ready   bool
}

// variant gives the plugin for a route, and calls ready, on another goroutine, once it has started or
// failed if it must be started first. nil: there are too many.
func (f *Factory) variant(r *perRoute, ready func(*stream.Turn)) (v *variant, wait bool) {
	vs := &f.variants
	vs.mu.Lock()
	defer vs.mu.Unlock()
	v = vs.byKey[r.key]
	switch {
	case v != nil && v.ready:
		return v, false
	case v != nil:
	case vs.retired || len(vs.byKey) >= maxVariants:
		return nil, false
	default:
		v = &variant{running: wasmhost.NewRunning(f.Host(), f.config.With(r.configuration), "")}
		if vs.byKey == nil {
			vs.byKey = map[[sha256.Size]byte]*variant{}
		}
		vs.byKey[r.key] = v
		task.Go("wasm route plugin", func() { f.start(v) }, nil)
	}
	v.waiting = append(v.waiting, ready)
	return v, true
}

func (f *Factory) start(v *variant) {
	ctx := context.Background() //nolint:forbidigo // bounded by the start deadline
	if err := v.running.Warm(ctx); err != nil {
		f.Host().Log().Error("wasm: the plugin of a route could not be started", "error", err)
	} else {
		v.running.Await(ctx)
	}
	vs := &f.variants
	vs.mu.Lock()
	v.ready = true
	waiting := v.waiting
	v.waiting = nil
	vs.mu.Unlock()
	stream.Do(func(t *stream.Turn) {
		for _, w := range waiting {
			w(t)
		}
	})
}

// retire lets the plugins of routes go.
func (vs *variants) retire() {
	vs.mu.Lock()
	list := vs.byKey
	vs.byKey, vs.retired = nil, true
	vs.mu.Unlock()
	for _, v := range list {
		v.running.Retire()
	}
}

// routed looks up what the route says, once for a stream: true if that ends the matter for now, with the
// action.
func (f *Filter) routed(end bool) (filter.Action, bool) {
	r, ok := f.s.RouteConfig().(*perRoute)
	switch {
	case !ok:
		return filter.Continue, false
	case r.disabled:
		f.state = bypassed
		return filter.Continue, true
	case !r.set:
		return filter.Continue, false
	}
	if f.plugin != nil {
		f.plugin.Release()
		f.plugin = nil
	}
	var token filter.Resume
	started := func(t *stream.Turn) { token.Call(t, func(t *stream.Turn) { f.goOn(t, r, end) }) }
	token = f.s.Pause(filter.Request)
	v, wait := f.factory.variant(r, started)
	if wait {
		return filter.Wait, true
	}
	f.adopt(v)
	return filter.Continue, false
}

func (f *Filter) adopt(v *variant) {
	if v == nil {
		return
	}
	if f.plugin = v.running.Acquire(); f.plugin != nil {
		f.phases = f.plugin.Phases()
	}
}

// goOn begins a stream whose plugin has started meanwhile. It runs inside the stream.
func (f *Filter) goOn(t *stream.Turn, r *perRoute, end bool) {
	if f.ended || f.state != unbound {
		return
	}
	v, _ := f.factory.variant(r, func(*stream.Turn) {})
	f.adopt(v)
	if f.begin(t, end) == filter.Continue {
		f.s.Pause(filter.Request).Continue(t)
	}
}
