package istiostats

import (
	"sync"
	"time"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/internal/task"
	"sidecar/internal/workload"
)

// Network is the compiled network filter.
type Network struct{ *Config }

// NewNetworkFilter implements filter.NetworkFactory.
func (n *Network) NewNetworkFilter(conn *filter.Connection) any {
	return &connection{cfg: n.Config, conn: conn, stop: make(chan struct{}), r: newReport()}
}

// connection reports one connection: when its peer is known, every so often, and at its end.
type connection struct {
	// Set by NewNetworkFilter, never changed.
	cfg  *Config
	conn *filter.Connection

	mu       sync.Mutex // guards below
	info     stream.Info
	r        *report
	filled   bool // the values are worked out
	known    bool // info is that of the upstream
	rx, tx   uint64
	ended    bool
	stop     chan struct{}
	watching bool
}

// OnNewConnection implements filter.NewConnection.
func (c *connection) OnNewConnection(*stream.Turn) bool {
	if c.cfg.reporting <= 0 {
		return true
	}
	c.watching = true
	task.Go("istio.stats", func() {
		tick := time.NewTicker(c.cfg.reporting)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.report(false)
			case <-c.stop:
				return
			}
		}
	}, nil)
	return true
}

// OnUpstreamKnown implements filter.UpstreamKnown.
func (c *connection) OnUpstreamKnown(info *stream.Info) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.info, c.known = *info, true
}

// OnConnectionEnd implements filter.ConnectionEnd.
func (c *connection) OnConnectionEnd(info *stream.Info) {
	close(c.stop)
	c.mu.Lock()
	c.info, c.known = *info, true
	c.mu.Unlock()
	c.report(true)
}

// report counts what has come since the last report.
func (c *connection) report(end bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || (!end && (!c.known || !c.peerKnown())) {
		return
	}
	c.ended = end
	x := c.cfg
	x.ticker.tick(x)
	if !c.filled || end {
		c.r.at = attributes{info: &c.info, node: x.env.Node, id: x.env.NodeID}
		c.r.values.fill(x, &c.info, x.peer(&c.info))
	}
	if !c.filled {
		c.filled = true
		x.add(opened, c.r, 1)
	}
	rx, tx := c.conn.Moved()
	x.add(receivedBytes, c.r, rx-c.rx)
	x.add(sentBytes, c.r, tx-c.tx)
	c.rx, c.tx = rx, tx
	if end {
		x.add(closed, c.r, 1)
	}
}

// peerKnown tells whether it is settled who the peer is.
func (c *connection) peerKnown() bool {
	if c.cfg.inbound {
		return workload.Known(c.info.Conn.FilterState, workload.Downstream)
	}
	u := c.info.Upstream.Conn
	return u == nil || workload.Known(u.FilterState, workload.Upstream)
}
