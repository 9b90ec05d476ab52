package hcm

import (
	"net/netip"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/config/protocol"
	"sidecar/internal/match"
	"sidecar/listener/route"
)

// Envoy's defaults (http_connection_manager.proto).
const (
	defaultMaxHeadersKB  = 60
	defaultMaxHeaders    = 100
	defaultIdle          = time.Hour
	defaultStreamIdle    = 5 * time.Minute
	defaultDelayedClose  = time.Second
	defaultDrain         = 5 * time.Second
	maxHeadersKBLimit    = 8192
	preserveCaseTypeName = "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"
	uuidTypeName         = "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"
)

// Compile turns the configuration of a connection manager into a Config. It opens nothing; all that
// is wrong is in the error, each with its field path below m.
func Compile(m *hcmv3.HttpConnectionManager, env *Env) (*Config, error) {
	var errs config.Errors
	hcmFields.Check(nil, m, &errs)
	prefix := "http." + m.GetStatPrefix()
	c := &Config{
		statPrefix:    prefix + ".",
		stats:         stats.Bind[Stats](env.Scope.Sub(prefix)),
		bugs:          stats.Bind[bugStats](env.Scope.Sub("server")),
		listenerStats: stats.Bind[ListenerStats](env.ListenerScope.Sub(prefix)),
		log0:          env.Log,
		clock:         env.Clock,
		random:        env.Random,
		overload:      env.Overload,
		streams:       &streams,
		clusterName:   env.ClusterName,
		localAddress:  env.LocalAddress,
		localCluster:  env.Cluster,
		localNode:     env.Node,
		bufferLimit:   env.BufferLimit,
	}
	c.compileNames(m, &errs)
	c.compileTimeouts(m, &errs)
	c.compileCodec(m, &errs)
	c.codecOptions.Strict = env.Strict
	c.newCodec = env.Codec(&c.codecOptions)
	c.compileAddresses(m, &errs)
	c.compilePaths(m, &errs)
	c.compileRequestID(m, &errs)
	c.compileTracing(m.GetTracing(), env, &errs)
	if env.AccessLogs != nil {
		c.accessLogs = env.AccessLogs(config.Field("access_log"), m.GetAccessLog(), &errs)
	}
	c.compileLocalReply(m.GetLocalReplyConfig(), env, &errs)
	c.compileRoutes(m, env, &errs)
	c.compileFilters(m, env, &errs)
	if err := errs.Err(); err != nil {
		c.Retire() // what did compile may hold something
		return nil, err
	}
	return c, nil
}

func (c *Config) compileNames(m *hcmv3.HttpConnectionManager, errs *config.Errors) {
	c.serverName = m.GetServerName()
	if c.serverName == "" {
		c.serverName = "envoy"
	}
	switch m.GetServerHeaderTransformation() {
	case hcmv3.HttpConnectionManager_OVERWRITE:
	case hcmv3.HttpConnectionManager_APPEND_IF_ABSENT:
		c.serverTransform = serverAppendIfAbsent
	case hcmv3.HttpConnectionManager_PASS_THROUGH:
		c.serverTransform = serverPassThrough
	}
	c.via = m.GetVia()
	c.addUserAgent = m.GetAddUserAgent().GetValue()
	if st := m.GetSchemeHeaderTransformation(); st != nil {
		schemeFields.Check(config.Field("scheme_header_transformation"), st, errs)
		c.schemeOverwrite = st.GetSchemeToOverwrite()
		c.schemeMatchUpstream = st.GetMatchUpstream()
	}
	c.xfcc = compileXFCC(m, errs)
}

func (c *Config) compileTimeouts(m *hcmv3.HttpConnectionManager, errs *config.Errors) {
	dur := func(p *config.Path, d *durationpb.Duration, def time.Duration) time.Duration {
		return config.Duration(p, d, def, errs)
	}
	o := m.GetCommonHttpProtocolOptions()
	p := config.Field("common_http_protocol_options")
	commonFields.Check(p, o, errs)
	c.idleTimeout = dur(p.Field("idle_timeout"), o.GetIdleTimeout(), defaultIdle)
	c.maxConnectionDuration = dur(p.Field("max_connection_duration"), o.GetMaxConnectionDuration(), 0)
	c.drainTimeout = dur(config.Field("drain_timeout"), m.GetDrainTimeout(), defaultDrain)
	c.drainJitter = m.GetDrainTimeoutJitter().GetValue() / 100
	c.maxStreamDuration = dur(p.Field("max_stream_duration"), o.GetMaxStreamDuration(), 0)
	c.maxRequestsPerConnection = o.GetMaxRequestsPerConnection().GetValue()
	c.streamIdleTimeout = dur(config.Field("stream_idle_timeout"), m.GetStreamIdleTimeout(), defaultStreamIdle)
	c.requestTimeout = dur(config.Field("request_timeout"), m.GetRequestTimeout(), 0)
	c.requestHeadersTimeout = dur(config.Field("request_headers_timeout"), m.GetRequestHeadersTimeout(), 0)
}

func (c *Config) compileCodec(m *hcmv3.HttpConnectionManager, errs *config.Errors) {
	o := &c.codecOptions
	switch m.GetCodecType() {
	case hcmv3.HttpConnectionManager_AUTO:
		o.Type = CodecAuto
	case hcmv3.HttpConnectionManager_HTTP1:
		o.Type = CodecHTTP1
	case hcmv3.HttpConnectionManager_HTTP2:
		o.Type = CodecHTTP2
	case hcmv3.HttpConnectionManager_HTTP3:
		errs.Addf(config.Field("codec_type"), "%s is not supported", m.GetCodecType())
	}
	kb := config.Value(m.GetMaxRequestHeadersKb(), defaultMaxHeadersKB)
	if kb == 0 || kb > maxHeadersKBLimit {
		errs.Addf(config.Field("max_request_headers_kb"), "must be from 1 to %d", maxHeadersKBLimit)
	}
	o.MaxHeadersBytes = int(kb) << 10
	common := m.GetCommonHttpProtocolOptions()
	o.MaxHeaders = int(config.Value(common.GetMaxHeadersCount(), defaultMaxHeaders))
	switch common.GetHeadersWithUnderscoresAction() {
	case corev3.HttpProtocolOptions_ALLOW:
	case corev3.HttpProtocolOptions_REJECT_REQUEST:
		o.RejectUnderscores = true
	case corev3.HttpProtocolOptions_DROP_HEADER:
		o.DropUnderscores = true
	}
	o.DelayedCloseTimeout = config.Duration(config.Field("delayed_close_timeout"),
		m.GetDelayedCloseTimeout(), defaultDelayedClose, errs)
	c.proxy100Continue = m.GetProxy_100Continue()
	o.Proxy100Continue = true // the manager answers, and counts, where it isn't for the upstream
	o.DelayedCloseExpired = &c.stats.CxDelayedCloseTimeout
	o.ProtocolError = &c.stats.CxProtocolError
	o.StreamFlushTimeout = config.Duration(config.Field("stream_flush_timeout"),
		m.GetStreamFlushTimeout(), c.streamIdleTimeout, errs)
	c.compileHTTP2(m, errs)
	h1 := m.GetHttpProtocolOptions()
	p := config.Field("http_protocol_options")
	http1Fields.Check(p, h1, errs)
	o.AllowAbsoluteURL = config.Value(h1.GetAllowAbsoluteUrl(), true)
	o.AcceptHTTP10 = h1.GetAcceptHttp_10()
	o.EnableTrailers = h1.GetEnableTrailers()
	o.AllowChunkedLength = h1.GetAllowChunkedLength()
	o.AllowCustomMethods = h1.GetAllowCustomMethods()
	o.StreamErrorOnInvalid = config.Value(h1.GetOverrideStreamErrorOnInvalidHttpMessage(),
		m.GetStreamErrorOnInvalidHttpMessage().GetValue())
	o.IgnoreUpgrade = ignoreUpgrade(p.Field("ignore_http_11_upgrade"), h1.GetIgnoreHttp_11Upgrade(), errs)
	c.acceptHTTP10, o.DefaultHost = o.AcceptHTTP10, h1.GetDefaultHostForHttp_10()
	if f := h1.GetHeaderKeyFormat(); f != nil {
		keyFormatFields.Check(p.Field("header_key_format"), f, errs)
		o.ProperCase = f.GetProperCaseWords() != nil
		if sf := f.GetStatefulFormatter(); sf != nil {
			if config.TypeName(sf.GetTypedConfig()) != preserveCaseTypeName {
				errs.Addf(p.Field("header_key_format.stateful_formatter"), "%q is not supported", sf.GetName())
			}
			o.PreserveCase = true
		}
	}
}

// compileHTTP2 compiles what is read by HTTP/2 alone. The manager's word on stream errors is overridden
// by that of the protocol's options, but not by the deprecated one there.
func (c *Config) compileHTTP2(m *hcmv3.HttpConnectionManager, errs *config.Errors) {
	h2, p := m.GetHttp2ProtocolOptions(), config.Field("http2_protocol_options")
	o := &c.codecOptions
	o.HTTP2 = protocol.CompileHTTP2(p, h2, errs)
	if b := m.GetStreamErrorOnInvalidHttpMessage(); b != nil && h2.GetOverrideStreamErrorOnInvalidHttpMessage() == nil {
		o.HTTP2.StreamErrorOnInvalid = b.GetValue()
	}
	if int(o.HTTP2.MaxFieldSize) > o.MaxHeadersBytes {
		errs.Add(p.Field("max_header_field_size_kb"), "must not be above max_request_headers_kb")
	}
}

// ignoreUpgrade tells the upgrades that requests are not to make; nil: none are ignored.
func ignoreUpgrade(p *config.Path, list []*matcherv3.StringMatcher, errs *config.Errors) func(string) bool {
	if len(list) == 0 {
		return nil
	}
	matchers := make([]match.String, len(list))
	for i, m := range list {
		matchers[i] = match.CompileString(p.Index(i), m, errs)
	}
	return func(v string) bool {
		for i := range matchers {
			if matchers[i].Match(v) {
				return true
			}
		}
		return false
	}
}

func (c *Config) compileAddresses(m *hcmv3.HttpConnectionManager, errs *config.Errors) {
	c.useRemoteAddress = m.GetUseRemoteAddress().GetValue()
	c.xffTrustedHops = int(m.GetXffNumTrustedHops())
	c.skipXFFAppend = m.GetSkipXffAppend()
	c.appendXForwardedPort = m.GetAppendXForwardedPort()
	ia := m.GetInternalAddressConfig()
	p := config.Field("internal_address_config")
	internalFields.Check(p, ia, errs)
	for i, r := range ia.GetCidrRanges() {
		a, err := netip.ParseAddr(r.GetAddressPrefix())
		if err != nil {
			errs.Addf(p.Field("cidr_ranges").Index(i), "%w", err)
			continue
		}
		pre, err := a.Prefix(int(r.GetPrefixLen().GetValue()))
		if err != nil {
			errs.Addf(p.Field("cidr_ranges").Index(i), "%w", err)
			continue
		}
		c.internal = append(c.internal, pre)
	}
}

func (c *Config) compilePaths(m *hcmv3.HttpConnectionManager, errs *config.Errors) {
	c.normalize = m.GetNormalizePath().GetValue()
	c.mergeSlashes = m.GetMergeSlashes()
	switch m.GetPathWithEscapedSlashesAction() {
	case hcmv3.HttpConnectionManager_REJECT_REQUEST:
		c.escapedSlashes = rejectEscapedSlashes
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT:
		c.escapedSlashes = redirectEscapedSlashes
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD:
		c.escapedSlashes = forwardUnescapedSlashes
	case hcmv3.HttpConnectionManager_IMPLEMENTATION_SPECIFIC_DEFAULT,
		hcmv3.HttpConnectionManager_KEEP_UNCHANGED:
	}
	if m.GetStripAnyHostPort() && m.GetStripMatchingHostPort() {
		errs.Add(config.Field("strip_any_host_port"),
			"Error: Only one of `strip_matching_host_port` or `strip_any_host_port` can be set.")
	}
	c.stripAnyPort = m.GetStripAnyHostPort()
	c.stripMatchingPort = m.GetStripMatchingHostPort()
	c.stripTrailingDot = m.GetStripTrailingHostDot()
}

func (c *Config) compileRequestID(m *hcmv3.HttpConnectionManager, errs *config.Errors) {
	c.generateRequestID = config.Value(m.GetGenerateRequestId(), true)
	c.preserveRequestID = m.GetPreserveExternalRequestId()
	c.requestIDInResponse = m.GetAlwaysSetRequestIdInResponse()
	requestIDFields.Check(config.Field("request_id_extension"), m.GetRequestIdExtension(), errs)
	if x := m.GetRequestIdExtension().GetTypedConfig(); x != nil && config.TypeName(x) != uuidTypeName {
		errs.Addf(config.Field("request_id_extension.typed_config"), "%s is not supported", config.TypeName(x))
	}
}

func (c *Config) compileRoutes(m *hcmv3.HttpConnectionManager, env *Env, errs *config.Errors) {
	switch r := m.GetRouteSpecifier().(type) {
	case *hcmv3.HttpConnectionManager_RouteConfig:
		t, err := env.CompileRoutes(r.RouteConfig)
		errs.Wrap(config.Field("route_config"), err)
		c.routes = staticRoutes{t}
	case *hcmv3.HttpConnectionManager_Rds:
		rdsFields.Check(config.Field("rds"), r.Rds, errs)
		if r.Rds.GetConfigSource() == nil {
			errs.Add(config.Field("rds.config_source"), "is required")
			return
		}
		rt, err := env.DynamicRoutes(r.Rds.GetRouteConfigName(), r.Rds.GetConfigSource())
		errs.Wrap(config.Field("rds"), err)
		c.routes = rt
	default:
		if m.GetScopedRoutes() == nil {
			errs.Add(nil, "one of route_config and rds is required")
		}
	}
}

type staticRoutes struct{ t *route.Table }

func (r staticRoutes) Load() *route.Table { return r.t }

// compileFilters compiles the chain and those of upgrades. The last filter must be terminal and no
// other may be (Envoy: validateTerminalFilters).
func (c *Config) compileFilters(m *hcmv3.HttpConnectionManager, env *Env, errs *config.Errors) {
	p := config.Field("http_filters")
	c.filters, c.terminal = c.compileChain(p, m.GetHttpFilters(), env, errs)
	for i, u := range m.GetUpgradeConfigs() {
		up := config.Field("upgrade_configs").Index(i)
		upgradeFields.Check(up, u, errs)
		x := upgrade{kind: strings.ToLower(u.GetUpgradeType()), enabled: config.Value(u.GetEnabled(), true)}
		for j := range c.upgrades {
			if c.upgrades[j].kind == x.kind {
				errs.Addf(up.Field("upgrade_type"), "%q is there twice", u.GetUpgradeType())
			}
		}
		if len(u.GetFilters()) > 0 {
			x.own = true
			x.filters, _ = c.compileChain(up.Field("filters"), u.GetFilters(), env, errs)
		}
		c.upgrades = append(c.upgrades, x)
	}
}

func (c *Config) compileChain(p *config.Path, list []*hcmv3.HttpFilter, env *Env, errs *config.Errors,
) (entries []filterEntry, terminal filter.TerminalFactory) {
	if len(list) == 0 {
		// DIVERGES(no-filters): Envoy takes an empty chain, whose requests then hang.
		errs.Add(p, "must not be empty: the last filter must be a terminal one, such as envoy.filters.http.router")
		return nil, nil
	}
	for i, f := range list {
		fp := p.Index(i)
		filterFields.Check(fp, f, errs)
		made := c.compileFilter(fp, f, env, errs)
		tf, isTerminal := made.(filter.TerminalFactory)
		switch {
		case made == nil:
		case i == len(list)-1 && !isTerminal:
			errs.Addf(fp, "Error: non-terminal filter named %s of type %s is the last filter in a http filter chain.",
				f.GetName(), f.GetName())
		case i < len(list)-1 && isTerminal:
			errs.Addf(fp, "Error: terminal filter named %s of type %s must be the last filter in a http filter chain.",
				f.GetName(), f.GetName())
		case isTerminal && f.GetDisabled():
			errs.Addf(fp, "Error: the last (terminal) filter (%s) in the chain cannot be disabled by default.",
				f.GetName())
		case isTerminal:
			terminal = tf
		default:
			factory, ok := made.(filter.Factory)
			if !ok {
				errs.Addf(fp, "%T is no filter factory", made)
				continue
			}
			entries = append(entries, filterEntry{Name: f.GetName(), factory: factory, disabled: f.GetDisabled()})
		}
	}
	return entries, terminal
}

func (c *Config) compileFilter(p *config.Path, f *hcmv3.HttpFilter, env *Env, errs *config.Errors) any {
	fc := filter.Context{
		Path: p.String(), Name: f.GetName(), StatPrefix: c.statPrefix, Scope: env.Scope,
		Log: env.Log, Direction: env.Direction,
	}
	if cd := f.GetConfigDiscovery(); cd != nil {
		if env.DynamicFilter == nil {
			errs.Add(p.Field("config_discovery"), "is not supported here")
			return nil
		}
		d, err := env.DynamicFilter(f.GetName(), cd, fc)
		errs.Wrap(p.Field("config_discovery"), err)
		return d
	}
	e := env.Filters.ByName(f.GetName())
	if a := f.GetTypedConfig(); a != nil {
		e = env.Filters.ByType(string(config.TypeName(a)))
	}
	if e == nil {
		if f.GetIsOptional() {
			return nil
		}
		errs.Addf(p.Field("typed_config"), "HTTP filter %q (%s) is not supported", f.GetName(),
			config.TypeName(f.GetTypedConfig()))
		return nil
	}
	return CompileEntry(p.Field("typed_config"), e, f.GetTypedConfig(), fc, errs)
}

func equalFold(lower, s string) bool { return strings.EqualFold(lower, s) }

var _ stream.Receiver = (*Stream)(nil)
