package hcm

import (
	"slices"
	"strings"
	"testing"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/config/configtest"
)

func TestFieldsAccounted(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, configtest.Elsewhere{
		"envoy.config.accesslog.v3.AccessLog",           // listener/accesslog
		"envoy.config.accesslog.v3.AccessLogFilter",     // listener/accesslog
		"envoy.config.core.v3.CidrRange",                // two values
		"envoy.config.core.v3.ConfigSource",             // internal/config/source
		"envoy.config.core.v3.ExtensionConfigSource",    // internal/server
		"envoy.config.core.v3.HeaderValueOption",        // internal/mutate
		"envoy.config.core.v3.Http2ProtocolOptions",     // internal/config/protocol
		"envoy.config.core.v3.SubstitutionFormatString", // internal/format
		"envoy.config.core.v3.TypedExtensionConfig",     // a name and a type
		"envoy.config.route.v3.RouteConfiguration",      // listener/route
		"envoy.type.matcher.v3.StringMatcher",           // internal/match
		"envoy.type.v3.Percent",                         // one value
		"envoy.config.core.v3.Http1ProtocolOptions.HeaderKeyFormat.ProperCaseWords",
	}, hcmFields, rdsFields, requestIDFields, xfccFields, commonFields, http1Fields, keyFormatFields, filterFields, upgradeFields, schemeFields,
		internalFields, localReplyFields, mapperFields, tracingFields)
}

func TestCompileErrors(t *testing.T) {
	t.Parallel()
	const base = "stat_prefix: t\nroute_config: {name: r}\n"
	terminal := func(m *hcmv3.HttpConnectionManager) {
		m.HttpFilters = append(m.HttpFilters, httpFilter(t, "terminal", &wrapperspb.BoolValue{}))
	}
	for name, c := range map[string]struct {
		yaml string
		with func(m *hcmv3.HttpConnectionManager)
		want string
	}{
		"no filters": {base, nil, "http_filters: must not be empty"},
		"no terminal": {base, func(m *hcmv3.HttpConnectionManager) {
			m.HttpFilters = append(m.HttpFilters, httpFilter(t, "a", wrapperspb.String("a")))
		}, "http_filters[0]: Error: non-terminal filter"},
		"terminal first": {base, func(m *hcmv3.HttpConnectionManager) { terminal(m); terminal(m) }, "http_filters[0]: Error: terminal filter"},
		"terminal off":   {base, func(m *hcmv3.HttpConnectionManager) { terminal(m); m.HttpFilters[0].Disabled = true }, "cannot be disabled by default"},
		"unknown filter": {base, func(m *hcmv3.HttpConnectionManager) {
			m.HttpFilters = append(m.HttpFilters, httpFilter(t, "x", wrapperspb.Int32(1)))
		}, "is not supported"},
		"no routes":       {"stat_prefix: t\n", terminal, "one of route_config and rds is required"},
		"scoped routes":   {"stat_prefix: t\nscoped_routes: {name: x}\n", terminal, "scoped_routes: is not supported"},
		"tracer":          {base + "tracing: {provider: {name: x}}\n", terminal, "tracing.provider: is not supported"},
		"HTTP/3":          {base + "codec_type: HTTP3\n", terminal, "codec_type: HTTP3 is not supported"},
		"both strips":     {base + "strip_any_host_port: true\nstrip_matching_host_port: true\n", terminal, "strip_any_host_port: Error: Only one of"},
		"upgrade twice":   {base + "upgrade_configs: [{upgrade_type: x}, {upgrade_type: X}]\n", terminal, `upgrade_configs[1].upgrade_type: "X" is there twice`},
		"address":         {base + "internal_address_config: {cidr_ranges: [{address_prefix: x}]}\n", terminal, "internal_address_config.cidr_ranges[0]: "},
		"prefix":          {base + "internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 99}]}\n", terminal, "internal_address_config.cidr_ranges[0]: "},
		"too many KB":     {base + "max_request_headers_kb: 9000\n", terminal, "max_request_headers_kb: must be from 1 to 8192"},
		"local replies":   {base + "local_reply_config: {mappers: []}\n", terminal, "local_reply_config: is not supported here"},
		"ignored upgrade": {base + "http_protocol_options: {ignore_http_11_upgrade: [{safe_regex: {regex: '['}}]}\n", terminal, "http_protocol_options.ignore_http_11_upgrade[0].safe_regex"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &rig{t: t, store: newRig(t, "").store}
			m := &hcmv3.HttpConnectionManager{}
			if _, err := config.Parse("hcm", config.YAML, []byte(c.yaml), m, config.RejectUnknown); err != nil {
				t.Fatal(err)
			}
			if c.with != nil {
				c.with(m)
			}
			_, err := Compile(m, r.env())
			if err == nil {
				t.Fatal("compiled")
			}
			if !slices.ContainsFunc(config.Flatten(err), func(e *config.Error) bool { return strings.Contains(e.Error(), c.want) }) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestFilterSwitch(t *testing.T) {
	t.Parallel()
	const routes = `
route_config:
  name: r
  virtual_hosts:
  - name: v
    domains: ["*"]
    routes:
    - match: {prefix: /off}
      route: {cluster: c}
      typed_per_filter_config: {a: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}
    - match: {prefix: /on}
      route: {cluster: c}
      typed_per_filter_config: {b: {"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}}
    - {match: {prefix: /}, route: {cluster: c}}
`
	r := newRig(t, routes, "a", "b")
	r.cfg.filters[1].disabled = true
	for path, want := range map[string]string{
		"/off": "up.headers end",
		"/on":  "a.req.headers end\nb.req.headers end\nup.headers end",
		"/":    "a.req.headers end\nup.headers end",
	} {
		r.request(true, ":path: "+path)
		if got := r.take(); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestUpgrade(t *testing.T) {
	t.Parallel()
	r := newRig(t, "upgrade_configs: [{upgrade_type: websocket}]", "a")
	r.request(false, "connection: Upgrade", "upgrade: WebSocket")
	if r.cfg.stats.CxUpgradesActive.Value() != 1 {
		t.Error("not counted")
	}
	h := fields(":status: 101", "connection: Upgrade", "upgrade: WebSocket")
	r.inside(func(t *stream.Turn) { r.up.s.RespondHeaders(t, h, false) })
	r.data("x", false)
	r.respData("y", false)
	r.respData("", true)
	r.want("a.req.headers", "up.headers", "a.resp.headers", "enc.headers 101", "a.req.data x", "up.data x", "a.resp.data y",
		"enc.data y", "a.resp.data  end", "enc.data  end", "log 101 - via_upstream", "up.destroy", "a.destroy")
	if got := names(&r.enc.last); got != ":status=101 connection=Upgrade date=now server=envoy upgrade=WebSocket" {
		t.Error(got)
	}
	st := r.cfg.stats
	if st.CxUpgradesActive.Value() != 0 || st.CxUpgradesTotal.Value() != 1 || st.Rq1xx.Value() != 1 {
		t.Errorf("active %d, total %d, 1xx %d", st.CxUpgradesActive.Value(), st.CxUpgradesTotal.Value(), st.Rq1xx.Value())
	}
	// Refused by the upstream: the connection ends, since a payload may follow.
	r.request(true, "connection: Upgrade", "upgrade: websocket")
	r.respHeaders(true)
	r.request(false, "connection: Upgrade", "upgrade: websocket")
	r.respHeaders(true)
	if r.enc.last.Value(header.Connection) != "close" {
		t.Error(names(&r.enc.last))
	}
}

func TestContinue(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.request(false, "expect: 100-Continue")
	r.want("enc.interim 100", "up.headers")
	if r.cfg.stats.Rq1xx.Value() != 1 {
		t.Error("not counted")
	}
	r = newRig(t, "proxy_100_continue: true")
	r.request(false, "expect: 100-continue")
	r.inside(func(t *stream.Turn) { r.up.s.RespondInterim(t, fields(":status: 100")) })
	r.want("up.headers", "enc.interim 100")
}
