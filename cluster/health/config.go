package health

import (
	"encoding/hex"
	"errors"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/match"
	"sidecar/internal/mutate"
)

// The tables of the messages that Compile reads.
//
//nolint:gochecknoglobals // immutable tables
var (
	Fields = config.Fields[*corev3.HealthCheck]{
		Used: `timeout interval initial_jitter interval_jitter interval_jitter_percent unhealthy_threshold
			healthy_threshold alt_port reuse_connection http_health_check tcp_health_check grpc_health_check
			no_traffic_interval no_traffic_healthy_interval unhealthy_interval unhealthy_edge_interval
			healthy_edge_interval transport_socket_match_criteria`,
		Refused: "custom_health_check event_log_path event_logger event_service tls_options",
		OffOnly: "always_log_health_check_failures always_log_health_check_success",
		NoOp:    map[string]string{"name": "only shown in events, which are not written"},
	}
	HTTPFields = config.Fields[*corev3.HealthCheck_HttpHealthCheck]{
		Used: `host path send receive response_buffer_size request_headers_to_add request_headers_to_remove
			expected_statuses retriable_statuses codec_client_type service_name_matcher method`,
		OffOnly: "use_alpn_protocol",
	}
	TCPFields = config.Fields[*corev3.HealthCheck_TcpHealthCheck]{
		Used: "send receive", Refused: "proxy_protocol_config",
	}
	GRPCFields = config.Fields[*corev3.HealthCheck_GrpcHealthCheck]{
		Used: "service_name authority initial_metadata",
	}
	PayloadFields = config.Fields[*corev3.HealthCheck_Payload]{Used: "text binary"}
	StatusFields  = config.Fields[*typev3.Int64Range]{Used: "start end"}
)

// Kind is how hosts are asked.
type Kind uint8

// The kinds of checks.
const (
	HTTP Kind = iota
	TCP
	GRPC
)

// Config is a compiled HealthCheck. It never changes.
type Config struct {
	Kind Kind
	// HTTP2 is the version of HTTP that is spoken.
	HTTP2 bool
	// Reuse keeps connections between checks.
	Reuse bool
	// Criteria, if not nil, choose the transport socket in place of the hosts' metadata.
	Criteria map[string]any

	timeout, initialJitter, jitter                                time.Duration
	interval, noTraffic, noTrafficHealthy                         time.Duration
	unhealthyInterval, unhealthyEdgeInterval, healthyEdgeInterval time.Duration
	jitterPercent                                                 uint32
	unhealthyThreshold, healthyThreshold                          uint32
	altPort                                                       uint16

	host, path, method  string
	send                []byte
	receive             [][]byte
	bufferSize          uint64
	headers             *mutate.Headers
	expected, retriable []statusRange
	service             *match.String
	grpcService         string
}

type statusRange struct{ from, to int }

func in(ranges []statusRange, status int) bool {
	for _, r := range ranges {
		if status >= r.from && status < r.to {
			return true
		}
	}
	return false
}

type compiler struct {
	*Config
	errs *config.Errors
}

// Compile checks the health checks of a cluster, of which there may be one; none gives nil.
func Compile(p *config.Path, list []*corev3.HealthCheck, http2 bool, errs *config.Errors) *Config {
	if len(list) == 0 {
		return nil
	}
	if len(list) > 1 {
		errs.Add(p, "Multiple health checks not supported")
	}
	m, p := list[0], p.Index(0)
	Fields.Check(p, m, errs)
	c := compiler{&Config{Reuse: config.Value(m.GetReuseConnection(), true)}, errs}
	c.times(p, m)
	c.unhealthyThreshold = config.Value(m.GetUnhealthyThreshold(), 0)
	c.healthyThreshold = config.Value(m.GetHealthyThreshold(), 0)
	if m.GetAltPort().GetValue() > 65535 {
		errs.Add(p.Field("alt_port"), "must be at most 65535")
	}
	c.altPort = uint16(m.GetAltPort().GetValue())
	if m.GetTransportSocketMatchCriteria() != nil {
		c.Criteria = m.GetTransportSocketMatchCriteria().AsMap()
	}
	switch h := m.GetHealthChecker().(type) {
	case *corev3.HealthCheck_HttpHealthCheck_:
		c.http(p.Field("http_health_check"), h.HttpHealthCheck)
	case *corev3.HealthCheck_TcpHealthCheck_:
		c.Kind = TCP
		TCPFields.Check(p.Field("tcp_health_check"), h.TcpHealthCheck, errs)
		c.payloads(p.Field("tcp_health_check"), h.TcpHealthCheck.GetSend(), h.TcpHealthCheck.GetReceive())
	case *corev3.HealthCheck_GrpcHealthCheck_:
		c.grpc(p.Field("grpc_health_check"), h.GrpcHealthCheck)
		if !http2 {
			errs.Add(p.Field("grpc_health_check"), "cluster must support HTTP/2 for gRPC healthchecking")
		}
	}
	return c.Config
}

func (c compiler) times(p *config.Path, m *corev3.HealthCheck) {
	for _, d := range []struct {
		to    *time.Duration
		field string
		from  *durationpb.Duration
		def   *time.Duration
	}{
		{&c.timeout, "timeout", m.GetTimeout(), nil},
		{&c.interval, "interval", m.GetInterval(), nil},
		{&c.initialJitter, "initial_jitter", m.GetInitialJitter(), nil},
		{&c.jitter, "interval_jitter", m.GetIntervalJitter(), nil},
		{&c.noTraffic, "no_traffic_interval", m.GetNoTrafficInterval(), nil},
		{&c.noTrafficHealthy, "no_traffic_healthy_interval", m.GetNoTrafficHealthyInterval(), &c.noTraffic},
		{&c.unhealthyInterval, "unhealthy_interval", m.GetUnhealthyInterval(), &c.interval},
		{&c.unhealthyEdgeInterval, "unhealthy_edge_interval", m.GetUnhealthyEdgeInterval(), &c.unhealthyInterval},
		{&c.healthyEdgeInterval, "healthy_edge_interval", m.GetHealthyEdgeInterval(), &c.interval},
	} {
		def := time.Duration(0)
		if d.def != nil {
			def = *d.def
		} else if d.to == &c.noTraffic {
			def = time.Minute
		}
		*d.to = config.Duration(p.Field(d.field), d.from, def, c.errs)
	}
	c.jitterPercent = m.GetIntervalJitterPercent()
}

func (c compiler) http(p *config.Path, m *corev3.HealthCheck_HttpHealthCheck) {
	HTTPFields.Check(p, m, c.errs)
	c.host, c.path, c.method = m.GetHost(), m.GetPath(), m.GetMethod().String()
	if m.GetMethod() == corev3.RequestMethod_METHOD_UNSPECIFIED {
		c.method = "GET"
	}
	switch m.GetCodecClientType() {
	case typev3.CodecClientType_HTTP1:
	case typev3.CodecClientType_HTTP2:
		c.HTTP2 = true
	default:
		c.errs.Addf(p.Field("codec_client_type"), "%s is not supported", m.GetCodecClientType())
	}
	c.payloads(p, m.GetSend(), m.GetReceive())
	if len(c.send) > 0 && (c.method == "GET" || c.method == "HEAD" || c.method == "DELETE" || c.method == "TRACE") {
		c.errs.Add(p.Field("send"), "needs a method whose requests have a body")
	}
	c.bufferSize = config.Value(m.GetResponseBufferSize(), 1024)
	c.headers = mutate.Compile(p, "request_headers", m.GetRequestHeadersToAdd(), m.GetRequestHeadersToRemove(),
		compileLiteral, c.errs)
	c.expected = c.statuses(p.Field("expected_statuses"), m.GetExpectedStatuses())
	if len(c.expected) == 0 {
		c.expected = []statusRange{{200, 201}}
	}
	c.retriable = c.statuses(p.Field("retriable_statuses"), m.GetRetriableStatuses())
	if m.GetServiceNameMatcher() != nil {
		s := match.CompileString(p.Field("service_name_matcher"), m.GetServiceNameMatcher(), c.errs)
		c.service = &s
	}
}

func (c compiler) grpc(p *config.Path, m *corev3.HealthCheck_GrpcHealthCheck) {
	GRPCFields.Check(p, m, c.errs)
	c.Kind, c.HTTP2, c.method, c.path = GRPC, true, "POST", "/grpc.health.v1.Health/Check"
	c.host, c.grpcService = m.GetAuthority(), m.GetServiceName()
	c.expected, c.bufferSize = []statusRange{{200, 201}}, 1024
	c.headers = mutate.Compile(p, "initial_metadata", m.GetInitialMetadata(), nil, compileLiteral, c.errs)
	c.send = grpcRequest(m.GetServiceName())
}

func (c compiler) statuses(p *config.Path, list []*typev3.Int64Range) (out []statusRange) {
	for i, r := range list {
		StatusFields.Check(p.Index(i), r, c.errs)
		if r.GetStart() < 100 || r.GetEnd() > 600 || r.GetStart() >= r.GetEnd() {
			c.errs.Addf(p.Index(i), "Invalid http status range: expecting 100 <= start < end <= 600, but found start=%d and end=%d",
				r.GetStart(), r.GetEnd())
			continue
		}
		out = append(out, statusRange{int(r.GetStart()), int(r.GetEnd())})
	}
	return out
}

func (c compiler) payloads(p *config.Path, send *corev3.HealthCheck_Payload, receive []*corev3.HealthCheck_Payload) {
	c.send = c.payload(p.Field("send"), send)
	for i, r := range receive {
		c.receive = append(c.receive, c.payload(p.Field("receive").Index(i), r))
	}
}

func (c compiler) payload(p *config.Path, m *corev3.HealthCheck_Payload) []byte {
	PayloadFields.Check(p, m, c.errs)
	if m == nil || len(m.GetBinary()) > 0 {
		return m.GetBinary()
	}
	b, err := hex.DecodeString(m.GetText())
	if err != nil {
		c.errs.Add(p.Field("text"), "invalid hex string: "+m.GetText())
	}
	return b
}

// literal is a header's value without operators.
type literal string

// Append implements mutate.Formatter.
func (l literal) Append(dst []byte, _ *stream.Info) []byte { return append(dst, l...) }

// Constant implements mutate.Formatter.
func (l literal) Constant() (string, bool) { return string(l), true }

func compileLiteral(text string) (mutate.Formatter, error) {
	plain := strings.ReplaceAll(text, "%%", "")
	if strings.Contains(plain, "%") {
		return nil, errors.New("operators are not supported in the headers of a health check")
	}
	return literal(strings.ReplaceAll(text, "%%", "%")), nil
}
