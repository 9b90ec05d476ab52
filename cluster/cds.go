package cluster

import (
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"sidecar/api/stats"
	"sidecar/internal/config/source"
)

// cdsWatcher applies what the management server says of clusters. Its methods are called by the xDS
// client's one goroutine.
type cdsWatcher struct {
	m     *Manager
	first func()
}

// StartCDS subscribes to all clusters that the server has for this node. first is called once: when
// the first answer was applied, or is not to be had in time. The clusters of that answer may be
// warming then; see WhenReady.
func (m *Manager) StartCDS(src *source.ConfigSource, first func()) source.Subscription {
	scope := m.root.Sub("cluster_manager").Sub("cds")
	return m.opt.Subscriber.Subscribe(source.Spec{
		TypeURL:      source.ClusterType,
		Source:       src,
		Watcher:      &cdsWatcher{m: m, first: first},
		Stats:        stats.Bind[source.Stats](scope),
		ControlPlane: src.ControlPlane(scope),
	})
}

// Apply implements source.Watcher.
func (w *cdsWatcher) Apply(u *source.Update) {
	if u.Version != "" {
		w.m.SetVersion(u.Version)
	}
	for _, d := range u.Resources {
		d.Done(w.apply(d))
	}
	for _, name := range u.Removed {
		w.m.Remove(name)
	}
	w.answered()
}

func (w *cdsWatcher) apply(d *source.Delivery) error {
	msg, ok := d.Message.(*clusterv3.Cluster)
	if !ok {
		return fmt.Errorf("is a %s", d.TypeURL)
	}
	conf, err := Compile(msg, w.m.Env())
	if err != nil {
		return err
	}
	w.m.Apply(conf, true, d.Version)
	return nil
}

// Unavailable implements source.Watcher.
func (w *cdsWatcher) Unavailable(err error) {
	w.m.opt.Log.Warn("no clusters from CDS yet", "error", err)
	w.answered()
}

func (w *cdsWatcher) answered() {
	if w.first != nil {
		w.first()
		w.first = nil
	}
}
