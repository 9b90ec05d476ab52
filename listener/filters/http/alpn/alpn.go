// Package alpn is Istio's HTTP filter istio.alpn: it says which application protocols are offered to
// the upstream of a request, by the version of HTTP that it is sent with.
package alpn

import (
	"strings"

	"sidecar/api/filter"
	"sidecar/api/header"
	alpnpb "sidecar/api/sidecar/istio/alpn"
	"sidecar/api/stream"
	"sidecar/internal/config"
)

// Name is Istio's name of the filter.
const Name = "istio.alpn"

// stateKey is where the application protocols of an upstream connection are asked for.
const stateKey = "envoy.network.application_protocols"

//nolint:gochecknoglobals // immutable tables
var (
	fields         = config.Fields[*alpnpb.FilterConfig]{Used: "alpn_override"}
	overrideFields = config.Fields[*alpnpb.FilterConfig_AlpnOverride]{Used: "upstream_protocol alpn_override"}
)

// Upstream tells which version of HTTP a cluster is spoken to with, and its metadata; ok is false if
// there is no such cluster.
type Upstream func(cluster string, downstream stream.Protocol) (p stream.Protocol, metadata map[string]map[string]any, ok bool)

// Config is a compiled filter; it is the filter of every stream, too.
type Config struct {
	upstream  Upstream
	protocols map[stream.Protocol]stream.FilterObject
}

// Entry is the filter as the binary knows it.
func Entry(upstream Upstream) filter.HTTPEntry {
	return filter.RegisterHTTP(Name, &alpnpb.FilterConfig{},
		func(m *alpnpb.FilterConfig, _ filter.Context) (any, error) { return compile(m, upstream) })
}

func compile(m *alpnpb.FilterConfig, upstream Upstream) (any, error) {
	var errs config.Errors
	fields.Check(nil, m, &errs)
	c := &Config{upstream: upstream, protocols: map[stream.Protocol]stream.FilterObject{}}
	for i, o := range m.GetAlpnOverride() {
		overrideFields.Check(config.Field("alpn_override").Index(i), o, &errs)
		p := stream.HTTP10
		switch o.GetUpstreamProtocol() {
		case alpnpb.FilterConfig_HTTP10:
		case alpnpb.FilterConfig_HTTP11:
			p = stream.HTTP11
		case alpnpb.FilterConfig_HTTP2:
			p = stream.HTTP2
		}
		if len(o.GetAlpnOverride()) > 0 {
			c.protocols[p] = stream.FilterObject{Value: strings.Join(o.GetAlpnOverride(), ","), ReadOnly: true}
		}
	}
	return c, errs.Err()
}

// NewFilter implements filter.Factory.
func (c *Config) NewFilter(s filter.Stream) any { return one{c, s} }

type one struct {
	*Config
	s filter.Stream
}

// OnRequestHeaders implements filter.RequestHeaders.
func (o one) OnRequestHeaders(*stream.Turn, *header.Map, bool) filter.Action {
	r := o.s.Route()
	if r == nil || r.ClusterName() == "" {
		return filter.Continue
	}
	info := o.s.Info()
	p, metadata, ok := o.upstream(r.ClusterName(), info.Protocol)
	if !ok || metadata["istio"]["alpn_override"] == "false" {
		return filter.Continue
	}
	if v, ok := o.protocols[p]; ok {
		info.SetFilterState(stateKey, v)
	}
	return filter.Continue
}
