// Package snidynamicforwardproxy is the network filter
// envoy.filters.network.sni_dynamic_forward_proxy: it has the server name that a client asked for
// resolved before a TCP proxy connects to it by a dynamic forward proxy cluster, and says which port.
//
// Limitations: the resolved address is not put into the filter state.
package snidynamicforwardproxy

import (
	"fmt"

	snidfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_dynamic_forward_proxy/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/dnscache"
	"sidecar/internal/config"
)

// Name is Envoy's name of the filter.
const Name = "envoy.filters.network.sni_dynamic_forward_proxy"

//nolint:gochecknoglobals // immutable table
var fields = config.Fields[*snidfpv3.FilterConfig]{
	Used: "dns_cache_config port_value", OffOnly: "save_upstream_address",
}

// defaultPort is that of a configuration without one.
const defaultPort = 443

// Config is a compiled filter.
type Config struct {
	user *dnscache.User
	port uint16
}

// Entry is the filter as the binary knows it.
func Entry(caches func() *dnscache.Caches) *filter.NetworkEntry {
	return &filter.NetworkEntry{
		Name: Name, Config: &snidfpv3.FilterConfig{},
		Compile: func(m proto.Message, _ filter.NetworkContext) (any, error) {
			x, ok := m.(*snidfpv3.FilterConfig)
			if !ok {
				return nil, fmt.Errorf("configuration is a %T", m)
			}
			return compile(x, caches())
		},
	}
}

func compile(m *snidfpv3.FilterConfig, caches *dnscache.Caches) (any, error) {
	var errs config.Errors
	fields.Check(nil, m, &errs)
	p := config.Field("dns_cache_config")
	conf := cluster.CompileDNSCache(p, m.GetDnsCacheConfig(), &errs)
	if err := caches.Check(conf); err != nil {
		errs.Wrap(p, err)
	}
	c := &Config{user: dnscache.NewUser(caches, conf), port: defaultPort}
	if n := m.GetPortValue(); n > 65535 {
		errs.Add(config.Field("port_value"), "must be at most 65535")
	} else if n > 0 {
		c.port = uint16(n)
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

// Retire implements filter.Retirer.
func (c *Config) Retire() { c.user.Retire() }

// NewNetworkFilter implements filter.NetworkFactory.
func (c *Config) NewNetworkFilter(conn *filter.Connection) any { return &Filter{c, conn.Info} }

// Filter is the filter of one connection.
type Filter struct {
	cfg  *Config
	info *stream.ConnInfo
}

var (
	_ filter.NetworkFactory = (*Config)(nil)
	_ filter.NewConnection  = (*Filter)(nil)
	_ filter.Retirer        = (*Config)(nil)
)

// OnNewConnection implements filter.NewConnection: it waits for the name, for as long as a lookup may
// take. Whether the name has an address is for the cluster to say.
func (f *Filter) OnNewConnection(*stream.Turn) bool {
	if f.info.SNI == "" {
		return true
	}
	if _, ok := f.info.FilterState[cluster.DynamicPortKey]; !ok {
		f.info.SetFilterState(cluster.DynamicPortKey, stream.FilterObject{Value: int64(f.cfg.port)})
	}
	name, ok := cluster.ForwardName(f.info, f.cfg.port)
	if !ok {
		return true
	}
	done := make(chan dnscache.Result, 1)
	r, known, _ := f.cfg.user.Cache().Load(name, func(r dnscache.Result) { done <- r })
	if !known {
		r = <-done
	}
	return !dnscache.Overflow(r.Err)
}
