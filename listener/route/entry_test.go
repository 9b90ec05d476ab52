package route

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidecar/api/filter"
	"sidecar/internal/config"
)

// filterEnv knows a filter "plain" without configuration of routes, and "test" with a BoolValue
// that must be true.
func filterEnv() Env {
	compile := func(proto.Message, filter.Context) (any, error) { return nil, errors.New("unused") }
	return Env{Filters: filter.NewTable(
		filter.HTTPEntry{Name: "plain", Config: &wrapperspb.StringValue{}, Compile: compile},
		filter.HTTPEntry{
			Name: "test", Config: &wrapperspb.UInt32Value{}, Compile: compile,
			Route: &wrapperspb.BoolValue{},
			CompileRoute: func(m proto.Message, c filter.Context) (any, error) {
				if b, ok := m.(*wrapperspb.BoolValue); !ok || !b.GetValue() {
					return nil, &config.Error{Path: "value", Err: errors.New("must be true")}
				}
				return c.Path, nil
			},
		},
	)}
}

func TestFilterConfigs(t *testing.T) {
	t.Parallel()
	const on = "{'@type': type.googleapis.com/google.protobuf.BoolValue, value: true}"
	const off = "{'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}"
	const enabled = "{'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}"
	const wrapped = "{'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, config: " + on + "}"
	const optional = "{'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, is_optional: true, config: {'@type': type.googleapis.com/google.protobuf.Duration, value: 1s}}"
	table := compileEnv(t, `
name: r
typed_per_filter_config: {test: `+on+`, off: `+off+`}
virtual_hosts:
- name: v
  domains: ["*"]
  typed_per_filter_config: {vhost: `+on+`}
  routes:
  - {match: {path: /inherit}, route: {cluster: c}}
  - {match: {path: /own}, route: {cluster: c}, typed_per_filter_config: {test: `+wrapped+`, off: `+enabled+`, vhost: `+off+`, gone: `+optional+`}}
  - match: {path: /weighted}
    typed_per_filter_config: {test: `+on+`}
    route: {weighted_clusters: {clusters: [{name: c, weight: 1, typed_per_filter_config: {test: `+on+`}}]}}
`, filterEnv())
	const route = "virtual_hosts[0].routes"
	for name, c := range map[string]struct {
		path, filter   string
		config         any
		disabled, said bool
	}{
		"of the table":            {"/inherit", "test", `typed_per_filter_config["test"]`, false, true},
		"of the virtual host":     {"/inherit", "vhost", `virtual_hosts[0].typed_per_filter_config["vhost"]`, false, true},
		"disabled by the table":   {"/inherit", "off", nil, true, true},
		"none":                    {"/inherit", "other", nil, false, false},
		"of the route, wrapped":   {"/own", "test", route + `[1].typed_per_filter_config["test"].config`, false, true},
		"enabled again":           {"/own", "off", nil, false, true},
		"disabled, config stays":  {"/own", "vhost", `virtual_hosts[0].typed_per_filter_config["vhost"]`, true, true},
		"optional and unknown":    {"/own", "gone", nil, false, false},
		"of the weighted cluster": {"/weighted", "test", route + `[2].route.weighted_clusters.clusters[0].typed_per_filter_config["test"]`, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := head(":path: " + c.path)
			e := table.Match(h, infoOf(h), 0)
			if got := e.FilterConfig(c.filter); got != c.config {
				t.Errorf("config %v, want %v", got, c.config)
			}
			if disabled, said := e.FilterDisabled(c.filter); disabled != c.disabled || said != c.said {
				t.Errorf("disabled %v (said %v), want %v (%v)", disabled, said, c.disabled, c.said)
			}
		})
	}
}

func TestClusters(t *testing.T) {
	t.Parallel()
	table := compile(t, oneHost(`
- {match: {prefix: /header}, route: {cluster_header: X-Cl}}
- match: {prefix: /weighted}
  route:
    weighted_clusters:
      header_name: x-rand
      clusters: [{name: zero, weight: 0}, {name: one, weight: 1}, {cluster_header: x-cl, weight: 2}]
`))
	for name, c := range map[string]struct {
		head   []string
		random uint64
		want   string
	}{
		"header":                   {[]string{":path: /header", "x-cl: a", "x-cl: b"}, 0, "a"},
		"header missing":           {[]string{":path: /header"}, 0, ""},
		"weight":                   {[]string{":path: /weighted"}, 3, "one"},
		"weight, cluster header":   {[]string{":path: /weighted", "x-cl: h"}, 1, "h"},
		"weight, last":             {[]string{":path: /weighted", "x-cl: h"}, 2, "h"},
		"random of a header":       {[]string{":path: /weighted", "x-cl: h", "x-rand: 0"}, 1, "one"},
		"random with plus":         {[]string{":path: /weighted", "x-cl: h", "x-rand: +1"}, 0, "h"},
		"largest random":           {[]string{":path: /weighted", "x-rand: 18446744073709551615"}, 1, "one"},
		"random that is no number": {[]string{":path: /weighted", "x-rand: -1"}, 0, "one"},
		"random that is too large": {[]string{":path: /weighted", "x-rand: 18446744073709551616"}, 0, "one"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := head(c.head...)
			if got := table.Match(h, infoOf(h), c.random).Cluster(h); got != c.want {
				t.Errorf("cluster %q, want %q", got, c.want)
			}
		})
	}
}

func TestAction(t *testing.T) {
	t.Parallel()
	env := testEnv()
	table := compileEnv(t, `
name: r
internal_only_headers: [X-Int]
request_mirror_policies: [{cluster: table}]
metadata: {filter_metadata: {n: {k: table}}}
virtual_hosts:
- name: v
  domains: ["*"]
  include_request_attempt_count: true
  include_attempt_count_in_response: true
  include_is_timeout_retry_header: true
  per_request_buffer_limit_bytes: 7
  metadata: {filter_metadata: {n: {k: vhost}}}
  retry_policy: {retry_on: 5xx}
  virtual_clusters: [{name: posts, headers: [{name: ":method", string_match: {exact: POST}}]}]
  routes:
  - {match: {path: /default}, route: {cluster: c}}
  - name: full
    match: {path: /full}
    stat_prefix: sp
    request_body_buffer_limit: 9
    metadata: {filter_metadata: {n: {k: [1, true, null]}}}
    decorator: {operation: op}
    route:
      cluster: c
      cluster_not_found_response_code: NOT_FOUND
      timeout: 0s
      idle_timeout: 3s
      max_stream_duration: {max_stream_duration: 4s, grpc_timeout_header_max: 0s}
      max_grpc_timeout: 5s
      priority: HIGH
      auto_host_rewrite: true
      hash_policy: [{header: {header_name: x}}]
      upgrade_configs: [{upgrade_type: websocket, enabled: false}, {upgrade_type: CONNECT, connect_config: {allow_post: true}}]
      request_mirror_policies: [{cluster_header: x-m, runtime_fraction: {default_value: {numerator: 1}}, disable_shadow_host_suffix_append: true}]
      retry_policy:
        retry_on: "gateway-error, unavailable,nonsense,retriable-headers"
        num_retries: 0
        per_try_timeout: 1s
        per_try_idle_timeout: 2s
        retriable_status_codes: [418]
        host_selection_retry_max_attempts: 5
        retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts}]
        retry_priority: {name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig, update_frequency: 2}}
        retry_back_off: {base_interval: 0.0001s, max_interval: 1s}
        rate_limited_retry_back_off: {reset_headers: [{name: Retry-After}, {name: x-reset, format: UNIX_TIMESTAMP}]}
`, env)
	match := func(lines ...string) *Entry {
		h := head(lines...)
		return table.Match(h, infoOf(h), 0)
	}
	ignore := cmp.Options{
		cmpopts.IgnoreUnexported(Action{}), cmpopts.IgnoreFields(Action{}, "Mirrors"),
		cmpopts.IgnoreFields(RetryPolicy{}, "ResponseHeaders", "RequestHeaders"), cmpopts.EquateEmpty(),
	}
	def := match(":path: /default")
	want := &Action{
		ClusterNotFoundStatus: 503, Timeout: 15 * time.Second, IdleTimeout: Unset, FlushTimeout: Unset, MaxStreamDuration: Unset,
		GRPCTimeoutHeaderMax: Unset, GRPCTimeoutHeaderOffset: Unset, MaxGRPCTimeout: Unset, GRPCTimeoutOffset: Unset,
		Retry: &RetryPolicy{On: Retry5xx, NumRetries: 1, HostSelectionAttempts: 1, BaseInterval: Unset, MaxInterval: Unset},
	}
	if d := cmp.Diff(want, def.Action, ignore); d != "" {
		t.Errorf("default (-want +got):\n%s", d)
	}
	if got := def.Action.Mirrors[0].Cluster(head(), 5); got != "table" || !def.Action.Mirrors[0].Suffix || def.BufferLimit != 7 {
		t.Errorf("default: mirror %q, buffer limit %d", got, def.BufferLimit)
	}
	full := match(":path: /full")
	want = &Action{
		ClusterNotFoundStatus: 404, IdleTimeout: 3 * time.Second, FlushTimeout: Unset, HasMaxStreamDuration: true,
		MaxStreamDuration: 4 * time.Second, GRPCTimeoutHeaderOffset: Unset, MaxGRPCTimeout: 5 * time.Second,
		GRPCTimeoutOffset: Unset, HighPriority: true, AutoHostRewrite: true, Connect: &ConnectConfig{AllowPost: true},
		Retry: &RetryPolicy{
			On: RetryGatewayError | RetryGRPCUnavailable | RetryRetriableHeaders, PerTryTimeout: time.Second,
			PerTryIdleTimeout: 2 * time.Second, StatusCodes: []uint32{418}, HostSelectionAttempts: 5, PreviousHosts: true,
			PreviousPriorities: 2, BaseInterval: time.Millisecond, MaxInterval: time.Second,
			RateLimited: &RateLimitedBackOff{
				Headers: []ResetHeader{{"retry-after", false}, {"x-reset", true}}, MaxInterval: 300 * time.Second,
			},
		},
	}
	if d := cmp.Diff(want, full.Action, ignore); d != "" {
		t.Errorf("full (-want +got):\n%s", d)
	}
	m := &full.Action.Mirrors[0]
	if got := m.Cluster(head("x-m: there"), 0); got != "there" || m.Suffix || m.Cluster(head("x-m: there"), 1) != "" {
		t.Errorf("mirrored to %q", got)
	}
	if on, said := full.Action.Upgrade("WebSocket"); on || !said {
		t.Errorf("websocket: %v %v", on, said)
	}
	if _, said := full.Action.Upgrade("h2c"); said {
		t.Error("the route says something of h2c")
	}
	v := full.VirtualHost
	if v.Name != "v" || !v.IncludeAttemptCount || !v.IncludeAttemptCountInResponse || !v.IncludeIsTimeoutRetry {
		t.Errorf("virtual host: %+v", v)
	}
	if a, b := v.VirtualCluster(head(":method: POST")), v.VirtualCluster(head()); a != "posts" || b != "other" {
		t.Errorf("virtual clusters %q, %q", a, b)
	}
	type meta = map[string]map[string]any
	if d := cmp.Diff([]meta{{"n": {"k": "table"}}, {"n": {"k": "vhost"}}, {"n": {"k": []any{1.0, true, nil}}}},
		[]meta{table.Metadata, v.Metadata, full.Metadata}); d != "" {
		t.Errorf("metadata (-want +got):\n%s", d)
	}
	if full.StatPrefix != "sp" || full.BufferLimit != 9 || table.InternalOnlyHeaders()[0] != "x-int" {
		t.Errorf("entry: %+v", full)
	}
}

func TestDynamic(t *testing.T) {
	t.Parallel()
	d := NewDynamic(testEnv())
	if d.Load() != nil {
		t.Fatal("there is a table before the first")
	}
	if err := d.Apply(parse(t, oneHost("- {name: one, match: {prefix: /}, route: {cluster: c}}"))); err != nil {
		t.Fatal(err)
	}
	h := head()
	pinned := d.Load().Match(h, infoOf(h), 0)
	if err := d.Apply(parse(t, oneHost("- {name: bad, match: {prefix: /}, route: {cluster: c, hedge_policy: {}}}"))); err == nil {
		t.Error("a bad table was taken")
	}
	if got := route(d.Load()); got != "one" {
		t.Errorf("after a bad table: %q, want one", got)
	}
	if err := d.Apply(parse(t, oneHost("- {name: two, match: {prefix: /}, route: {cluster: c}}"))); err != nil {
		t.Fatal(err)
	}
	if got := route(d.Load()); got != "two" || pinned.Name() != "one" {
		t.Errorf("got %q, pinned %q", got, pinned.Name())
	}
	d.Remove()
	if d.Load() != nil {
		t.Error("there is a table after removal")
	}
}

func TestParseRetryOn(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]struct {
		on    RetryOn
		valid bool
	}{
		"":                     {0, true},
		"5xx":                  {Retry5xx, true},
		" 5xx ,, reset,":       {Retry5xx | RetryReset, true},
		"5xx,foo":              {Retry5xx, false},
		"5XX":                  {0, false},
		"cancelled,internal":   {RetryGRPCCancelled | RetryGRPCInternal, true},
		"reset-before-request": {RetryResetBeforeRequest, true},
	} {
		if on, valid := ParseRetryOn(list); on != want.on || valid != want.valid {
			t.Errorf("%q: got %b %v, want %b %v", list, on, valid, want.on, want.valid)
		}
	}
}
