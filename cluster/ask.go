package cluster

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster/host"
	"sidecar/cluster/pool"
)

// The keys of the filter state that say what an upstream connection is to be like, as Envoy's
// TransportSocketOptionsUtility::fromFilterState reads them. A value is text; of those that are lists
// the items are separated by commas.
const (
	serverNameKey = "envoy.network.upstream_server_name"
	sansKey       = "envoy.network.upstream_subject_alt_names"
	alpnKey       = "envoy.network.application_protocols"
)

// AutoSNI is what upstream_http_protocol_options say.
type AutoSNI struct {
	// ServerName takes the SNI from the request's authority, SANs the name that a certificate must have.
	ServerName, SANs bool
	// Header is read instead of the authority if the request has it (override_auto_sni_header); "" for
	// none.
	Header string
}

// Ask works out what a request asks of its connection beyond the configuration of the cluster, for
// Context.Ask. nil is nothing, which it always is on plaintext. authority is that of the request as it
// is sent; h and info may be nil.
//
// DIVERGES(pools-plaintext): Envoy keeps a plaintext connection apart by server name, too, where
// nothing can differ.
func (c *Cluster) Ask(h *header.Map, authority string, info *stream.Info) *filter.ConnectOptions {
	conf := c.conf.Load()
	if !conf.secured() {
		return nil
	}
	auto := &conf.HTTP.AutoSNI
	stated := info != nil && (len(info.FilterState) > 0 || info.Conn != nil && len(info.Conn.FilterState) > 0)
	if !stated && !auto.ServerName && !auto.SANs {
		return nil
	}
	o := &filter.ConnectOptions{}
	if stated {
		// Copied, since the pool outlives the stream.
		o.ServerName = strings.Clone(state(info, info.Conn, serverNameKey))
		o.SANs = list(strings.Clone(state(info, info.Conn, sansKey)))
		o.ALPN = list(strings.Clone(state(info, info.Conn, alpnKey)))
	}
	if h != nil && (auto.ServerName || auto.SANs) {
		if auto.Header != "" {
			if v, ok := h.Get(auto.Header); ok && v != "" {
				authority = v
			}
		}
		auto.apply(o, authority)
	}
	if o.ServerName == "" && len(o.SANs) == 0 && len(o.ALPN) == 0 {
		return nil
	}
	return o
}

// apply takes the names from the authority where the filter state has none; an address is no SNI
// (Router::Filter::decodeHeaders).
func (a *AutoSNI) apply(o *filter.ConnectOptions, authority string) {
	name, address := hostOf(authority)
	if name == "" {
		return
	}
	name = strings.Clone(name) // of the request, which the pool outlives
	if a.ServerName && !address && o.ServerName == "" {
		o.ServerName = name
	}
	if a.SANs && len(o.SANs) == 0 {
		o.SANs = []string{name}
	}
}

// hostOf takes the port off an authority and tells whether the rest is an IP address
// (Http::Utility::parseAuthority).
func hostOf(authority string) (name string, address bool) {
	if _, err := netip.ParseAddr(authority); err == nil {
		return authority, true
	}
	name = authority
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && i > strings.LastIndexByte(authority, ']') {
		if port := authority[i+1:]; port != "" && strings.Trim(port, "0123456789") == "" {
			name = authority[:i]
		}
	}
	bare := name
	if strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") {
		bare = name[1 : len(name)-1]
	}
	if _, err := netip.ParseAddr(bare); err == nil {
		return bare, true
	}
	return name, false
}

// state reads the filter state of a stream, which includes that of its connection.
func state(info *stream.Info, conn *stream.ConnInfo, key string) string {
	o, ok := info.FilterState[key]
	if !ok && conn != nil {
		o, ok = conn.FilterState[key]
	}
	if !ok {
		return ""
	}
	switch v := o.Value.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case fmt.Stringer:
		return v.String()
	}
	return ""
}

func list(text string) []string {
	if text == "" {
		return nil
	}
	items := strings.Split(text, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}

// keyedPool returns the pool for a stream that may ask something of its connection; nil if the host has
// too many.
func (a *active) keyedPool(h *host.Host, ctx *Context, mux bool) *pool.Pool {
	var room [192]byte
	slot := 2 * byte(ctx.Priority)
	if mux {
		slot++
	}
	key := append(room[:0], slot)
	var o filter.ConnectOptions
	var to filter.UpstreamTransport
	if a.pools.Transport != nil {
		to = a.pools.Transport(h)
	}
	if to != nil && ctx.Ask != nil {
		o = *ctx.Ask
		key = appendAsk(key, &o)
	}
	if ctx.Conn != nil {
		if ct, ok := to.(filter.ClientTransport); ok {
			o.Client = &filter.Client{Remote: ctx.Conn.Remote, Local: ctx.Conn.Local, TLVs: ctx.Conn.ProxyTLVs}
			key = ct.AppendClientKey(key, o.Client)
		}
		if a.conf.perDownstream {
			key = fmt.Appendf(key, "\x00#%d", ctx.Conn.ID)
		}
	}
	if len(key) == 1 {
		return a.pool(h, ctx.Priority, mux)
	}
	p, _ := h.KeyedPool(key, func(key string) host.KeyedPool {
		return pool.NewKeyed(&a.pools, h, ctx.Priority, mux, key, &o)
	}).(*pool.Pool)
	return p
}

// appendAsk appends what is asked for, each part with what it is, so that no two requests make the same
// key by chance (Envoy: CommonUpstreamTransportSocketFactory::hashKey; server names have no case).
func appendAsk(key []byte, o *filter.ConnectOptions) []byte {
	if o.ServerName != "" {
		key = append(append(key, "\x00n"...), strings.ToLower(o.ServerName)...)
	}
	for _, s := range o.SANs {
		key = append(append(key, "\x00s"...), s...)
	}
	for _, s := range o.ALPN {
		key = append(append(key, "\x00a"...), s...)
	}
	return key
}

// keyed tells whether streams of the cluster have pools by what their connections are like.
func (c *Config) keyed() bool {
	if c.perDownstream {
		return true
	}
	if !c.secured() {
		return false
	}
	for _, t := range c.transports.all {
		if _, ok := t.(filter.ClientTransport); ok {
			return true
		}
	}
	return false
}
