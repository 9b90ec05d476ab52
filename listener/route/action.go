package route

import (
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"sidecar/api/header"
	"sidecar/internal/config"
	"sidecar/internal/match"
	"sidecar/internal/mutate"
)

// Action is how a request is forwarded. Read only; shared by the entries of weighted clusters.
type Action struct {
	// ClusterNotFoundStatus is the answer when the cluster doesn't exist: 503 or 404.
	ClusterNotFoundStatus int
	// Timeout is from the end of the request to the end of the response; 0 is none.
	Timeout time.Duration
	// IdleTimeout overrides the stream idle timeout: 0 disables it, Unset leaves it.
	IdleTimeout time.Duration
	// FlushTimeout bounds how long the end of a response waits for its client: 0 is for ever, Unset
	// leaves the manager's.
	FlushTimeout time.Duration
	// MaxStreamDuration and the two after it are those of max_stream_duration; HasMaxStreamDuration
	// tells whether that message is there, as the deprecated gRPC timeouts don't count then.
	MaxStreamDuration       time.Duration
	GRPCTimeoutHeaderMax    time.Duration
	GRPCTimeoutHeaderOffset time.Duration
	HasMaxStreamDuration    bool
	// MaxGRPCTimeout and GRPCTimeoutOffset are the deprecated fields; Unset if not there.
	MaxGRPCTimeout    time.Duration
	GRPCTimeoutOffset time.Duration
	// HighPriority selects the circuit breakers of that priority.
	HighPriority bool
	// Retry is the policy of the route or else of the virtual host; nil if neither has one.
	Retry *RetryPolicy
	// Mirrors are the clusters that get a copy.
	Mirrors []Mirror
	// AutoHostRewrite asks for Entry.RewriteHost with the name of the host that was picked.
	AutoHostRewrite bool
	// Connect is set where CONNECT (or connect-udp) ends here and its payload goes to the cluster.
	Connect *ConnectConfig

	hash          []hashMethod
	upgrades      []upgradeSwitch
	prefixRewrite string
	regexRewrite  *match.Substitution
	hostLiteral   string
	hostHeader    string
	hostRegex     *match.Substitution
	pathFormat    mutate.Formatter
	hostFormat    mutate.Formatter
	appendXFH     bool
}

// ConnectConfig is how the payload of a CONNECT request is forwarded.
type ConnectConfig struct {
	// AllowPost lets POST requests be treated like CONNECT.
	AllowPost bool
}

type upgradeSwitch struct {
	kind    string
	enabled bool
}

// Upgrade tells whether the route says something about an upgrade type ("websocket", "CONNECT"),
// and what; else the connection manager decides.
func (a *Action) Upgrade(kind string) (enabled, said bool) {
	for i := range a.upgrades {
		if strings.EqualFold(a.upgrades[i].kind, kind) {
			return a.upgrades[i].enabled, true
		}
	}
	return false, false
}

// defaultTimeout is that of a route which sets none.
const defaultTimeout = 15 * time.Second

// action reads a RouteAction, but for its weighted clusters, into e.
func (c *compiler) action(p *config.Path, m *routev3.RouteAction, in *inherited, e *Entry) {
	actionFields.Check(p, m, c.errs)
	a := &Action{
		ClusterNotFoundStatus: 503,
		Timeout:               config.Duration(p.Field("timeout"), m.GetTimeout(), defaultTimeout, c.errs),
		IdleTimeout:           c.optional(p.Field("idle_timeout"), m.GetIdleTimeout()),
		FlushTimeout:          c.optional(p.Field("flush_timeout"), m.GetFlushTimeout()),
		MaxGRPCTimeout:        c.optional(p.Field("max_grpc_timeout"), m.GetMaxGrpcTimeout()),       //nolint:staticcheck // old control planes send it
		GRPCTimeoutOffset:     c.optional(p.Field("grpc_timeout_offset"), m.GetGrpcTimeoutOffset()), //nolint:staticcheck // old control planes send it
		HighPriority:          m.GetPriority() == corev3.RoutingPriority_HIGH,
		AutoHostRewrite:       m.GetAutoHostRewrite().GetValue(),
		prefixRewrite:         m.GetPrefixRewrite(),
		hostLiteral:           m.GetHostRewriteLiteral(),
		hostHeader:            match.HeaderName(m.GetHostRewriteHeader()),
		appendXFH:             m.GetAppendXForwardedHost(),
	}
	switch m.GetClusterNotFoundResponseCode() {
	case routev3.RouteAction_NOT_FOUND:
		a.ClusterNotFoundStatus = 404
	case routev3.RouteAction_INTERNAL_SERVER_ERROR:
		a.ClusterNotFoundStatus = 500
	case routev3.RouteAction_SERVICE_UNAVAILABLE:
	}
	c.maxStreamDuration(p.Field("max_stream_duration"), m.GetMaxStreamDuration(), a)
	c.rewrites(p, m, a)
	a.hash = c.hashPolicies(p.Field("hash_policy"), m.GetHashPolicy())
	c.upgrades(p.Field("upgrade_configs"), m.GetUpgradeConfigs(), a)
	a.Retry = in.retry
	if m.GetRetryPolicy() != nil {
		a.Retry = c.retryPolicy(p.Field("retry_policy"), m.GetRetryPolicy())
	}
	if a.Mirrors = c.mirrors(p, m.GetRequestMirrorPolicies()); a.Mirrors == nil {
		a.Mirrors = in.mirrors
	}
	e.Action = a
	e.Criteria = c.criteria(p.Field("metadata_match"), m.GetMetadataMatch())
	switch s := m.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		e.cluster = s.Cluster
		c.checkCluster(p.Field("cluster"), "", s.Cluster)
	case *routev3.RouteAction_ClusterHeader:
		e.clusterHeader = match.HeaderName(s.ClusterHeader)
	}
}

// optional reads a duration that may be left out.
func (c *compiler) optional(p *config.Path, d *durationpb.Duration) time.Duration {
	return config.Duration(p, d, Unset, c.errs)
}

func (c *compiler) maxStreamDuration(p *config.Path, m *routev3.RouteAction_MaxStreamDuration, a *Action) {
	durationFields.Check(p, m, c.errs)
	a.HasMaxStreamDuration = m != nil
	a.MaxStreamDuration = c.optional(p.Field("max_stream_duration"), m.GetMaxStreamDuration())
	a.GRPCTimeoutHeaderMax = c.optional(p.Field("grpc_timeout_header_max"), m.GetGrpcTimeoutHeaderMax())
	a.GRPCTimeoutHeaderOffset = c.optional(p.Field("grpc_timeout_header_offset"), m.GetGrpcTimeoutHeaderOffset())
}

func (c *compiler) rewrites(p *config.Path, m *routev3.RouteAction, a *Action) {
	ways := 0
	for _, set := range []bool{m.GetPrefixRewrite() != "", m.GetRegexRewrite() != nil, m.GetPathRewrite() != ""} {
		if set {
			ways++
		}
	}
	if ways > 1 {
		c.errs.Add(p, "Specify only one of prefix_rewrite, regex_rewrite or path_rewrite_policy")
	}
	a.pathFormat = c.rewriteFormat(p.Field("path_rewrite"), m.GetPathRewrite(), true)
	a.hostFormat = c.rewriteFormat(p.Field("host_rewrite"), m.GetHostRewrite(), false)
	if m.GetRegexRewrite() != nil {
		a.regexRewrite = match.CompileSubstitution(p.Field("regex_rewrite"), m.GetRegexRewrite(), c.errs)
	}
	if r := m.GetHostRewritePathRegex(); r != nil {
		a.hostRegex = match.CompileSubstitution(p.Field("host_rewrite_path_regex"), r, c.errs)
	}
}

func (c *compiler) upgrades(p *config.Path, list []*routev3.RouteAction_UpgradeConfig, a *Action) {
	for i, u := range list {
		at := p.Index(i)
		upgradeFields.Check(at, u, c.errs)
		kind := u.GetUpgradeType()
		if _, dup := a.Upgrade(kind); dup {
			c.errs.Addf(at.Field("upgrade_type"), "Duplicate upgrade %s", kind)
		}
		a.upgrades = append(a.upgrades, upgradeSwitch{kind, config.Value(u.GetEnabled(), true)})
		cc := u.GetConnectConfig()
		if cc == nil {
			continue
		}
		at = at.Field("connect_config")
		connectFields.Check(at, cc, c.errs)
		switch {
		case !strings.EqualFold(kind, "CONNECT") && !strings.EqualFold(kind, "connect-udp"):
			c.errs.Addf(at, "Non-CONNECT upgrade type %s has ConnectConfig", kind)
		default:
			a.Connect = &ConnectConfig{AllowPost: cc.GetAllowPost()}
		}
	}
}

// Mirror is a cluster that gets a copy of requests. Read only.
type Mirror struct {
	// Host replaces the host of the copy; else, if Suffix, "-shadow" is appended to it.
	Host   string
	Suffix bool

	cluster, clusterHeader string
	fraction               *config.RuntimeFraction
}

// Cluster returns where a request is copied to; "" for nowhere.
func (m *Mirror) Cluster(h *header.Map, random uint64) string {
	if m.fraction != nil && !m.fraction.Hit(random) {
		return ""
	}
	if m.clusterHeader == "" {
		return m.cluster
	}
	v, _ := h.Get(m.clusterHeader)
	return v
}

func (c *compiler) mirrors(p *config.Path, list []*routev3.RouteAction_RequestMirrorPolicy) []Mirror {
	if len(list) == 0 {
		return nil
	}
	p = p.Field("request_mirror_policies")
	out := make([]Mirror, len(list))
	for i, m := range list {
		at := p.Index(i)
		mirrorFields.Check(at, m, c.errs)
		out[i] = Mirror{
			Host: m.GetHostRewriteLiteral(), Suffix: !m.GetDisableShadowHostSuffixAppend(),
			cluster: m.GetCluster(), clusterHeader: match.HeaderName(m.GetClusterHeader()),
		}
		switch {
		case m.GetCluster() != "" && m.GetClusterHeader() != "":
			c.errs.Addf(at, "Only one of cluster '%s' or cluster_header '%s' in request mirror policy can be specified",
				m.GetCluster(), m.GetClusterHeader())
		case m.GetCluster() == "" && m.GetClusterHeader() == "":
			c.errs.Add(at, "Exactly one of cluster or cluster_header in request mirror policy need to be specified")
		}
		c.checkCluster(at.Field("cluster"), "shadow ", m.GetCluster())
		if m.GetRuntimeFraction() != nil {
			out[i].fraction = c.runtimeFraction(at.Field("runtime_fraction"), m.GetRuntimeFraction())
		}
	}
	return out
}
