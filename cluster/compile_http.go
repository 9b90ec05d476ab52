package cluster

import (
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	preservecasev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"sidecar/internal/config"
	"sidecar/internal/config/protocol"
)

// HTTPOptionsName is the key of HttpProtocolOptions in typed_extension_protocol_options.
const httpOptionsName = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

var (
	httpOptionsFields = config.Fields[*httpv3.HttpProtocolOptions]{
		Used: "upstream_http_protocol_options common_http_protocol_options explicit_http_config use_downstream_protocol_config auto_config",
		Refused: `http_filters header_validation_config
			outlier_detection request_mirror_policies hash_policy retry_policy`,
	}
	autoSNIFields = config.Fields[*corev3.UpstreamHttpProtocolOptions]{
		Used: "auto_sni auto_san_validation override_auto_sni_header",
	}
	explicitFields = config.Fields[*httpv3.HttpProtocolOptions_ExplicitHttpConfig]{
		Used: "http_protocol_options http2_protocol_options", Refused: "http3_protocol_options",
	}
	autoFields = config.Fields[*httpv3.HttpProtocolOptions_AutoHttpConfig]{
		Used:    "http_protocol_options http2_protocol_options",
		Refused: "http3_protocol_options alternate_protocols_cache_options",
	}
	downstreamFields = config.Fields[*httpv3.HttpProtocolOptions_UseDownstreamHttpConfig]{
		Used: "http_protocol_options http2_protocol_options", Refused: "http3_protocol_options",
	}
	commonFields = config.Fields[*corev3.HttpProtocolOptions]{
		Used: `idle_timeout max_connection_duration max_headers_count max_response_headers_kb
			max_stream_duration max_requests_per_connection`,
		Refused: "max_connection_duration_jitter",
		NoOp: map[string]string{
			"headers_with_underscores_action": "Envoy reads it for requests from downstream only",
		},
	}
	http1Fields = config.Fields[*corev3.Http1ProtocolOptions]{
		Used:    "header_key_format enable_trailers",
		OffOnly: "allow_chunked_length send_fully_qualified_url",
		Refused: "ignore_http_11_upgrade",
		NoOp: map[string]string{
			"allow_absolute_url":       "Envoy reads it in the server codec only",
			"accept_http_10":           "Envoy reads it in the server codec only",
			"default_host_for_http_10": "Envoy reads it in the server codec only",
			"allow_custom_methods":     "Envoy reads it in the server codec only",
			"use_balsa_parser":         "there is one parser here, with the rules of Envoy's",
			"override_stream_error_on_invalid_http_message": "an invalid response ends an HTTP/1 " +
				"connection whatever it says, as in Envoy",
		},
	}
	formatFields = config.Fields[*corev3.Http1ProtocolOptions_HeaderKeyFormat]{
		Used: "proper_case_words stateful_formatter",
	}
	preserveCaseFields = config.Fields[*preservecasev3.PreserveCaseFormatterConfig]{
		OffOnly: "forward_reason_phrase formatter_type_on_envoy_headers",
	}
	properCaseFields = config.Fields[*corev3.Http1ProtocolOptions_HeaderKeyFormat_ProperCaseWords]{}
)

// http compiles the HTTP options, from the extension or from the older fields of the cluster.
func (c *compiler) http() {
	c.set.idleTimeout = time.Hour
	c.set.maxRequestsPerConnection = uint64(config.Value(c.msg.GetMaxRequestsPerConnection(), 0)) //nolint:staticcheck // still read by Envoy
	options := c.msg.GetTypedExtensionProtocolOptions()
	p := config.Field("typed_extension_protocol_options")
	for name, a := range options {
		if name != httpOptionsName {
			c.errs.Add(p.Key(name), "is not supported")
			continue
		}
		if m, ok := config.OpenAs[*httpv3.HttpProtocolOptions](p.Key(name), a, c.errs); ok {
			c.httpOptions(p.Key(name), m)
		}
	}
	if options[httpOptionsName] != nil {
		c.legacyAbsent()
		return
	}
	c.autoSNI(config.Field("upstream_http_protocol_options"), c.msg.GetUpstreamHttpProtocolOptions()) //nolint:staticcheck // still read by Envoy
	c.common(config.Field("common_http_protocol_options"), c.msg.GetCommonHttpProtocolOptions())      //nolint:staticcheck // still read by Envoy
	c.http1(config.Field("http_protocol_options"), c.msg.GetHttpProtocolOptions())                    //nolint:staticcheck // still read by Envoy
	c.http2(config.Field("http2_protocol_options"), c.msg.GetHttp2ProtocolOptions())                  //nolint:staticcheck // still read by Envoy
}

// legacyAbsent refuses the older fields beside the extension, which would have no effect.
func (c *compiler) legacyAbsent() {
	const text = "must not be set beside typed_extension_protocol_options"
	if c.msg.GetUpstreamHttpProtocolOptions() != nil { //nolint:staticcheck // refused
		c.errs.Add(config.Field("upstream_http_protocol_options"), text)
	}
	if c.msg.GetCommonHttpProtocolOptions() != nil { //nolint:staticcheck // refused
		c.errs.Add(config.Field("common_http_protocol_options"), text)
	}
	if c.msg.GetHttpProtocolOptions() != nil { //nolint:staticcheck // refused
		c.errs.Add(config.Field("http_protocol_options"), text)
	}
	if c.msg.GetHttp2ProtocolOptions() != nil { //nolint:staticcheck // refused
		c.errs.Add(config.Field("http2_protocol_options"), text)
	}
}

func (c *compiler) httpOptions(p *config.Path, m *httpv3.HttpProtocolOptions) {
	httpOptionsFields.Check(p, m, c.errs)
	c.autoSNI(p.Field("upstream_http_protocol_options"), m.GetUpstreamHttpProtocolOptions())
	c.common(p.Field("common_http_protocol_options"), m.GetCommonHttpProtocolOptions())
	if e := m.GetExplicitHttpConfig(); e != nil {
		at := p.Field("explicit_http_config")
		explicitFields.Check(at, e, c.errs)
		c.http1(at.Field("http_protocol_options"), e.GetHttpProtocolOptions())
		c.http2(at.Field("http2_protocol_options"), e.GetHttp2ProtocolOptions())
	}
	if a := m.GetAutoConfig(); a != nil {
		at := p.Field("auto_config")
		autoFields.Check(at, a, c.errs)
		c.http1(at.Field("http_protocol_options"), a.GetHttpProtocolOptions())
		c.http2(at.Field("http2_protocol_options"), a.GetHttp2ProtocolOptions())
		c.set.HTTP.Auto, c.set.HTTP.HTTP2 = true, false
		if !c.conf.secured() {
			c.errs.Add(at, "needs a transport_socket that negotiates the protocol (ALPN)")
		}
	}
	if d := m.GetUseDownstreamProtocolConfig(); d != nil {
		at := p.Field("use_downstream_protocol_config")
		downstreamFields.Check(at, d, c.errs)
		c.http1(at.Field("http_protocol_options"), d.GetHttpProtocolOptions())
		// Envoy speaks HTTP/2 to upstreams only if its options are there (ClusterInfoImpl's features).
		c.http2(at.Field("http2_protocol_options"), d.GetHttp2ProtocolOptions())
		c.set.HTTP.Downstream, c.set.HTTP.HTTP2 = c.set.HTTP.HTTP2, false
	}
}

func (c *compiler) autoSNI(p *config.Path, m *corev3.UpstreamHttpProtocolOptions) {
	if m == nil {
		return
	}
	autoSNIFields.Check(p, m, c.errs)
	c.set.HTTP.AutoSNI = AutoSNI{
		ServerName: m.GetAutoSni(), SANs: m.GetAutoSanValidation(),
		Header: strings.ToLower(m.GetOverrideAutoSniHeader()),
	}
}

func (c *compiler) common(p *config.Path, m *corev3.HttpProtocolOptions) {
	if m == nil {
		return
	}
	commonFields.Check(p, m, c.errs)
	s := c.set
	s.idleTimeout = config.Duration(p.Field("idle_timeout"), m.GetIdleTimeout(), s.idleTimeout, c.errs)
	s.maxDuration = config.Duration(p.Field("max_connection_duration"), m.GetMaxConnectionDuration(), 0, c.errs)
	s.maxRequestsPerConnection = uint64(config.Value(m.GetMaxRequestsPerConnection(), uint32(s.maxRequestsPerConnection)))
	s.HTTP.MaxResponseHeaders = config.Value(m.GetMaxHeadersCount(), 0)
	s.HTTP.MaxResponseHeadersKB = config.Value(m.GetMaxResponseHeadersKb(), 0)
	s.HTTP.MaxStreamDuration = config.Duration(p.Field("max_stream_duration"), m.GetMaxStreamDuration(), 0, c.errs)
}

func (c *compiler) http1(p *config.Path, m *corev3.Http1ProtocolOptions) {
	if m == nil {
		return
	}
	http1Fields.Check(p, m, c.errs)
	c.set.HTTP.Trailers = m.GetEnableTrailers()
	f := m.GetHeaderKeyFormat()
	if f == nil {
		return
	}
	p = p.Field("header_key_format")
	formatFields.Check(p, f, c.errs)
	if w := f.GetProperCaseWords(); w != nil {
		properCaseFields.Check(p.Field("proper_case_words"), w, c.errs)
		c.set.HTTP.ProperCase = true
	}
	if st := f.GetStatefulFormatter(); st != nil {
		typedField.Check(p.Field("stateful_formatter"), st, c.errs)
		c.statefulFormatter(p.Field("stateful_formatter"), st)
	}
}

func (c *compiler) statefulFormatter(p *config.Path, m *corev3.TypedExtensionConfig) {
	p = p.Field("typed_config")
	want := (&preservecasev3.PreserveCaseFormatterConfig{}).ProtoReflect().Descriptor().FullName()
	if name := config.TypeName(m.GetTypedConfig()); name != want {
		c.errs.Addf(p, "formatter %s is not supported", name)
		return
	}
	f, ok := config.OpenAs[*preservecasev3.PreserveCaseFormatterConfig](p, m.GetTypedConfig(), c.errs)
	if ok {
		preserveCaseFields.Check(p, f, c.errs)
		c.set.HTTP.PreserveCase = true
	}
}

// http2 compiles the options of HTTP/2, which the cluster speaks if they are there.
func (c *compiler) http2(p *config.Path, m *corev3.Http2ProtocolOptions) {
	if m == nil {
		return
	}
	c.set.HTTP.HTTP2 = true
	c.set.HTTP.Protocol = protocol.CompileHTTP2(p, m, c.errs)
}
