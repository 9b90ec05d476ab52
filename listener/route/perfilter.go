package route

import (
	"maps"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"sidecar/internal/config"
)

// filterConfig is what one level of the configuration says about one filter.
type filterConfig struct {
	name     string
	compiled any // nil: nothing but whether it is disabled
	disabled bool
}

// filterConfigs reads a level's typed_per_filter_config and puts it before what the levels above
// say.
func (c *compiler) filterConfigs(p *config.Path, m map[string]*anypb.Any, above []filterConfig) []filterConfig {
	if len(m) == 0 {
		return above
	}
	var own []filterConfig
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if fc, ok := c.filterConfig(p.Field("typed_per_filter_config").Key(name), name, m[name]); ok {
			own = append(own, fc)
		}
	}
	return append(own, above...)
}

const perRouteType = "envoy.config.route.v3.FilterConfig"

func (c *compiler) filterConfig(p *config.Path, name string, a *anypb.Any) (filterConfig, bool) {
	fc := filterConfig{name: name}
	optional := false
	if config.TypeName(a) == perRouteType {
		m, ok := config.OpenAs[*routev3.FilterConfig](p, a, c.errs)
		if !ok {
			return fc, false
		}
		perRouteFields.Check(p, m, c.errs)
		if m.GetDisabled() {
			fc.disabled = true
			return fc, true
		}
		if m.GetConfig() == nil {
			c.errs.Addf(p, "Empty route/virtual host per filter configuration for %s filter", name)
			return fc, false
		}
		if m.GetConfig().GetTypeUrl() == "" {
			return fc, true
		}
		p, a, optional = p.Field("config"), m.GetConfig(), m.GetIsOptional()
	}
	fc.compiled = c.compileFilterConfig(p, name, a, optional)
	return fc, fc.compiled != nil
}

func (c *compiler) compileFilterConfig(p *config.Path, name string, a *anypb.Any, optional bool) any {
	typ := string(config.TypeName(a))
	if c.env.Filters == nil {
		c.errs.Add(p, "is not supported here")
		return nil
	}
	entry := c.env.Filters.ByRouteType(typ)
	if entry == nil {
		switch {
		case optional:
		case c.env.Filters.ByType(typ) != nil:
			c.errs.Addf(p, "The filter %s doesn't support virtual host or route specific configurations", name)
		default:
			c.errs.Addf(p, "Didn't find a registered implementation for '%s' with type URL: '%s'", name, typ)
		}
		return nil
	}
	msg, err := config.Open(a)
	if err != nil {
		c.errs.Wrap(p, err)
		return nil
	}
	before := c.errs.Len()
	config.Validate(p, msg, c.errs)
	if c.errs.Len() > before {
		return nil
	}
	fctx := c.env.Filter
	fctx.Path, fctx.Name = p.String(), name
	compiled, err := entry.CompileRoute(msg, fctx)
	c.errs.Wrap(p, err)
	return compiled
}
