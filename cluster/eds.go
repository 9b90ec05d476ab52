package cluster

import (
	"fmt"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"sidecar/internal/config/source"
	"sidecar/internal/task"
)

// edsFinder keeps the hosts of one EDS cluster up to date. The methods of the Watcher are called by
// the client's one goroutine.
type edsFinder struct {
	c   *Cluster
	sub source.Subscription
}

func (c *Cluster) startEDS(conf *Config) {
	f := &edsFinder{c: c}
	f.sub = c.m.opt.Subscriber.Subscribe(source.Spec{
		TypeURL:      source.EndpointType,
		Names:        []string{conf.eds.service},
		Source:       conf.eds.source,
		Watcher:      f,
		Stats:        c.sub.Get(),
		ControlPlane: conf.eds.source.ControlPlane(c.scope),
	})
	c.find(f)
}

func (f *edsFinder) stop() {
	f.sub.Close()
	f.c.expect(0)
}

// expect sets when the endpoints are too old to be used (endpoint_stale_after); 0 is never.
func (c *Cluster) expect(within time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stale != nil {
		c.stale.Stop()
		c.stale = nil
	}
	if within == 0 || c.retired {
		return
	}
	c.update.Get().TimeoutReceived.Inc()
	var timer *time.Timer
	timer = time.AfterFunc(within, func() {
		task.Go("endpoints", func() {
			c.mu.Lock()
			due := c.stale == timer
			c.mu.Unlock()
			if due {
				// Envoy: EdsClusterImpl::onAssignmentTimeout applies an empty assignment.
				c.update.Get().AssignmentStale.Inc()
				c.setHosts(assignment{})
			}
		}, nil)
	})
	c.stale = timer
}

// Apply implements source.Watcher.
func (f *edsFinder) Apply(u *source.Update) {
	if len(u.Resources) == 0 {
		f.c.update.Get().Empty.Inc()
		f.c.markReady()
		return
	}
	for _, d := range u.Resources {
		msg, ok := d.Message.(*endpointv3.ClusterLoadAssignment)
		if !ok {
			d.Done(fmt.Errorf("is a %s", d.TypeURL))
			continue
		}
		d.Done(f.c.ApplyAssignment(msg))
	}
}

// Unavailable implements source.Watcher: the cluster goes on without hosts, or with those of the
// version before.
func (f *edsFinder) Unavailable(error) {
	f.c.inherit()
	f.c.markReady()
}

// ApplyAssignment takes over the endpoints of an EDS cluster. The error names what is wrong with its
// field path; the hosts stay as they were then.
func (c *Cluster) ApplyAssignment(msg *endpointv3.ClusterLoadAssignment) error {
	conf := c.conf.Load()
	if conf.Kind != EDS {
		return fmt.Errorf("cluster %q: takes no endpoints by EDS", conf.Name)
	}
	if msg.GetClusterName() != conf.eds.service {
		return fmt.Errorf("cluster_name: is %q, not %q", msg.GetClusterName(), conf.eds.service)
	}
	a, err := compileEDS(msg, c.m.Env())
	if err != nil {
		return err
	}
	c.setHosts(a)
	c.expect(a.staleAfter)
	c.markReady()
	return nil
}

// inherit takes the endpoints of the version that is still live, when both ask for the same.
func (c *Cluster) inherit() {
	old := c.m.Get(c.Name())
	if old == nil || old == c || old.Config().eds == nil || old.Config().eds.service != c.Config().eds.service {
		return
	}
	old.mu.Lock()
	a := old.last
	old.mu.Unlock()
	c.update.Get().UseCached.Inc()
	c.setHosts(a)
}
