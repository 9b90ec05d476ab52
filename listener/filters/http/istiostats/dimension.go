package istiostats

import (
	"cmp"
	"strconv"
	"strings"
	"sync"

	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/grpchttp"
	"sidecar/internal/workload"
)

// The dimensions of Istio's standard metrics, in the order in which they are listed.
const (
	dimReporter = iota
	dimSourceWorkload
	dimSourceCanonicalService
	dimSourceCanonicalRevision
	dimSourceNamespace
	dimSourcePrincipal
	dimSourceApp
	dimSourceVersion
	dimSourceCluster
	dimDestinationWorkload
	dimDestinationNamespace
	dimDestinationPrincipal
	dimDestinationApp
	dimDestinationVersion
	dimDestinationService
	dimDestinationCanonicalService
	dimDestinationCanonicalRevision
	dimDestinationServiceName
	dimDestinationServiceNamespace
	dimDestinationCluster
	dimRequestProtocol
	dimResponseFlags
	dimSecurityPolicy
	// Those below are of HTTP alone.
	dimResponseCode
	dimGRPCStatus
	numDimensions
)

func dimensions() [numDimensions]string {
	return [numDimensions]string{
		dimReporter: "reporter", dimSourceWorkload: "source_workload",
		dimSourceCanonicalService:  "source_canonical_service",
		dimSourceCanonicalRevision: "source_canonical_revision",
		dimSourceNamespace:         "source_workload_namespace", dimSourcePrincipal: "source_principal",
		dimSourceApp: "source_app", dimSourceVersion: "source_version", dimSourceCluster: "source_cluster",
		dimDestinationWorkload:  "destination_workload",
		dimDestinationNamespace: "destination_workload_namespace",
		dimDestinationPrincipal: "destination_principal", dimDestinationApp: "destination_app",
		dimDestinationVersion: "destination_version", dimDestinationService: "destination_service",
		dimDestinationCanonicalService:  "destination_canonical_service",
		dimDestinationCanonicalRevision: "destination_canonical_revision",
		dimDestinationServiceName:       "destination_service_name",
		dimDestinationServiceNamespace:  "destination_service_namespace",
		dimDestinationCluster:           "destination_cluster", dimRequestProtocol: "request_protocol",
		dimResponseFlags: "response_flags", dimSecurityPolicy: "connection_security_policy",
		dimResponseCode: "response_code", dimGRPCStatus: "grpc_response_status",
	}
}

func dimensionOf(name string) int {
	for i, n := range dimensions() {
		if n == name {
			return i
		}
	}
	return -1
}

// What is reported of what is not known.
const (
	unknown = "unknown"
	latest  = "latest"
)

// values are those of all dimensions of one stream or connection.
type values struct {
	dim  [numDimensions]string
	http bool
}

// fill works out what is known of a stream or connection. peer may be nil.
func (v *values) fill(c *Config, info *stream.Info, peer *workload.Workload) {
	s := serviceOf(info.Cluster, info.ClusterMetadata)
	if s.host == "" && c.hostFallback && info.Request != nil {
		s.host = info.Request.Value(header.Authority)
		s.name = cmp.Or(s.name, s.host)
	}
	down, up := info.Conn.TLS, info.Upstream.TLS
	if c.inbound {
		own, other := principals(down)
		v.dim[dimReporter] = "destination"
		v.party(dimSourceWorkload, peer, other)
		v.party(dimDestinationWorkload, c.local, own)
		v.service(s, c.local.CanonicalName, c.local.Namespace)
		v.dim[dimSecurityPolicy] = "none"
		if down != nil && down.PeerPresented {
			v.dim[dimSecurityPolicy] = "mutual_tls"
		}
	} else {
		own, other := principals(up)
		v.dim[dimReporter] = "source"
		v.party(dimSourceWorkload, c.local, own)
		v.party(dimDestinationWorkload, peer, other)
		namespace := ""
		if peer != nil {
			namespace = peer.Namespace
		}
		v.service(s, "", namespace)
		v.dim[dimSecurityPolicy] = unknown
	}
	v.dim[dimRequestProtocol] = "tcp"
	v.dim[dimResponseFlags] = info.Flags.String()
}

// party fills the dimensions of the source or the destination, which begin at first. The service
// stands between those of a destination.
func (v *values) party(first int, w *workload.Workload, principal string) {
	if w == nil {
		w = &workload.Workload{}
	}
	at := [8]int{
		dimSourceWorkload, dimSourceCanonicalService, dimSourceCanonicalRevision, dimSourceNamespace,
		dimSourcePrincipal, dimSourceApp, dimSourceVersion, dimSourceCluster,
	}
	if first == dimDestinationWorkload {
		at = [8]int{
			dimDestinationWorkload, dimDestinationCanonicalService, dimDestinationCanonicalRevision,
			dimDestinationNamespace, dimDestinationPrincipal, dimDestinationApp, dimDestinationVersion,
			dimDestinationCluster,
		}
	}
	v.dim[at[0]] = cmp.Or(w.Name, unknown)
	v.dim[at[1]] = cmp.Or(w.CanonicalName, unknown)
	v.dim[at[2]] = cmp.Or(w.CanonicalRevision, latest)
	v.dim[at[3]] = cmp.Or(w.Namespace, unknown)
	v.dim[at[4]] = cmp.Or(principal, unknown)
	v.dim[at[5]] = cmp.Or(w.App, unknown)
	v.dim[at[6]] = cmp.Or(w.Version, unknown)
	v.dim[at[7]] = cmp.Or(w.Cluster, unknown)
}

func (v *values) service(s service, name, namespace string) {
	v.dim[dimDestinationService] = cmp.Or(cmp.Or(s.host, name), unknown)
	v.dim[dimDestinationServiceName] = cmp.Or(cmp.Or(s.name, name), unknown)
	v.dim[dimDestinationServiceNamespace] = cmp.Or(cmp.Or(s.namespace, namespace), unknown)
}

func principals(t *stream.TLSInfo) (own, peer string) {
	if t == nil {
		return "", ""
	}
	if len(t.Own.URISAN) > 0 {
		own = t.Own.URISAN[0]
	}
	if len(t.Peer.URISAN) > 0 {
		peer = t.Peer.URISAN[0]
	}
	return own, peer
}

type service struct{ host, name, namespace string }

// serviceOf reads the service of a cluster from its metadata.
func serviceOf(cluster string, metadata map[string]map[string]any) service {
	switch cluster {
	case "BlackHoleCluster", "PassthroughCluster", "InboundPassthroughCluster",
		"InboundPassthroughClusterIpv4", "InboundPassthroughClusterIpv6":
		return service{name: cluster}
	}
	list, ok := metadata["istio"]["services"].([]any)
	if !ok || len(list) == 0 {
		return service{}
	}
	m, ok := list[0].(map[string]any)
	if !ok {
		return service{}
	}
	get := func(key string) string {
		s, ok := m[key].(string)
		if !ok {
			return ""
		}
		return s
	}
	s := service{get("host"), get("name"), get("namespace")}
	if s.name == "" {
		s.name, _, _ = strings.Cut(s.host, ".")
	}
	return s
}

// fillHTTP adds what only HTTP streams have.
func (v *values) fillHTTP(info *stream.Info) (grpc bool) {
	v.http = true
	v.dim[dimRequestProtocol], v.dim[dimGRPCStatus] = "http", ""
	v.dim[dimResponseCode] = codeText(info.Status)
	if info.Request == nil || !grpchttp.IsRequest(info.Request) {
		return false
	}
	v.dim[dimRequestProtocol] = "grpc"
	for _, h := range []*header.Map{info.ResponseTrailers, info.Response} {
		if h != nil && h.Has(header.GrpcStatus) {
			v.dim[dimGRPCStatus] = h.Value(header.GrpcStatus)
			return true
		}
	}
	if info.Status != 0 {
		v.dim[dimGRPCStatus] = strconv.Itoa(grpchttp.StatusFromHTTP(info.Status))
	}
	return true
}

// codeTable are the texts of response codes: making one would be an allocation with each request.
//
//nolint:gochecknoglobals // immutable table, made when first needed
var codeTable = sync.OnceValue(func() *[600]string {
	out := new([600]string)
	for i := range out {
		out[i] = strconv.Itoa(i)
	}
	return out
})

func codeText(code int) string {
	if t := codeTable(); code >= 0 && code < len(t) {
		return t[code]
	}
	return strconv.Itoa(code)
}

// key identifies a metric's series; it is appended to b.
func (m *metric) key(b []byte, v *values, at *attributes) []byte {
	for i := range v.last() {
		if !m.removed[i] {
			b = append(append(b, m.value(i, v, at)...), 0)
		}
	}
	for i := range m.extra {
		b = append(append(b, m.extra[i].value.eval(at)...), 0)
	}
	return b
}

// last is how many dimensions there are.
func (v *values) last() int {
	if v.http {
		return numDimensions
	}
	return dimResponseCode
}

func (m *metric) value(i int, v *values, at *attributes) string {
	if e := m.override[i]; e.set {
		return e.eval(at)
	}
	return v.dim[i]
}

// tags names the series.
func (m *metric) tags(v *values, at *attributes) []stats.Tag {
	out := make([]stats.Tag, 0, numDimensions)
	names := dimensions()
	for i := range v.last() {
		if !m.removed[i] {
			out = append(out, stats.Tag{Name: names[i], Value: strings.Clone(m.value(i, v, at))})
		}
	}
	for i := range m.extra {
		out = append(out, stats.Tag{Name: m.extra[i].name, Value: strings.Clone(m.extra[i].value.eval(at))})
	}
	return out
}
