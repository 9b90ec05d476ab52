package cluster

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/api/stream"
	"sidecar/cluster/host"
	"sidecar/internal/task"
)

// originalDst says where an ORIGINAL_DST cluster finds the address of a request.
type originalDst struct {
	header  string // "" for none
	port    uint16
	hasPort bool
	// space and path are where dynamic metadata has it; "" for nowhere.
	space string
	path  []string
}

// dstStateKey is the filter state that has the address before anything else (set_filter_state).
const dstStateKey = "envoy.network.transport_socket.original_dst_address"

// dstHosts are the hosts of an ORIGINAL_DST cluster, made as requests ask for them and removed when
// none has for the cleanup interval.
type dstHosts struct {
	// Set by newDstHosts, never changed.
	c     *Cluster
	conf  originalDst
	every time.Duration

	mu    sync.RWMutex // guards below
	hosts map[netip.AddrPort]*dstHost
	timer *time.Timer
	armed bool
}

type dstHost struct {
	*host.Host
	used atomic.Bool
}

// dstAttr are the attributes of hosts that nobody configured.
//
//nolint:gochecknoglobals // immutable
var dstAttr = &host.Attributes{Weight: 1}

func newDstHosts(c *Cluster, every time.Duration) *dstHosts {
	return &dstHosts{
		c: c, conf: c.Config().originalDst, every: every, hosts: map[netip.AddrPort]*dstHost{},
	}
}

// choose returns the host of a request's destination, nil when it has none.
func (d *dstHosts) choose(ctx *Context) *host.Host {
	addr, ok := d.address(ctx)
	if !ok {
		return nil
	}
	d.mu.RLock()
	h := d.hosts[addr]
	d.mu.RUnlock()
	if h == nil {
		h = d.add(addr)
	}
	if !h.used.Load() {
		h.used.Store(true)
	}
	return h.Host
}

// address works out the destination (OriginalDstCluster::LoadBalancer::chooseHost).
func (d *dstHosts) address(ctx *Context) (netip.AddrPort, bool) {
	addr, ok := d.stated(ctx)
	if !ok && d.conf.header != "" && ctx.Headers != nil {
		if v, has := ctx.Headers.Get(d.conf.header); has {
			addr, ok = d.parse(v)
		}
	}
	if !ok && ctx.Conn != nil && ctx.Conn.LocalRestored {
		addr = ctx.Conn.Local.IP
	}
	if d.conf.hasPort {
		addr = netip.AddrPortFrom(addr.Addr(), d.conf.port)
	}
	return addr, addr.IsValid()
}

// stated reads the address from filter state or dynamic metadata.
func (d *dstHosts) stated(ctx *Context) (netip.AddrPort, bool) {
	if ctx.Info == nil {
		return netip.AddrPort{}, false
	}
	if len(ctx.Info.FilterState) > 0 || ctx.Conn != nil && len(ctx.Conn.FilterState) > 0 {
		if v := state(ctx.Info, ctx.Conn, dstStateKey); v != "" {
			if addr, ok := d.parse(v); ok {
				return addr, true
			}
		}
	}
	if d.conf.space == "" {
		return netip.AddrPort{}, false
	}
	v, ok := text(ctx.Info.Metadata[d.conf.space], d.conf.path)
	if !ok && ctx.Conn != nil {
		v, ok = text(ctx.Conn.Metadata[d.conf.space], d.conf.path)
	}
	if !ok {
		return netip.AddrPort{}, false
	}
	return d.parse(v)
}

// text follows a path in metadata to a string.
func text(in map[string]any, path []string) (string, bool) {
	var v any = in
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return "", false
		}
		v = m[key]
	}
	s, ok := v.(string)
	return s, ok
}

func (d *dstHosts) parse(v string) (netip.AddrPort, bool) {
	parsed, err := netip.ParseAddrPort(v)
	if err != nil {
		d.c.update.Get().DstHostInvalid.Inc()
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(parsed.Addr().Unmap(), parsed.Port()), true
}

func (d *dstHosts) add(addr netip.AddrPort) *dstHost {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h := d.hosts[addr]; h != nil {
		return h
	}
	h := &dstHost{Host: host.New(stream.IPAddr(addr), "", nil, dstAttr)}
	d.hosts[addr] = h
	d.c.countMatch(dstAttr)
	d.count()
	if !d.armed {
		d.arm()
	}
	return h
}

func (d *dstHosts) arm() {
	d.armed = true
	if d.timer == nil {
		d.timer = time.AfterFunc(d.every, func() { task.Go("original_dst cleanup", d.cleanup, nil) })
		return
	}
	d.timer.Reset(d.every)
}

// count keeps the membership gauges; the caller holds mu.
func (d *dstHosts) count() {
	m := d.c.member.Get()
	m.Total.Set(int64(len(d.hosts)))
	m.Healthy.Set(int64(len(d.hosts)))
	m.Degraded.Set(0)
	m.Excluded.Set(0)
	m.Change.Inc()
}

// cleanup removes hosts that no request has asked for since the last time and that none uses.
func (d *dstHosts) cleanup() {
	var gone []*host.Host
	d.mu.Lock()
	for addr, h := range d.hosts {
		if !h.used.Swap(false) && h.Active() == 0 {
			delete(d.hosts, addr)
			gone = append(gone, h.Host)
		}
	}
	d.armed = false
	if len(d.hosts) > 0 {
		d.arm()
	}
	if len(gone) > 0 {
		d.count()
	}
	d.mu.Unlock()
	for _, h := range gone {
		h.Drain(true)
	}
	d.c.forget(gone)
}

func (d *dstHosts) size() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.hosts)
}

func (d *dstHosts) all() []*host.Host {
	d.mu.RLock()
	defer d.mu.RUnlock()
	hosts := make([]*host.Host, 0, len(d.hosts))
	for _, h := range d.hosts {
		hosts = append(hosts, h.Host)
	}
	return hosts
}

// stopped ends the cleaning up: the cluster is retired.
func (d *dstHosts) stopped() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
}
