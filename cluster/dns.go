package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"sidecar/api/stream"
	"sidecar/cluster/discover"
)

// dnsFinder keeps the hosts of a STRICT_DNS or LOGICAL_DNS cluster up to date.
type dnsFinder struct {
	// Set by start, never changed.
	c       *Cluster
	conf    *Config
	watches []*discover.Watch

	mu    sync.Mutex // guards below; held while hosts are set, so that updates keep their order
	names []dnsName
	done  bool
}

// dnsName is one configured name and what it stands for.
type dnsName struct {
	locality, endpoint int // its place in the configuration
	addrs              []netip.Addr
	known              bool
}

// startDNS begins to resolve the names of the cluster.
func (c *Cluster) startDNS(conf *Config) {
	f := &dnsFinder{c: c, conf: conf}
	for i := range conf.assignment.localities {
		for j := range conf.assignment.localities[i].hosts {
			if conf.assignment.localities[i].hosts[j].addr.name != "" {
				f.names = append(f.names, dnsName{locality: i, endpoint: j})
			}
		}
	}
	r := c.m.resolver(conf.dns.resolver)
	if len(f.names) == 0 {
		f.apply()
	}
	// Started under the lock: a result may come before the list of watches is complete.
	f.mu.Lock()
	for i := range f.names {
		n := &f.names[i]
		name := conf.assignment.localities[n.locality].hosts[n.endpoint].addr.name
		f.watches = append(f.watches, discover.Start(c.m.opt.Ctx, r, name, &conf.dns.Options, c.m.opt.Random,
			func() { c.sub.Get().UpdateAttempt.Inc() },
			func(a discover.Answer, err error) { f.resolved(i, a, err) }))
	}
	f.mu.Unlock()
	c.find(f)
}

// sharedResolver is a resolver that the clusters of equal options share.
type sharedResolver struct{ discover.Resolver }

func (m *Manager) resolver(o discover.ResolverOptions) *sharedResolver {
	return m.resolvers.get(fmt.Sprintf("%v", o), func() *sharedResolver {
		return &sharedResolver{m.opt.NewResolver(o)}
	})
}

func (f *dnsFinder) stop() {
	f.mu.Lock()
	f.done = true
	f.mu.Unlock()
	for _, w := range f.watches {
		w.Stop()
	}
}

// resolved takes an answer. A failure keeps the hosts; an answer without addresses takes them away,
// except from a LOGICAL_DNS cluster (Envoy: LogicalDnsCluster::startResolve).
func (f *dnsFinder) resolved(i int, a discover.Answer, err error) {
	defer f.c.markReady()
	sub := f.c.sub.Get()
	if err != nil {
		sub.UpdateFailure.Inc()
		f.c.m.opt.Log.Debug("DNS resolution failed", "cluster", f.conf.Name, "error", err)
		return
	}
	sub.UpdateSuccess.Inc()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done {
		return
	}
	n := &f.names[i]
	addrs := unique(a.Addrs)
	switch {
	case len(addrs) == 0 && f.conf.Kind == LogicalDNS:
		f.c.update.Get().Empty.Inc()
		return
	case n.known && sameAddrs(n.addrs, addrs, f.conf.Kind):
		f.c.update.Get().NoRebuild.Inc()
		return
	}
	n.addrs, n.known = addrs, true
	f.apply()
}

// sameAddrs compares answers: servers rotate the addresses of a STRICT_DNS name, which changes
// nothing, while the first one is the address of a LOGICAL_DNS host.
func sameAddrs(a, b []netip.Addr, kind Kind) bool {
	if kind == LogicalDNS {
		return slices.Equal(a, b)
	}
	return discover.SameAddresses(a, b)
}

func unique(addrs []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// apply sets the hosts from what is known; the caller holds mu.
func (f *dnsFinder) apply() {
	out := assignment{policy: f.conf.assignment.policy}
	at := 0
	for i := range f.conf.assignment.localities {
		l := f.conf.assignment.localities[i]
		configured := l.hosts
		l.hosts = nil
		for j := range configured {
			e := configured[j]
			if e.addr.name == "" {
				l.hosts = append(l.hosts, e)
				continue
			}
			l.hosts = append(l.hosts, f.expand(&e, f.names[at].addrs)...)
			at++
		}
		out.localities = append(out.localities, l)
	}
	f.c.setHosts(out)
}

// expand makes the endpoints of one name: one for each address, or one that has them all.
func (f *dnsFinder) expand(e *endpointConfig, addrs []netip.Addr) []endpointConfig {
	one := *e
	if one.hostname == "" {
		one.hostname = e.addr.name
	}
	out := make([]endpointConfig, 0, len(addrs))
	for i, ip := range addrs {
		addr := addrConfig{addr: stream.IPAddr(netip.AddrPortFrom(ip, e.addr.port))}
		if f.conf.Kind == LogicalDNS && i > 0 {
			out[0].more = append(out[0].more, addr)
			continue
		}
		one.addr, one.more = addr, nil
		out = append(out, one)
	}
	return out
}
