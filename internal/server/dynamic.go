package server

import (
	"errors"
	"fmt"
	"sync"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"sidecar/api/stats"
	"sidecar/internal/config/source"
	"sidecar/listener"
	"sidecar/xds/warm"
)

// listenerWatcher applies what LDS brings.
type listenerWatcher struct {
	s     *Server
	first *warm.Target
	once  sync.Once
}

func (s *Server) subscribeListeners(src *source.ConfigSource, first *warm.Target) {
	w := &listenerWatcher{s: s, first: first}
	scope := s.scope.Sub("listener_manager.lds")
	s.subs = append(s.subs, s.xds.Subscribe(source.Spec{
		TypeURL: source.ListenerType, Source: src, Watcher: w,
		Stats: stats.Bind[source.Stats](scope), ControlPlane: src.ControlPlane(scope),
	}))
}

// Apply implements source.Watcher. The answer to the server does not wait for listeners to warm: what
// they wait for (routes, plugins) has answers of its own.
func (w *listenerWatcher) Apply(u *source.Update) {
	for _, name := range u.Removed {
		if !w.s.staticListeners[name] { // those of the bootstrap stay, as in Envoy
			w.s.listeners.Remove(name)
		}
	}
	for _, d := range u.Resources {
		msg, ok := d.Message.(*listenerv3.Listener)
		if !ok {
			d.Done(fmt.Errorf("is a %s", d.TypeURL))
			continue
		}
		if msg.GetName() == "" {
			d.Done(errors.New("name: a dynamic listener needs one"))
			continue
		}
		t := w.s.init.Add("listener " + msg.GetName())
		w.s.listeners.Apply(msg, d.Version, false, listener.Outcome{Started: d.Done, Ready: t.Ready})
	}
	w.s.ldsVersion.Store(&u.Version)
	w.s.configured()
	w.once.Do(w.first.Ready)
}

// Unavailable implements source.Watcher.
func (w *listenerWatcher) Unavailable(error) { w.once.Do(w.first.Ready) }
