// Package proxyprotocol is the listener filter envoy.filters.listener.proxy_protocol: it takes the
// PROXY protocol header (version 1 or 2) off the front of a connection and restores the addresses
// that it names.
//
// Limitations: TLVs go to dynamic metadata and to upstream PROXY headers only, not to the filter state.
package proxyprotocol

import (
	"bytes"
	"errors"
	"fmt"
	"net"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config"
)

//nolint:gochecknoglobals // immutable tables
var (
	fields = config.Fields[*proxyprotocolv3.ProxyProtocol]{
		Used:    "rules allow_requests_without_proxy_protocol disallowed_versions stat_prefix pass_through_tlvs",
		OffOnly: "tlv_location",
	}
	passFields = config.Fields[*corev3.ProxyProtocolPassThroughTLVs]{Used: "match_type tlv_type"}
	ruleFields = config.Fields[*proxyprotocolv3.ProxyProtocol_Rule]{Used: "tlv_type on_tlv_present"}
	pairFields = config.Fields[*proxyprotocolv3.ProxyProtocol_KeyValuePair]{
		Used: "metadata_namespace key", OffOnly: "value_string_encoding",
	}
)

// namespace is where the values of TLVs go if a rule names none.
const namespace = "envoy.filters.listener.proxy_protocol"

// Stats are "proxy_proto.", with the filter's own prefix if it has one.
type Stats struct {
	NotFoundAllowed    stats.Counter `stat:"not_found_allowed"`
	NotFoundDisallowed stats.Counter `stat:"not_found_disallowed"`
	V1                 VersionStats  `stat:"versions.v1"`
	V2                 VersionStats  `stat:"versions.v2"`
}

// VersionStats are those of one version of the protocol.
type VersionStats struct {
	Found      stats.Counter `stat:"found"`
	Disallowed stats.Counter `stat:"disallowed"`
	Error      stats.Counter `stat:"error"`
}

// Filter is the compiled filter.
type Filter struct {
	stats      *Stats
	errors     *stats.Counter // "downstream_cx_proxy_proto_error", of all listeners
	rules      map[byte]rule
	optional   bool
	noV1, noV2 bool
	// passAll and pass say which TLVs are kept for an upstream PROXY header.
	passAll bool
	pass    map[byte]bool
}

type rule struct{ namespace, key string }

// Compile makes the filter from a ProxyProtocol.
func Compile(m proto.Message, c filter.ListenerContext) (filter.ListenerFilter, error) {
	x, ok := m.(*proxyprotocolv3.ProxyProtocol)
	if !ok {
		return nil, fmt.Errorf("configuration is a %T", m)
	}
	var errs config.Errors
	fields.Check(nil, x, &errs)
	name := "proxy_proto"
	if x.GetStatPrefix() != "" {
		name += "." + x.GetStatPrefix()
	}
	f := &Filter{rules: map[byte]rule{}, optional: x.GetAllowRequestsWithoutProxyProtocol()}
	for i, r := range x.GetRules() {
		p := config.Field("rules").Index(i)
		ruleFields.Check(p, r, &errs)
		pairFields.Check(p.Field("on_tlv_present"), r.GetOnTlvPresent(), &errs)
		if r.GetTlvType() > 255 {
			errs.Add(p.Field("tlv_type"), "must be less than 256")
		}
		to := rule{r.GetOnTlvPresent().GetMetadataNamespace(), r.GetOnTlvPresent().GetKey()}
		if to.namespace == "" {
			to.namespace = namespace
		}
		f.rules[byte(r.GetTlvType())] = to
	}
	f.compilePass(config.Field("pass_through_tlvs"), x.GetPassThroughTlvs(), &errs)
	for i, v := range x.GetDisallowedVersions() {
		switch v {
		case corev3.ProxyProtocolConfig_V1:
			f.noV1 = true
		case corev3.ProxyProtocolConfig_V2:
			f.noV2 = true
		default:
			errs.Addf(config.Field("disallowed_versions").Index(i), "unknown version %d", v)
		}
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	f.stats = stats.Bind[Stats](c.Scope.Sub(name))
	f.errors = c.Scope.Counter("downstream_cx_proxy_proto_error")
	return f, nil
}

func (f *Filter) compilePass(p *config.Path, m *corev3.ProxyProtocolPassThroughTLVs, errs *config.Errors) {
	if m == nil {
		return
	}
	passFields.Check(p, m, errs)
	f.passAll = m.GetMatchType() == corev3.ProxyProtocolPassThroughTLVs_INCLUDE_ALL
	f.pass = map[byte]bool{}
	for _, kind := range m.GetTlvType() {
		f.pass[byte(kind)] = true // less than 256, by the validation
	}
}

// Entry is the filter for the table of the binary.
func Entry() filter.ListenerEntry {
	return filter.ListenerEntry{
		Name: "envoy.filters.listener.proxy_protocol", Config: &proxyprotocolv3.ProxyProtocol{}, Compile: Compile,
	}
}

// OnAccept implements filter.ListenerFilter.
func (f *Filter) OnAccept(net.Conn, *stream.ConnInfo) (more bool) { return true }

// Inspect implements filter.ListenerFilter.
func (f *Filter) Inspect(p []byte, info *stream.ConnInfo) (int, filter.Verdict) {
	switch detect(p) {
	case undecided:
		return 0, filter.More
	case none:
		return f.notFound()
	case v1:
		return f.header(p, info, parseV1, &f.stats.V1, f.noV1)
	case v2:
		return f.header(p, info, parseV2, &f.stats.V2, f.noV2)
	}
	return 0, filter.Reject
}

func (f *Filter) notFound() (int, filter.Verdict) {
	if f.optional {
		f.stats.NotFoundAllowed.Inc()
		return 0, filter.Next
	}
	f.stats.NotFoundDisallowed.Inc()
	f.errors.Inc()
	return 0, filter.Reject
}

func (f *Filter) header(p []byte, info *stream.ConnInfo, parse func([]byte) (header, error),
	st *VersionStats, disallowed bool,
) (int, filter.Verdict) {
	if disallowed && f.optional {
		return f.notFound() // Envoy passes such a header on as the application's data
	}
	if disallowed {
		st.Found.Inc()
		st.Disallowed.Inc()
		return 0, filter.Reject
	}
	h, err := parse(p)
	switch {
	case errors.Is(err, errIncomplete):
		return 0, filter.More
	case errors.Is(err, errTooLong):
		return f.notFound()
	case err != nil:
		st.Error.Inc()
		f.errors.Inc()
		return 0, filter.Reject
	}
	st.Found.Inc()
	f.restore(&h, info)
	return h.size, filter.Next
}

// restore writes what the header says to the connection.
func (f *Filter) restore(h *header, info *stream.ConnInfo) {
	if !h.src.IsValid() {
		return
	}
	info.Remote = stream.IPAddr(h.src)
	if local := stream.IPAddr(h.dst); local != info.Local {
		info.Local, info.LocalRestored = local, true
	}
	if len(f.rules) == 0 && f.pass == nil {
		return
	}
	_ = eachTLV(h.tlvs, func(kind byte, value []byte) { // it was walked before
		if f.passAll || f.pass[kind] {
			info.ProxyTLVs = append(info.ProxyTLVs, stream.ProxyTLV{Type: kind, Value: bytes.Clone(value)})
		}
		to, ok := f.rules[kind]
		if !ok {
			return
		}
		if info.Metadata == nil {
			info.Metadata = map[string]map[string]any{}
		}
		space := info.Metadata[to.namespace]
		if space == nil {
			space = map[string]any{}
			info.Metadata[to.namespace] = space
		}
		if _, twice := space[to.key]; !twice { // the first one counts
			space[to.key] = text(value)
		}
	})
}
