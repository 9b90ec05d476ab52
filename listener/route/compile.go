package route

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/filter"
	"sidecar/internal/config"
	"sidecar/internal/format"
	"sidecar/internal/match"
	"sidecar/internal/mutate"
)

// Env is what compiling may use from outside.
type Env struct {
	// Format is what formats of header values, bodies and rewrites are compiled with.
	Format format.Options
	// Filters compiles typed_per_filter_config, with Filter as the context; nil refuses it.
	Filters *filter.Table
	Filter  filter.Context
	// Runtime reads a key that may override a runtime_fraction. It is called for each request that
	// meets one, from any goroutine; nil: there is no such key.
	Runtime func(key string) (config.Fraction, bool)
	// HasCluster tells whether a cluster is known, for validate_clusters.
	HasCluster func(name string) bool
	// ValidateClusters is the default of validate_clusters: true for a static table, false for RDS.
	ValidateClusters bool
}

// defaultMaxBody is that of max_direct_response_body_size_bytes.
const defaultMaxBody = 4096

type compiler struct {
	env              *Env
	errs             *config.Errors
	filters          []filterConfig
	request          *mutate.Headers
	response         *mutate.Headers
	mirrored         []Mirror
	maxBody          int64
	mostSpecificWins bool
	validateClusters bool
}

// Compile turns a route configuration into a table. The error joins all that is wrong, each with
// its field's path. Files of direct responses are read now.
func Compile(m *routev3.RouteConfiguration, env Env) (*Table, error) {
	var errs config.Errors
	config.Validate(nil, m, &errs)
	configurationFields.Check(nil, m, &errs)
	c := &compiler{
		env: &env, errs: &errs,
		maxBody:          int64(config.Value(m.GetMaxDirectResponseBodySizeBytes(), defaultMaxBody)),
		mostSpecificWins: m.GetMostSpecificHeaderMutationsWins(),
		validateClusters: config.Value(m.GetValidateClusters(), env.ValidateClusters),
	}
	c.filters = c.filterConfigs(nil, m.GetTypedPerFilterConfig(), nil)
	c.request = mutate.Compile(nil, "request_headers", m.GetRequestHeadersToAdd(),
		m.GetRequestHeadersToRemove(), c.format, &errs)
	c.response = mutate.Compile(nil, "response_headers", m.GetResponseHeadersToAdd(),
		m.GetResponseHeadersToRemove(), c.format, &errs)
	c.mirrored = c.mirrors(nil, m.GetRequestMirrorPolicies())
	t := &Table{
		name: m.GetName(), ignorePathParameters: m.GetIgnorePathParametersInPathMatching(),
		Metadata: c.metadata(config.Field("metadata"), m.GetMetadata()),
		domains: domains{
			exact: map[string]*host{}, ignorePort: m.GetIgnorePortInHostMatching(),
		},
	}
	for _, name := range m.GetInternalOnlyHeaders() {
		t.internalOnlyHeaders = append(t.internalOnlyHeaders, match.ToLower(name))
	}
	for i, vh := range m.GetVirtualHosts() {
		p := config.Field("virtual_hosts").Index(i)
		t.domains.add(p, vh.GetDomains(), c.host(p, vh), t.name, &errs)
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	return t, nil
}

// format compiles a text in which values that are not known come out empty.
func (c *compiler) format(text string) (mutate.Formatter, error) {
	o := c.env.Format
	o.OmitEmpty = true
	return format.Compile(text, o)
}

// rewriteFormat compiles a path_rewrite (omitEmpty) or host_rewrite; nil where there is none.
func (c *compiler) rewriteFormat(p *config.Path, text string, omitEmpty bool) mutate.Formatter {
	if text == "" {
		return nil
	}
	o := c.env.Format
	o.OmitEmpty = omitEmpty
	f, err := format.Compile(text, o)
	if err != nil {
		c.errs.Addf(p, "%w", err)
		return nil
	}
	return f
}

// checkCluster refuses a cluster that isn't there, if the configuration wants that. kind is "",
// "weighted " or "shadow ".
func (c *compiler) checkCluster(p *config.Path, kind, name string) {
	if c.validateClusters && c.env.HasCluster != nil && name != "" && !c.env.HasCluster(name) {
		c.errs.Addf(p, "route: unknown %scluster '%s'", kind, name)
	}
}

// metadata turns filter_metadata into the form of stream.Info.
func (c *compiler) metadata(p *config.Path, m *corev3.Metadata) map[string]map[string]any {
	metadataFields.Check(p, m, c.errs)
	if len(m.GetFilterMetadata()) == 0 {
		return nil
	}
	out := make(map[string]map[string]any, len(m.GetFilterMetadata()))
	for name, s := range m.GetFilterMetadata() {
		out[name] = s.AsMap()
	}
	return out
}

// runtimeFractional is a RuntimeFractionalPercent.
type runtimeFractional = *corev3.RuntimeFractionalPercent

func boolOf(w *wrapperspb.BoolValue) *bool {
	if w == nil {
		return nil
	}
	b := w.GetValue()
	return &b
}

// isEmptyInline: an empty body may be written down.
func isEmptyInline(d *corev3.DataSource) bool {
	switch s := d.GetSpecifier().(type) {
	case *corev3.DataSource_InlineString:
		return s.InlineString == ""
	case *corev3.DataSource_InlineBytes:
		return len(s.InlineBytes) == 0
	}
	return false
}
