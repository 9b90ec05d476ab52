package cluster

import (
	"context"
	"fmt"
	"reflect"
	"sync/atomic"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/cluster/host"
	"sidecar/internal/config"
	"sidecar/internal/netfilter"
	"sidecar/internal/task"
)

// matchMetadata is where the labels of an endpoint stand that choose its transport socket.
const matchMetadata = "envoy.transport_socket_match"

//nolint:gochecknoglobals // immutable tables
var (
	transportFields   = config.Fields[*corev3.TransportSocket]{Used: "name typed_config"}
	networkFields     = config.Fields[*clusterv3.Filter]{Used: "name typed_config", Refused: "config_discovery"}
	socketMatchFields = config.Fields[*clusterv3.Cluster_TransportSocketMatch]{
		Used: "name match transport_socket",
	}
)

// transports are what the connections of a cluster run on: the first of the matches whose labels an
// endpoint has, else the default. It belongs to one version of a cluster and does not change.
type transports struct {
	fallback filter.UpstreamTransport // nil: plaintext
	matches  []transportMatch
	all      []filter.UpstreamTransport
	filters  netfilter.Chain             // above the transport
	scope    atomic.Pointer[stats.Scope] // of the cluster, once there is one
}

type transportMatch struct {
	name   string
	labels map[string]any
	to     filter.UpstreamTransport
	count  *stats.Lazy[matchStats] // nil until there is a scope
}

// matchStats are "cluster.NAME.MATCH.".
type matchStats struct {
	Total stats.Counter `stat:"total_match_count"`
}

// of returns the transport of a host; nil is plaintext.
func (x *transports) of(h *host.Host) filter.UpstreamTransport {
	if m := x.match(h.Attr()); m != nil {
		return m.to
	}
	return x.fallback
}

// match finds the match of a host: by its own metadata, else by its locality's; nil is the default
// (TransportSocketMatcherImpl::resolve).
func (x *transports) match(a *host.Attributes) *transportMatch {
	for _, labels := range [...]map[string]any{a.Metadata[matchMetadata], a.LocalityMetadata[matchMetadata]} {
		for i := range x.matches {
			if hasLabels(labels, x.matches[i].labels) {
				return &x.matches[i]
			}
		}
	}
	return nil
}

// bind makes the statistics, which are under the cluster's scope.
func (x *transports) bind(s *stats.Scope) {
	x.scope.Store(s)
	for i := range x.matches {
		x.matches[i].count = stats.BindLazy[matchStats](s.Sub(x.matches[i].name))
	}
}

// countMatch counts which transport is chosen for a host.
func (c *Cluster) countMatch(a *host.Attributes) {
	if x := c.conf.Load().transports; x != nil {
		if m := x.match(a); m != nil {
			m.count.Get().Total.Inc()
			return
		}
	}
	c.member.Get().DefaultMatch.Inc()
}

func hasLabels(have, want map[string]any) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || !reflect.DeepEqual(got, v) {
			return false
		}
	}
	return true
}

// await waits until what the transports need has come, such as secrets, or is not waited for any more.
func (x *transports) await(ctx context.Context) error {
	for _, t := range x.parts() {
		if w, ok := t.(filter.Warmer); ok {
			if err := w.Warm(ctx); err != nil {
				return err
			}
		}
	}
	for _, t := range x.parts() {
		if a, ok := t.(filter.Awaiter); ok {
			a.Await(ctx)
		}
	}
	return nil
}

// parts are what may have to be warmed, waited for and retired.
func (x *transports) parts() []any {
	out := make([]any, 0, len(x.all)+len(x.filters))
	for _, t := range x.all {
		out = append(out, t)
	}
	for _, f := range x.filters {
		out = append(out, f)
	}
	return out
}

func (x *transports) retire() {
	for _, t := range x.parts() {
		if r, ok := t.(filter.Retirer); ok {
			r.Retire()
		}
	}
}

// transports compiles transport_socket and transport_socket_matches.
func (c *compiler) transports() {
	x := &transports{}
	x.fallback = c.transport(x, config.Field("transport_socket"), c.msg.GetTransportSocket())
	for i, m := range c.msg.GetTransportSocketMatches() {
		p := config.Field("transport_socket_matches").Index(i)
		socketMatchFields.Check(p, m, c.errs)
		x.matches = append(x.matches, transportMatch{
			name: m.GetName(), labels: m.GetMatch().AsMap(), to: c.transport(x, p.Field("transport_socket"), m.GetTransportSocket()),
		})
	}
	c.networkFilters(x)
	if len(x.all)+len(x.filters)+len(x.matches) > 0 {
		c.conf.transports = x
	}
}

// networkFilters compiles filters, which see connections above their transport.
func (c *compiler) networkFilters(x *transports) {
	for i, f := range c.msg.GetFilters() {
		p := config.Field("filters").Index(i)
		networkFields.Check(p, f, c.errs)
		p = p.Field("typed_config")
		name := string(config.TypeName(f.GetTypedConfig()))
		e := c.env.Network[name]
		if e == nil || !e.Upstream {
			c.errs.Addf(p, "network filter %q (%s) is not supported in a cluster", f.GetName(), name)
			continue
		}
		opened, ok := config.OpenAs[proto.Message](p, f.GetTypedConfig(), c.errs)
		if !ok {
			continue
		}
		made, err := e.Compile(opened, filter.NetworkContext{
			Path: p.String(), Name: f.GetName(), Scope: c.env.Scope, ListenerScope: c.env.Scope, Log: c.env.Log,
			BufferLimit: int(c.set.BufferLimit),
		})
		if err != nil {
			c.errs.Wrap(p, err)
			continue
		}
		if factory, ok := made.(filter.NetworkFactory); ok {
			x.filters = append(x.filters, factory)
		} else {
			c.errs.Add(p, "is not a network filter for clusters")
		}
	}
}

// secured tells whether the connections of a cluster may have a transport socket.
func (c *Config) secured() bool { return c.transports != nil && len(c.transports.all) > 0 }

// transport compiles one transport socket; nil leaves the bytes as they are.
func (c *compiler) transport(x *transports, p *config.Path, ts *corev3.TransportSocket) filter.UpstreamTransport {
	if ts == nil {
		return nil
	}
	transportFields.Check(p, ts, c.errs)
	if ts.GetTypedConfig() == nil {
		if ts.GetName() != "envoy.transport_sockets.raw_buffer" && ts.GetName() != "raw_buffer" {
			c.errs.Addf(p.Field("name"), "transport socket %q is not supported", ts.GetName())
		}
		return nil
	}
	p = p.Field("typed_config")
	name := config.TypeName(ts.GetTypedConfig())
	if name == (&rawbufferv3.RawBuffer{}).ProtoReflect().Descriptor().FullName() {
		return nil
	}
	e := c.env.Transports[string(name)]
	if e == nil {
		c.errs.Addf(p, "transport socket %s is not supported", name)
		return nil
	}
	opened, ok := config.OpenAs[proto.Message](p, ts.GetTypedConfig(), c.errs)
	if !ok {
		return nil
	}
	made, err := e.Compile(opened, filter.TransportContext{
		Path: p.String(), Scope: x.scope.Load, Server: c.env.Scope, Log: c.env.Log,
	})
	if err != nil {
		c.errs.Wrap(p, err)
		return nil
	}
	up, ok := made.(filter.UpstreamTransport)
	if !ok {
		c.errs.Add(p, fmt.Sprintf("transport socket %s is not one for upstreams", name))
		return nil
	}
	x.all = append(x.all, up)
	return up
}

// startTransports begins to wait for what the cluster's transports need.
func (c *Cluster) startTransports() {
	x := c.conf.Load().transports
	if x == nil {
		return
	}
	ctx, cancel := context.WithCancel(c.m.opt.Ctx)
	c.mu.Lock()
	retired := c.retired
	c.awaiting, c.stopAwait = !retired, cancel
	c.mu.Unlock()
	if retired {
		cancel()
		return
	}
	task.Go("cluster transports", func() {
		if err := x.await(ctx); err != nil && ctx.Err() == nil {
			c.m.opt.Log.Warn("a transport socket is not ready", "cluster", c.Name(), "error", err)
		}
		cancel()
		c.mu.Lock()
		c.awaiting = false
		gone := c.retired
		c.mu.Unlock()
		if gone {
			x.retire()
		}
		c.secure()
	}, func(*task.Panic) { c.secure() })
}

// endTransports lets go of what the transports hold; whoever waits for it does so itself.
func (c *Cluster) endTransports() {
	x := c.conf.Load().transports
	if x == nil {
		return
	}
	c.mu.Lock()
	waits, stop := c.awaiting, c.stopAwait
	c.mu.Unlock()
	if stop != nil {
		stop()
	}
	if !waits {
		x.retire()
	}
}
