package route

import (
	"slices"
	"strings"
	"testing"

	"sidecar/internal/config"
	"sidecar/internal/config/configtest"
)

func TestEveryFieldIsAccountedFor(t *testing.T) {
	t.Parallel()
	configtest.Covers(t, configtest.Elsewhere{
		"envoy.config.core.v3.HeaderValueOption",
		"envoy.config.core.v3.SubstitutionFormatString",
		"envoy.config.route.v3.HeaderMatcher",
		"envoy.config.route.v3.QueryParameterMatcher",
		"envoy.config.route.v3.CookieMatcher",
		"envoy.config.route.v3.RouteMatch.ConnectMatcher",
		"envoy.config.route.v3.RouteMatch.GrpcRouteMatchOptions",
		"envoy.config.route.v3.NonForwardingAction",
		"envoy.type.matcher.v3.RegexMatcher",
		"envoy.type.matcher.v3.RegexMatchAndSubstitute",
		"envoy.type.matcher.v3.MetadataMatcher",
		"envoy.type.matcher.v3.FilterStateMatcher",
	},
		configurationFields, virtualHostFields, virtualClusterFields, routeFields, decoratorFields, matchFields,
		tlsMatchFields, config.RuntimeFractionFields, actionFields, upgradeFields, connectFields,
		durationFields, mirrorFields, weightedFields, clusterWeightFields, redirectFields,
		directResponseFields, retryFields, retryPriorityFields, retryPredicateFields, backOffFields,
		limitedBackOffFields, resetHeaderFields, metadataFields, perRouteFields,
		hashPolicyFields, hashHeaderFields, hashCookieFields, hashAttributeFields, hashSourceFields,
		hashQueryFields, hashStateFields, omitMetadataFields)
}

// wants has the text of each error, in Envoy's words where it has some.
func TestCompileErrors(t *testing.T) {
	t.Parallel()
	route := func(r string) string { return oneHost("- " + r) }
	const at = "virtual_hosts[0].routes[0]."
	for name, c := range map[string]struct {
		yaml string
		want []string
	}{
		"all that is wrong is told": {
			oneHost("- {match: {prefix: /}, route: {cluster: c, hedge_policy: {}}}\n- {match: {safe_regex: {regex: '('}}, route: {cluster: c, timeout: -1s}}"),
			[]string{
				at + "route.hedge_policy: is not supported",
				"virtual_hosts[0].routes[1].match.safe_regex.regex: invalid regex '(': missing closing )",
				"virtual_hosts[0].routes[1].route.timeout: must not be negative",
			},
		},
		"duplicate domain":        {"name: r\nvirtual_hosts: [{name: a, domains: [x.Y]}, {name: b, domains: [X.y]}]", []string{"virtual_hosts[1].domains[0]: Only unique values for domains are permitted. Duplicate entry of domain x.y in route r"}},
		"duplicate suffix":        {"name: r\nvirtual_hosts: [{name: a, domains: ['*.x']}, {name: b, domains: ['*.X']}]", []string{"virtual_hosts[1].domains[0]: Only unique values for domains are permitted. Duplicate entry of domain *.x in route r"}},
		"duplicate prefix":        {"name: r\nvirtual_hosts: [{name: a, domains: ['x.*', 'x.*']}]", []string{"virtual_hosts[0].domains[1]: Only unique values for domains are permitted. Duplicate entry of domain x.* in route r"}},
		"duplicate default":       {"name: r\nvirtual_hosts: [{name: a, domains: ['*']}, {name: b, domains: ['*']}]", []string{"virtual_hosts[1].domains[0]: Only a single wildcard domain is permitted in route r"}},
		"no action":               {route("{match: {prefix: /}}"), []string{at + "action: value is required"}},
		"no path":                 {route("{match: {}, route: {cluster: c}}"), []string{at + "match.path_specifier: value is required"}},
		"no virtual host name":    {"name: r\nvirtual_hosts: [{domains: ['*']}]", []string{"virtual_hosts[0].name: value length must be at least 1"}},
		"unknown cluster":         {route("{match: {prefix: /}, route: {cluster: nope}}") + "\nvalidate_clusters: true", []string{at + "route.cluster: route: unknown cluster 'nope'"}},
		"unknown weighted":        {route("{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: c, weight: 1}, {name: nope, weight: 1}]}}}") + "\nvalidate_clusters: true", []string{at + "route.weighted_clusters.clusters[1].name: route: unknown weighted cluster 'nope'"}},
		"weights are nothing":     {route("{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: c, weight: 0}]}}}"), []string{at + "route.weighted_clusters: Sum of weights in the weighted_cluster must be greater than 0."}},
		"weights too large":       {route("{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: c, weight: 4294967295}, {name: c, weight: 1}]}}}"), []string{"The sum of weights of all weighted clusters of route  exceeds 4294967295"}},
		"weight missing":          {route("{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: c}]}}}"), []string{at + "route.weighted_clusters.clusters[0].weight: is required", "Sum of weights"}},
		"weighted of no name":     {route("{match: {prefix: /}, route: {weighted_clusters: {clusters: [{weight: 1}]}}}"), []string{"At least one of name or cluster_header need to be specified"}},
		"weighted of two names":   {route("{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: c, cluster_header: x, weight: 1}]}}}"), []string{"Only one of name or cluster_header can be specified"}},
		"hash for weights":        {route("{match: {prefix: /}, route: {weighted_clusters: {use_hash_policy: true, clusters: [{name: c, weight: 1}]}}}"), []string{at + "route.weighted_clusters.use_hash_policy: is not supported, and can only be switched off"}},
		"group that isn't there":  {route(`{match: {prefix: /}, route: {cluster: c, regex_rewrite: {pattern: {regex: a}, substitution: '\1'}}}`), []string{at + "route.regex_rewrite.substitution: requests group 1"}},
		"backslash at the end":    {route(`{match: {prefix: /}, route: {cluster: c, regex_rewrite: {pattern: {regex: a}, substitution: '\'}}}`), []string{"not allowed at end"}},
		"backslash and letter":    {route(`{match: {prefix: /}, redirect: {regex_rewrite: {pattern: {regex: a}, substitution: '\x'}}}`), []string{at + "redirect.regex_rewrite.substitution: '\\' must be followed by a digit"}},
		"two rewrites":            {route("{match: {prefix: /}, route: {cluster: c, prefix_rewrite: /b, path_rewrite: /x}}"), []string{at + "route: Specify only one of prefix_rewrite, regex_rewrite or path_rewrite_policy"}},
		"bad path format":         {route("{match: {prefix: /}, route: {cluster: c, path_rewrite: '%FOO%'}}"), []string{at + "route.path_rewrite: Not supported field in StreamInfo: FOO"}},
		"pseudo-header added":     {route("{match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: ':path', value: b}}]}"), []string{at + "request_headers_to_add[0].header: :-prefixed or host headers may not be modified"}},
		"host added":              {route("{match: {prefix: /}, route: {cluster: c}, response_headers_to_add: [{header: {key: Host, value: b}}]}"), []string{at + "response_headers_to_add[0].header: :-prefixed or host headers may not be modified"}},
		"host removed":            {route("{match: {prefix: /}, route: {cluster: c}, request_headers_to_remove: [x, Host]}"), []string{at + "request_headers_to_remove[1]: :-prefixed or host headers may not be removed"}},
		"append twice":            {route("{match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: a, value: b}, append: true, append_action: ADD_IF_ABSENT}]}"), []string{"Both append and append_action are set and it's not allowed"}},
		"bad header format":       {route("{match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: a, value: '50%'}}]}"), []string{"Incorrect configuration: 50%. Couldn't find valid command at position 2"}},
		"raw value":               {route("{match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: a, raw_value: YWJj}}]}"), []string{"header.raw_value: is not supported"}},
		"case of a regex":         {route("{match: {prefix: /, headers: [{name: a, string_match: {safe_regex: {regex: a}, ignore_case: true}}]}, route: {cluster: c}}"), []string{"ignore_case has no effect for safe_regex."}},
		"custom string matcher":   {route("{match: {prefix: /, headers: [{name: a, string_match: {custom: {name: x}}}]}, route: {cluster: c}}"), []string{at + "match.headers[0].string_match.custom: is not supported", "custom.typed_config: value is required"}},
		"upgrade twice":           {route("{match: {prefix: /}, route: {cluster: c, upgrade_configs: [{upgrade_type: a}, {upgrade_type: A}]}}"), []string{at + "route.upgrade_configs[1].upgrade_type: Duplicate upgrade A"}},
		"connect of a websocket":  {route("{match: {prefix: /}, route: {cluster: c, upgrade_configs: [{upgrade_type: websocket, connect_config: {}}]}}"), []string{"Non-CONNECT upgrade type websocket has ConnectConfig"}},
		"body too large":          {route("{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: '" + strings.Repeat("a", 4097) + "'}}}"), []string{at + "direct_response.body.inline_string: is larger than 4096 bytes"}},
		"no such file":            {route("{match: {prefix: /}, direct_response: {status: 200, body: {filename: /nope}}}"), []string{at + "direct_response.body.filename: /nope: "}},
		"back-off":                {route("{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_back_off: {base_interval: 1s, max_interval: 0.5s}}}}"), []string{"retry_policy.max_interval must greater than or equal to the base_interval"}},
		"other host predicate":    {route("{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_host_predicate: [{name: envoy.retry_host_predicates.some_other}]}}}"), []string{at + "route.retry_policy.retry_host_predicate[0].name: envoy.retry_host_predicates.some_other is not supported"}},
		"virtual cluster":         {"name: r\nvirtual_hosts: [{name: a, domains: ['*'], virtual_clusters: [{name: x}]}]", []string{"virtual_hosts[0].virtual_clusters[0]: virtual clusters must define 'headers'"}},
		"cors":                    {route("{match: {prefix: /}, route: {cluster: c, cors: {allow_methods: GET}}}"), []string{at + "route.cors: is not supported"}},
		"filter that isn't there": {route("{match: {prefix: /}, route: {cluster: c}, typed_per_filter_config: {foo: {'@type': type.googleapis.com/google.protobuf.Duration, value: 1s}}}"), []string{at + `typed_per_filter_config["foo"]: Didn't find a registered implementation for 'foo' with type URL: 'google.protobuf.Duration'`}},
		"filter without config":   {route("{match: {prefix: /}, route: {cluster: c}, typed_per_filter_config: {foo: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig}}}"), []string{`typed_per_filter_config["foo"]: Empty route/virtual host per filter configuration for foo filter`}},
		"filter takes no route":   {route("{match: {prefix: /}, route: {cluster: c}, typed_per_filter_config: {plain: {'@type': type.googleapis.com/google.protobuf.StringValue, value: x}}}"), []string{"The filter plain doesn't support virtual host or route specific configurations"}},
		"filter's own error":      {route("{match: {prefix: /}, route: {cluster: c}, typed_per_filter_config: {test: {'@type': type.googleapis.com/google.protobuf.BoolValue, value: false}}}"), []string{at + `typed_per_filter_config["test"].value: must be true`}},
		"vhds":                    {"name: r\nvhds: {config_source: {ads: {}}}", []string{"vhds: is not supported"}},
		"virtual host matcher":    {"name: r\nvirtual_hosts: [{name: a, domains: ['*'], matcher: {}}]", []string{"virtual_hosts[0].matcher: is not supported"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := filterEnv()
			env.HasCluster = func(name string) bool { return name == "c" }
			table, err := Compile(parse(t, c.yaml), env)
			if err == nil || table != nil {
				t.Fatalf("compiled to %v", table)
			}
			var texts []string
			for _, e := range config.Flatten(err) {
				texts = append(texts, e.Error())
			}
			for _, want := range c.want {
				if !slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(s, want) }) {
					t.Errorf("no error has %q:\n%s", want, strings.Join(texts, "\n"))
				}
			}
			if len(texts) > len(c.want) {
				t.Errorf("%d errors, want %d:\n%s", len(texts), len(c.want), strings.Join(texts, "\n"))
			}
		})
	}
}
