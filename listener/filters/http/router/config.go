package router

import (
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/internal/config"
)

//nolint:gochecknoglobals // immutable table
var fields = config.Fields[*routerv3.Router]{
	Used:    "suppress_envoy_headers respect_expected_rq_timeout",
	OffOnly: "start_child_span suppress_grpc_request_failure_code_stats reject_connect_request_early_data",
	Refused: "upstream_log upstream_log_options strict_check_headers upstream_http_filters",
	NoOp: map[string]string{
		"dynamic_stats": "cluster and host statistics are cheap here and always kept",
	},
}

// Env is what the router works on.
type Env struct {
	Clusters Clusters
	Random   func() uint64
	// LocalAddress is the node's own, which mirrored requests have in x-forwarded-for.
	LocalAddress string
}

// Compile turns the configuration of a router into a filter.TerminalFactory.
func Compile(m *routerv3.Router, c filter.Context, env Env) (*Config, error) {
	var errs config.Errors
	fields.Check(nil, m, &errs)
	if err := errs.Err(); err != nil {
		return nil, err
	}
	prefix := c.StatPrefix
	if n := len(prefix); n > 0 && prefix[n-1] == '.' {
		prefix = prefix[:n-1]
	}
	return &Config{
		stats:           stats.Bind[Stats](c.Scope.Sub(prefix)),
		groups:          &groups{scope: c.Scope},
		clusters:        env.Clusters,
		random:          env.Random,
		localAddress:    env.LocalAddress,
		suppressHeaders: m.GetSuppressEnvoyHeaders(),
		respectExpected: m.GetRespectExpectedRqTimeout(),
	}, nil
}
