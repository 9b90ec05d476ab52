package http

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"
	"time"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/wasmhost/abi"
)

// filterStatePrefix is put before the names of what plugins set as properties.
const filterStatePrefix = "wasm."

// AppendProperty implements abi.Properties: Envoy's attributes, then what a plugin has set.
func (f *Filter) AppendProperty(b []byte, path string) ([]byte, abi.Status) {
	if out, s := f.plugin.AppendProperty(b, path); s == abi.OK {
		return out, s
	}
	i := f.Info()
	if i == nil {
		return b, abi.NotFound
	}
	root, rest, _ := strings.Cut(path, "\x00")
	out, s := f.attribute(b, i, root, rest)
	if s != abi.NotFound {
		return out, s
	}
	if o, ok := i.FilterState[filterStatePrefix+path]; ok {
		return appendObject(b, o.Value)
	}
	return b, abi.NotFound
}

// SetProperty implements abi.Properties: it never changes an attribute.
func (f *Filter) SetProperty(path string, value []byte) abi.Status {
	i := f.Info()
	if i == nil || f.ended {
		return abi.NotFound
	}
	key := filterStatePrefix + path
	if i.FilterState[key].ReadOnly {
		return abi.BadArgument
	}
	if i.FilterState == nil {
		i.FilterState = map[string]stream.FilterObject{}
	}
	i.FilterState[key] = stream.FilterObject{Value: append([]byte(nil), value...)}
	return abi.OK
}

func (f *Filter) attribute(b []byte, i *stream.Info, root, rest string) ([]byte, abi.Status) {
	switch root {
	case "request":
		return f.request(b, i, rest)
	case "response":
		return f.response(b, i, rest)
	case "source":
		return address(b, i.Conn.Remote, rest)
	case "destination":
		return address(b, i.Conn.Local, rest)
	case "connection":
		return connection(b, i.Conn, rest)
	case "connection_id":
		return appendInt(b, int64(i.Conn.ID)), abi.OK
	case "upstream":
		return upstream(b, i, rest)
	case "metadata":
		return metadata(b, i.Metadata, rest)
	case "xds":
		return xds(b, i, rest)
	case "filter_state":
		if o, ok := i.FilterState[rest]; ok {
			return appendObject(b, o.Value)
		}
	}
	return b, abi.NotFound
}

func appendInt(b []byte, v int64) []byte { return binary.LittleEndian.AppendUint64(b, uint64(v)) }

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// text is a string attribute; an empty one counts as missing.
func text(b []byte, s string) ([]byte, abi.Status) {
	if s == "" {
		return b, abi.NotFound
	}
	return append(b, s...), abi.OK
}

func duration(b []byte, d time.Duration) ([]byte, abi.Status) {
	if d == stream.Unset {
		return b, abi.NotFound
	}
	return appendInt(b, int64(d)), abi.OK
}

// field is a header of a map.
func field(b []byte, m *header.Map, name string) ([]byte, abi.Status) {
	v, ok := m.Joined(strings.ToLower(name))
	if !ok {
		return b, abi.NotFound
	}
	return append(b, v...), abi.OK
}

// fields is a header, or all as pairs when no name is given.
func fields(b []byte, m *header.Map, name string) ([]byte, abi.Status) {
	if m == nil {
		return b, abi.NotFound
	}
	if name != "" {
		return field(b, m, name)
	}
	var pairs [][2]string
	seen := map[string]bool{}
	for i := range m.Len() {
		n, _ := m.At(i)
		if !seen[n] {
			seen[n] = true
			v, _ := m.Joined(n)
			pairs = append(pairs, [2]string{n, v})
		}
	}
	return abi.AppendPairs(b, pairs), abi.OK
}

// request: what depends on the map is there only while the plugin can reach the map.
func (f *Filter) request(b []byte, i *stream.Info, name string) ([]byte, abi.Status) {
	switch name {
	case "":
		return b, abi.SerializationFailure
	case "protocol":
		return text(b, i.Protocol.String())
	case "time":
		return appendInt(b, i.Start.UnixNano()), abi.OK
	case "duration":
		return duration(b, i.Complete)
	}
	m, _ := f.Headers(abi.RequestHeaders)
	if m == nil {
		return b, abi.NotFound
	}
	name, rest, _ := strings.Cut(name, "\x00")
	path := m.Value(header.Path)
	switch name {
	case "path":
		return text(b, path)
	case "url_path":
		p, _, _ := strings.Cut(path, "?")
		return text(b, p)
	case "query":
		_, q, _ := strings.Cut(path, "?")
		q, _, _ = strings.Cut(q, "#")
		return append(b, q...), abi.OK
	case "host":
		return field(b, m, ":authority")
	case "scheme":
		return field(b, m, ":scheme")
	case "method":
		return field(b, m, ":method")
	case "referer":
		return field(b, m, "referer")
	case "useragent":
		return field(b, m, "user-agent")
	case "id":
		return field(b, m, "x-request-id")
	case "headers":
		return fields(b, m, rest)
	case "headers_bytes":
		return appendInt(b, int64(m.Bytes())), abi.OK
	case "size":
		return appendInt(b, bodySize(m, i.BytesReceived)), abi.OK
	case "total_size":
		return appendInt(b, int64(m.Bytes())+int64(i.BytesReceived)), abi.OK
	}
	return b, abi.NotFound
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

func (f *Filter) response(b []byte, i *stream.Info, name string) ([]byte, abi.Status) {
	name, rest, _ := strings.Cut(name, "\x00")
	switch name {
	case "":
		return b, abi.SerializationFailure
	case "code":
		if i.Status == 0 {
			return b, abi.NotFound
		}
		return appendInt(b, int64(i.Status)), abi.OK
	case "code_details":
		return text(b, i.Details)
	case "flags":
		return appendInt(b, int64(i.Flags)), abi.OK
	case "size":
		return appendInt(b, int64(i.BytesSent)), abi.OK
	case "backend_latency":
		if i.FirstTxUpstream == stream.Unset || i.LastRxUpstream == stream.Unset {
			return b, abi.NotFound
		}
		return duration(b, i.LastRxUpstream-i.FirstTxUpstream)
	case "trailers":
		m, _ := f.Headers(abi.ResponseTrailers)
		return fields(b, m, rest)
	}
	m, _ := f.Headers(abi.ResponseHeaders)
	if m == nil {
		return b, abi.NotFound
	}
	switch name {
	case "headers":
		return fields(b, m, rest)
	case "headers_bytes":
		return appendInt(b, int64(m.Bytes())), abi.OK
	case "total_size":
		return appendInt(b, int64(m.Bytes())+int64(i.BytesSent)), abi.OK
	case "grpc_status":
		if n, err := strconv.Atoi(m.Value(header.GrpcStatus)); err == nil {
			return appendInt(b, int64(n)), abi.OK
		}
	}
	return b, abi.NotFound
}

func address(b []byte, a stream.Addr, name string) ([]byte, abi.Status) {
	switch name {
	case "address":
		return text(b, a.String())
	case "port":
		if a.IP.IsValid() {
			return appendInt(b, int64(a.IP.Port())), abi.OK
		}
	}
	return b, abi.NotFound
}

func connection(b []byte, c *stream.ConnInfo, name string) ([]byte, abi.Status) {
	switch name {
	case "id":
		return appendInt(b, int64(c.ID)), abi.OK
	case "mtls":
		return appendBool(b, c.TLS != nil && c.TLS.PeerPresented), abi.OK
	case "requested_server_name":
		return text(b, c.SNI)
	case "termination_details":
		return text(b, c.TerminationDetail)
	case "transport_failure_reason":
		return text(b, c.TransportFailure)
	}
	return certificate(b, c.TLS, name)
}

func certificate(b []byte, t *stream.TLSInfo, name string) ([]byte, abi.Status) {
	if t == nil {
		return b, abi.NotFound
	}
	first := func(list []string) ([]byte, abi.Status) {
		if len(list) == 0 {
			return b, abi.NotFound
		}
		return text(b, list[0])
	}
	switch name {
	case "tls_version":
		return text(b, t.Version)
	case "subject_local_certificate":
		return text(b, t.Own.Subject)
	case "subject_peer_certificate":
		return text(b, t.Peer.Subject)
	case "dns_san_local_certificate":
		return first(t.Own.DNSSAN)
	case "dns_san_peer_certificate":
		return first(t.Peer.DNSSAN)
	case "uri_san_local_certificate":
		return first(t.Own.URISAN)
	case "uri_san_peer_certificate":
		return first(t.Peer.URISAN)
	case "sha256_peer_certificate_digest":
		return text(b, t.Peer.SHA256)
	case "peer_certificate":
		return text(b, t.Peer.PEM)
	}
	return b, abi.NotFound
}

func upstream(b []byte, i *stream.Info, name string) ([]byte, abi.Status) {
	u := &i.Upstream
	switch name {
	case "address", "port":
		return address(b, u.Host, name)
	case "local_address":
		return text(b, u.Local.String())
	case "transport_failure_reason":
		return text(b, u.TransportFailure)
	case "request_attempt_count":
		return appendInt(b, int64(i.Attempts)), abi.OK
	case "cx_pool_ready_duration":
		if u.PoolReady <= 0 {
			return b, abi.NotFound
		}
		return duration(b, u.PoolReady)
	}
	return certificate(b, u.TLS, name)
}

// xds: node attributes and metadata as messages are not served.
func xds(b []byte, i *stream.Info, name string) ([]byte, abi.Status) {
	name, rest, _ := strings.Cut(name, "\x00")
	switch name {
	case "cluster_name":
		return text(b, i.Cluster)
	case "route_name":
		return text(b, i.RouteName)
	case "virtual_host_name":
		return text(b, i.VirtualHost)
	case "filter_chain_name":
		return text(b, i.Conn.Chain)
	case "listener_direction":
		return appendInt(b, int64(i.Conn.Direction)), abi.OK
	case "cluster_metadata":
		return metadata(b, i.ClusterMetadata, rest)
	case "route_metadata":
		return metadata(b, i.RouteMetadata, rest)
	case "virtual_host_metadata":
		return metadata(b, i.VirtualHostMetadata, rest)
	case "listener_metadata":
		return metadata(b, i.Conn.ListenerMetadata, rest)
	case "upstream_host_metadata":
		return metadata(b, i.Upstream.HostMetadata, rest)
	}
	return b, abi.NotFound
}

// metadata goes down from "filter_metadata", a name space and keys to a value.
func metadata(b []byte, m map[string]map[string]any, path string) ([]byte, abi.Status) {
	kind, path, _ := strings.Cut(path, "\x00")
	if kind != "filter_metadata" {
		return b, abi.NotFound
	}
	ns, path, _ := strings.Cut(path, "\x00")
	space, ok := m[ns]
	if !ok {
		return b, abi.NotFound
	}
	var v any = space
	for path != "" {
		var key string
		key, path, _ = strings.Cut(path, "\x00")
		switch at := v.(type) {
		case map[string]any:
			if v, ok = at[key]; !ok {
				return b, abi.NotFound
			}
		case []any:
			n, err := strconv.Atoi(key)
			if err != nil || n < 0 || n >= len(at) {
				return b, abi.NotFound
			}
			v = at[n]
		default:
			return b, abi.NotFound
		}
	}
	return appendObject(b, v)
}

// appendObject serialises a value as Envoy does: strings as they are, numbers in 8 bytes, maps and
// lists as pairs.
func appendObject(b []byte, v any) ([]byte, abi.Status) {
	switch v := v.(type) {
	case string:
		return append(b, v...), abi.OK
	case []byte:
		return append(b, v...), abi.OK
	case bool:
		return appendBool(b, v), abi.OK
	case int64:
		return appendInt(b, v), abi.OK
	case float64:
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(v)), abi.OK
	case map[string]any:
		pairs := make([][2]string, 0, len(v))
		for key, value := range v {
			s, status := appendObject(nil, value)
			if status != abi.OK {
				return b, status
			}
			pairs = append(pairs, [2]string{key, string(s)})
		}
		return abi.AppendPairs(b, pairs), abi.OK
	case []any:
		pairs := make([][2]string, 0, len(v))
		for _, value := range v {
			s, status := appendObject(nil, value)
			if status != abi.OK {
				return b, status
			}
			pairs = append(pairs, [2]string{string(s)})
		}
		return abi.AppendPairs(b, pairs), abi.OK
	}
	return b, abi.SerializationFailure
}

// cloneStrings copies the strings of a record that may point into header maps.
func cloneStrings(i *stream.Info) {
	for _, s := range []*string{
		&i.Details, &i.RouteName, &i.VirtualHost, &i.VirtualCluster, &i.Cluster, &i.RequestID,
		&i.LocalReplyBody, &i.UpstreamAltStatName, &i.OriginalPath, &i.ResponseTrigger,
		&i.ConnectionTermDetail,
	} {
		*s = strings.Clone(*s)
	}
}
