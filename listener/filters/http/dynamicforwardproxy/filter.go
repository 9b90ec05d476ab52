// Package dynamicforwardproxy is the HTTP filter envoy.filters.http.dynamic_forward_proxy: it has the
// name that a request goes to resolved before the router sends the request to a dynamic forward proxy
// cluster, and answers for names that have no address. The filter and the cluster share a DNS cache.
//
// Limitations: no sub-clusters, and the resolved address is not put into the filter state.
package dynamicforwardproxy

import (
	"fmt"
	"strings"

	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_forward_proxy/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/dnscache"
	"sidecar/internal/config"
)

// Name is Envoy's name of the filter.
const Name = "envoy.filters.http.dynamic_forward_proxy"

//nolint:gochecknoglobals // immutable tables
var (
	fields = config.Fields[*dfpv3.FilterConfig]{
		Used:    "dns_cache_config allow_dynamic_host_from_filter_state",
		OffOnly: "save_upstream_address",
		Refused: "sub_cluster_config",
	}
	routeFields = config.Fields[*dfpv3.PerRouteConfig]{Used: "host_rewrite_literal host_rewrite_header"}
)

// Clusters finds clusters by name.
type Clusters interface {
	Get(name string) *cluster.Cluster
	DNSCaches() *dnscache.Caches
}

// Config is a compiled filter.
type Config struct {
	clusters   Clusters
	user       *dnscache.User
	allowState bool
}

// rewrite is a compiled PerRouteConfig.
type rewrite struct{ literal, header string }

// Entry is the filter as the binary knows it.
func Entry(clusters Clusters) filter.HTTPEntry {
	e := filter.RegisterHTTP(Name, &dfpv3.FilterConfig{}, func(m *dfpv3.FilterConfig, _ filter.Context) (any, error) {
		var errs config.Errors
		fields.Check(nil, m, &errs)
		p := config.Field("dns_cache_config")
		conf := cluster.CompileDNSCache(p, m.GetDnsCacheConfig(), &errs)
		if err := clusters.DNSCaches().Check(conf); err != nil {
			errs.Wrap(p, err)
		}
		if err := errs.Err(); err != nil {
			return nil, err
		}
		return &Config{
			clusters: clusters, user: dnscache.NewUser(clusters.DNSCaches(), conf),
			allowState: m.GetAllowDynamicHostFromFilterState(),
		}, nil
	})
	e.Route = &dfpv3.PerRouteConfig{}
	e.CompileRoute = func(m proto.Message, c filter.Context) (any, error) {
		x, ok := m.(*dfpv3.PerRouteConfig)
		if !ok {
			return nil, fmt.Errorf("%s: configuration is a %T", c.Path, m)
		}
		var errs config.Errors
		routeFields.Check(nil, x, &errs)
		return &rewrite{x.GetHostRewriteLiteral(), strings.ToLower(x.GetHostRewriteHeader())}, errs.Err()
	}
	return e
}

// Retire implements filter.Retirer.
func (c *Config) Retire() { c.user.Retire() }

// NewFilter implements filter.Factory.
func (c *Config) NewFilter(s filter.Stream) any { return &Filter{cfg: c, s: s} }

// Filter is the filter of one stream.
type Filter struct {
	cfg    *Config
	s      filter.Stream
	cancel func() // of the lookup that is waited for
}

var (
	_ filter.RequestHeaders = (*Filter)(nil)
	_ filter.Destroyer      = (*Filter)(nil)
	_ filter.Retirer        = (*Config)(nil)
)

// OnRequestHeaders implements filter.RequestHeaders. Requests to other kinds of clusters pass.
func (f *Filter) OnRequestHeaders(t *stream.Turn, h *header.Map, _ bool) filter.Action {
	if f.s.Route() == nil {
		return filter.Continue
	}
	c := f.cfg.clusters.Get(f.s.Info().Cluster)
	if c == nil || c.ForwardPort() == 0 {
		return filter.Continue
	}
	f.rewrite(h)
	name, ok := f.name(c, h)
	if !ok {
		return filter.Continue // the cluster finds no host, and says so
	}
	resume := f.s.Pause(filter.Request)
	r, known, cancel := f.cfg.user.Cache().Load(name, func(r dnscache.Result) {
		stream.Do(func(t *stream.Turn) {
			if len(r.Addrs) > 0 {
				resume.Continue(t)
				return
			}
			resume.Call(t, func(t *stream.Turn) { f.refuse(t, r.Err) })
		})
	})
	if !known {
		f.cancel = cancel
		return filter.Wait
	}
	if len(r.Addrs) > 0 {
		return filter.Continue
	}
	f.refuse(t, r.Err)
	return filter.Done
}

func (f *Filter) rewrite(h *header.Map) {
	x, ok := f.s.RouteConfig().(*rewrite)
	if !ok {
		return
	}
	if x.literal != "" {
		h.SetID(header.Authority, x.literal)
	}
	if x.header != "" {
		if v, ok := h.Get(x.header); ok {
			h.SetID(header.Authority, v)
		}
	}
}

// name is what the request goes to: by its authority, or by the filter state if that is allowed.
func (f *Filter) name(c *cluster.Cluster, h *header.Map) (dnscache.Name, bool) {
	if !f.cfg.allowState {
		return cluster.NameOf(h.Value(header.Authority), c.ForwardPort())
	}
	info := f.s.Info()
	return c.ForwardName(&cluster.Context{Headers: h, Info: info, Conn: info.Conn})
}

// refuse answers for a name without address, in Envoy's words (ProxyFilter::onDnsResolutionFail).
func (f *Filter) refuse(t *stream.Turn, err error) {
	r := &filter.Reply{Status: 503, GRPCStatus: -1}
	switch details := cluster.ResolutionDetails(err); details {
	case dnscache.ErrHostOverflow.Error():
		r.Body, r.Details = "DNS cache overflow", details
	case dnscache.ErrPendingOverflow.Error():
		r.Body = "Dynamic forward proxy pending request overflow"
		r.Details = "dynamic_forward_proxy_pending_request_overflow"
	default:
		r.Body, r.Details, r.Flag = "DNS resolution failure", details, stream.DNSResolutionFailed
	}
	f.s.Reply(t, r)
}

// OnDestroy implements filter.Destroyer.
func (f *Filter) OnDestroy(*stream.Turn) {
	if f.cancel != nil {
		f.cancel()
	}
}
