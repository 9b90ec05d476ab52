package cluster

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
)

// AddStatic compiles and applies a cluster of the bootstrap.
func (m *Manager) AddStatic(msg *clusterv3.Cluster) error {
	conf, err := Compile(msg, m.Env())
	if err != nil {
		return err
	}
	m.Apply(conf, false, "")
	return nil
}

// start begins to find the cluster's hosts.
func (c *Cluster) start() {
	conf := c.conf.Load()
	switch conf.Kind {
	case Static:
		c.setHosts(conf.assignment)
		c.markReady()
	case StrictDNS, LogicalDNS:
		c.startDNS(conf)
	case EDS:
		c.startEDS(conf)
	case DynamicForward:
		c.startForward(conf)
	case OriginalDst:
		c.member.Get()
		c.markReady()
	}
}

// find keeps f for retire; a cluster that was retired meanwhile stops it at once.
func (c *Cluster) find(f finder) {
	c.mu.Lock()
	retired := c.retired
	if !retired {
		c.finder = f
	}
	c.mu.Unlock()
	if retired {
		f.stop()
	}
}

// updateInPlace takes over a configuration that differs in the endpoints alone.
func (c *Cluster) updateInPlace(conf *Config, version string) {
	c.mu.Lock()
	c.info, c.since = version, time.Now()
	c.mu.Unlock()
	conf.transports = c.conf.Load().transports // the same, and in use
	c.conf.Store(conf)
	c.setHosts(conf.assignment)
}
