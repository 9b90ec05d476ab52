package attribute

import (
	"strconv"
	"strings"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/wasmhost/abi"
)

// Prefix is put before the names of what plugins set as properties, in the filter state.
const Prefix = "wasm."

// Source is what attributes are read from. Fields that are nil have no attributes.
type Source struct {
	Info *stream.Info
	// Maps gives the header maps as far as the plugin can reach them now.
	Maps interface {
		Headers(m abi.MapType) (*header.Map, abi.Status)
	}
	Node *Node
	// Endpoints counts a cluster's hosts; nil: not known.
	Endpoints func(cluster string) (int, bool)
}

// Lookup finds the attribute of a path, whose segments are separated by NUL: Envoy's roots, then what
// plugins have set.
func (s *Source) Lookup(path string) (Value, abi.Status) {
	root, rest, _ := strings.Cut(path, "\x00")
	if v, st := s.attribute(root, rest); st != abi.NotFound {
		return v, st
	}
	if s.Info != nil {
		if o, ok := s.Info.FilterState[Prefix+path]; ok {
			return objectValue(o.Value), abi.OK
		}
	}
	return Value{}, abi.NotFound
}

func (s *Source) attribute(root, rest string) (Value, abi.Status) {
	switch root {
	case "node":
		// DIVERGES(wasm-legacy-properties): Envoy has dropped the names of before xds.*, plugins have not.
		return found(s.Node.lookup(rest))
	case "xds":
		return s.xds(rest)
	}
	i := s.Info
	if i == nil {
		return missing()
	}
	switch root {
	case "request":
		return s.request(i, rest)
	case "response":
		return s.response(i, rest)
	case "source":
		return address(i.Conn.Remote, rest)
	case "destination":
		return address(i.Conn.Local, rest)
	case "connection":
		return connection(i.Conn, rest)
	case "connection_id":
		return intValue(int64(i.Conn.ID)), abi.OK
	case "upstream":
		return s.upstream(i, rest)
	case "metadata":
		return metadata(i.Metadata, rest)
	case "filter_state":
		return filterState(i, rest)
	case "cluster_name", "cluster_metadata", "route_name", "route_metadata", "listener_direction",
		"listener_metadata", "upstream_host_metadata":
		if rest != "" {
			root += "\x00" + rest
		}
		return s.xds(root)
	}
	return missing()
}

func missing() (Value, abi.Status) { return Value{}, abi.NotFound }

func found(v Value, ok bool) (Value, abi.Status) {
	if !ok {
		return missing()
	}
	return v, abi.OK
}

// text is a string attribute; an empty one counts as missing.
func text(s string) (Value, abi.Status) {
	if s == "" {
		return missing()
	}
	return textValue(s), abi.OK
}

func duration(d time.Duration) (Value, abi.Status) {
	if d == stream.Unset {
		return missing()
	}
	return durationValue(d), abi.OK
}

// field is a header of a map.
func field(m *header.Map, name string) (Value, abi.Status) {
	v, ok := m.Joined(strings.ToLower(name))
	return found(textValue(v), ok)
}

// fields is a header, or all when no name is given.
func fields(m *header.Map, name string) (Value, abi.Status) {
	if m == nil {
		return missing()
	}
	if name != "" {
		return field(m, name)
	}
	return objectValue(headerMap{m}), abi.OK
}

// headerMap is all headers as a map attribute, joined and in their order.
type headerMap struct{ m *header.Map }

// AppendPairs implements abi.Pairs.
func (h headerMap) AppendPairs(b []byte) []byte {
	var pairs [][2]string
	h.each(func(name, value string) { pairs = append(pairs, [2]string{name, value}) })
	return abi.AppendPairs(b, pairs)
}

// AsMap is what expressions see.
func (h headerMap) AsMap() map[string]any {
	out := map[string]any{}
	h.each(func(name, value string) { out[name] = value })
	return out
}

func (h headerMap) each(yield func(name, value string)) {
	seen := map[string]bool{}
	for i := range h.m.Len() {
		n, _ := h.m.At(i)
		if !seen[n] {
			seen[n] = true
			v, _ := h.m.Joined(n)
			yield(n, v)
		}
	}
}

func (s *Source) headers(m abi.MapType) *header.Map {
	if s.Maps == nil {
		return nil
	}
	h, _ := s.Maps.Headers(m)
	return h
}

// request: what depends on the map is there only while the plugin can reach the map.
func (s *Source) request(i *stream.Info, name string) (Value, abi.Status) {
	switch name {
	case "":
		return Value{}, abi.SerializationFailure
	case "protocol":
		return text(i.Protocol.String())
	case "time":
		return timeValue(i.Start), abi.OK
	case "duration":
		return duration(i.Complete)
	}
	m := s.headers(abi.RequestHeaders)
	if m == nil {
		return missing()
	}
	name, rest, _ := strings.Cut(name, "\x00")
	path := m.Value(header.Path)
	switch name {
	case "path":
		return text(path)
	case "url_path":
		p, _, _ := strings.Cut(path, "?")
		return text(p)
	case "query":
		_, q, _ := strings.Cut(path, "?")
		q, _, _ = strings.Cut(q, "#")
		return textValue(q), abi.OK
	case "host":
		return field(m, ":authority")
	case "scheme":
		return field(m, ":scheme")
	case "method":
		return field(m, ":method")
	case "referer":
		return field(m, "referer")
	case "useragent":
		return field(m, "user-agent")
	case "id":
		return field(m, "x-request-id")
	case "headers":
		return fields(m, rest)
	case "headers_bytes":
		return intValue(int64(m.Bytes())), abi.OK
	case "size":
		return intValue(bodySize(m, i.BytesReceived)), abi.OK
	case "total_size":
		return intValue(int64(m.Bytes()) + int64(i.BytesReceived)), abi.OK
	}
	return missing()
}

// bodySize is the content-length if it is a number, else what was seen.
func bodySize(m *header.Map, seen uint64) int64 {
	if v, ok := m.Get("content-length"); ok {
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return n
		}
	}
	return int64(seen)
}

func (s *Source) response(i *stream.Info, name string) (Value, abi.Status) {
	name, rest, _ := strings.Cut(name, "\x00")
	switch name {
	case "":
		return Value{}, abi.SerializationFailure
	case "code":
		return found(intValue(int64(i.Status)), i.Status != 0)
	case "code_details":
		return text(i.Details)
	case "flags":
		return intValue(int64(i.Flags)), abi.OK
	case "size":
		return intValue(int64(i.BytesSent)), abi.OK
	case "backend_latency":
		if i.FirstTxUpstream == stream.Unset || i.LastRxUpstream == stream.Unset {
			return missing()
		}
		return duration(i.LastRxUpstream - i.FirstTxUpstream)
	case "trailers":
		return fields(s.headers(abi.ResponseTrailers), rest)
	case "grpc_status":
		for _, t := range []abi.MapType{abi.ResponseTrailers, abi.ResponseHeaders} {
			if m := s.headers(t); m != nil {
				if n, err := strconv.Atoi(m.Value(header.GrpcStatus)); err == nil {
					return intValue(int64(n)), abi.OK
				}
			}
		}
		return missing()
	}
	m := s.headers(abi.ResponseHeaders)
	if m == nil {
		return missing()
	}
	switch name {
	case "headers":
		return fields(m, rest)
	case "headers_bytes":
		return intValue(int64(m.Bytes())), abi.OK
	case "total_size":
		return intValue(int64(m.Bytes()) + int64(i.BytesSent)), abi.OK
	}
	return missing()
}

func address(a stream.Addr, name string) (Value, abi.Status) {
	switch name {
	case "address":
		return text(a.String())
	case "port":
		if a.IP.IsValid() {
			return intValue(int64(a.IP.Port())), abi.OK
		}
	}
	return missing()
}

func connection(c *stream.ConnInfo, name string) (Value, abi.Status) {
	switch name {
	case "id":
		return intValue(int64(c.ID)), abi.OK
	case "mtls":
		return boolValue(c.TLS != nil && c.TLS.PeerPresented), abi.OK
	case "requested_server_name":
		return text(c.SNI)
	case "termination_details":
		return text(c.TerminationDetail)
	case "transport_failure_reason":
		return text(c.TransportFailure)
	}
	return certificate(c.TLS, name)
}

func certificate(t *stream.TLSInfo, name string) (Value, abi.Status) {
	if t == nil {
		return missing()
	}
	first := func(list []string) (Value, abi.Status) {
		if len(list) == 0 {
			return missing()
		}
		return text(list[0])
	}
	switch name {
	case "tls_version":
		return text(t.Version)
	case "subject_local_certificate":
		return text(t.Own.Subject)
	case "subject_peer_certificate":
		return text(t.Peer.Subject)
	case "dns_san_local_certificate":
		return first(t.Own.DNSSAN)
	case "dns_san_peer_certificate":
		return first(t.Peer.DNSSAN)
	case "uri_san_local_certificate":
		return first(t.Own.URISAN)
	case "uri_san_peer_certificate":
		return first(t.Peer.URISAN)
	case "sha256_peer_certificate_digest":
		return text(t.Peer.SHA256)
	case "peer_certificate":
		return text(t.Peer.PEM)
	}
	return missing()
}

func (s *Source) upstream(i *stream.Info, name string) (Value, abi.Status) {
	u := &i.Upstream
	switch name {
	case "address", "port":
		return address(u.Host, name)
	case "local_address":
		return text(u.Local.String())
	case "transport_failure_reason":
		return text(u.TransportFailure)
	case "request_attempt_count":
		return intValue(int64(i.Attempts)), abi.OK
	case "cx_pool_ready_duration":
		if u.PoolReady <= 0 {
			return missing()
		}
		return duration(u.PoolReady)
	case "locality":
		if u.Region == "" && u.Zone == "" && u.SubZone == "" {
			return missing()
		}
		return messageValue(localityMessage(u.Region, u.Zone, u.SubZone)), abi.OK
	case "num_endpoints":
		if s.Endpoints == nil || i.Cluster == "" {
			return missing()
		}
		n, ok := s.Endpoints(i.Cluster)
		return found(intValue(int64(n)), ok)
	}
	return certificate(u.TLS, name)
}

func (s *Source) xds(name string) (Value, abi.Status) {
	name, rest, _ := strings.Cut(name, "\x00")
	if name == "node" {
		return found(s.Node.lookup(rest))
	}
	i := s.Info
	if i == nil {
		return missing()
	}
	switch name {
	case "cluster_name":
		return text(i.Cluster)
	case "route_name":
		return text(i.RouteName)
	case "virtual_host_name":
		return text(i.VirtualHost)
	case "filter_chain_name":
		return text(i.Conn.Chain)
	case "listener_direction":
		return intValue(int64(i.Conn.Direction)), abi.OK
	case "cluster_metadata":
		return metadata(i.ClusterMetadata, rest)
	case "route_metadata":
		return metadata(i.RouteMetadata, rest)
	case "virtual_host_metadata":
		return metadata(i.VirtualHostMetadata, rest)
	case "listener_metadata":
		return metadata(i.Conn.ListenerMetadata, rest)
	case "upstream_host_metadata":
		return metadata(i.Upstream.HostMetadata, rest)
	}
	return missing()
}

// metadata is the whole message, or goes down from "filter_metadata", a name space and keys to a value.
func metadata(m map[string]map[string]any, path string) (Value, abi.Status) {
	if path == "" && m != nil {
		return messageValue(metadataMessage(m)), abi.OK
	}
	kind, path, _ := strings.Cut(path, "\x00")
	if kind != "filter_metadata" || m == nil {
		return missing()
	}
	if path == "" {
		all := make(map[string]any, len(m))
		for ns, v := range m {
			all[ns] = v
		}
		return objectValue(all), abi.OK
	}
	ns, path, _ := strings.Cut(path, "\x00")
	space, ok := m[ns]
	if !ok {
		return missing()
	}
	v, ok := descend(space, path)
	return found(objectValue(v), ok)
}

// descend follows keys of maps and indexes of lists.
func descend(v any, path string) (any, bool) {
	for path != "" {
		var key string
		key, path, _ = strings.Cut(path, "\x00")
		switch at := v.(type) {
		case map[string]any:
			got, ok := at[key]
			if !ok {
				return nil, false
			}
			v = got
		case []any:
			n, err := strconv.Atoi(key)
			if err != nil || n < 0 || n >= len(at) {
				return nil, false
			}
			v = at[n]
		default:
			return nil, false
		}
	}
	return v, true
}

// fielder is an object of the filter state that has fields.
type fielder interface {
	FilterStateField(name string) (string, bool)
}

// filterState is an object by its name, or one of its fields.
func filterState(i *stream.Info, path string) (Value, abi.Status) {
	name, rest, _ := strings.Cut(path, "\x00")
	o, ok := i.FilterState[name]
	if !ok {
		if o, ok = i.Conn.FilterState[name]; !ok {
			return missing()
		}
	}
	if rest == "" {
		return objectValue(o.Value), abi.OK
	}
	f, ok := o.Value.(fielder)
	if !ok {
		return missing()
	}
	v, ok := f.FilterStateField(rest)
	return found(textValue(v), ok)
}

// Any is a value for expressions: what is lazily kept becomes a map.
func Any(v Value) any {
	if h, ok := v.any.(headerMap); ok {
		return h.AsMap()
	}
	return v.Any()
}

// factories are the objects of the filter state that plugins may set by their own names, as those that
// Envoy can make from bytes.
//
//nolint:gochecknoglobals // immutable table
var factories = map[string]bool{
	"envoy.tcp_proxy.cluster": true, "envoy.tcp_proxy.disable_tunneling": true,
	"envoy.network.upstream_server_name": true, "envoy.network.application_protocols": true,
	"envoy.network.upstream_subject_alt_names": true, "envoy.string": true, "envoy.hashable_string": true,
	"envoy.network.transport_socket.original_dst_address": true,
	"envoy.filters.listener.original_dst.local_ip":        true,
	"envoy.filters.listener.original_dst.remote_ip":       true, "envoy.ratelimit.hits_addend": true,
}

// SetState puts an object of Envoy's into the filter state of a stream.
func SetState(i *stream.Info, name string, value []byte) abi.Status {
	if i == nil || !factories[name] {
		return abi.NotFound
	}
	return put(i, name, string(value), false)
}

// SetProperty stores what a plugin sets: it never changes an attribute.
func SetProperty(i *stream.Info, path string, value []byte, d abi.Declared) abi.Status {
	if i == nil {
		return abi.NotFound
	}
	var v any = append([]byte(nil), value...)
	if d.Text {
		v = string(value)
	}
	return put(i, Prefix+strings.Clone(path), v, d.ReadOnly)
}

func put(i *stream.Info, key string, v any, readOnly bool) abi.Status {
	if i.FilterState[key].ReadOnly {
		return abi.BadArgument
	}
	if _, ok := i.FilterState[key]; !ok && len(i.FilterState) >= maxObjects {
		return abi.InternalFailure
	}
	i.SetFilterState(key, stream.FilterObject{Value: v, ReadOnly: readOnly})
	return abi.OK
}

// maxObjects bounds what plugins may set on one stream; Envoy has no bound.
const maxObjects = 1024
