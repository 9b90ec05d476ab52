package listener

import (
	"crypto/sha256"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/internal/netfilter"
	"sidecar/listener/chain"
)

//nolint:gochecknoglobals // immutable tables
var (
	listenerFields = config.Fields[*listenerv3.Listener]{
		Used: "name address additional_addresses stat_prefix filter_chains use_original_dst " +
			"default_filter_chain per_connection_buffer_limit_bytes metadata deprecated_v1 drain_type " +
			"listener_filters listener_filters_timeout continue_on_listener_filters_timeout " +
			"traffic_direction access_log bind_to_port enable_reuse_port transparent freebind " +
			"ignore_global_conn_limit bypass_overload_manager tcp_backlog_size socket_options " +
			"tcp_fast_open_queue_length tcp_keepalive connection_balance_config",
		OffOnly: "enable_mptcp",
		Refused: "stats_matcher fcds_config filter_chain_matcher " +
			"per_connection_buffer_high_watermark_timeout udp_listener_config api_listener internal_listener",
		NoOp: map[string]string{
			"max_connections_to_accept_per_socket_event": "each accepted connection is handed to its own " +
				"goroutine at once",
			"reuse_port": "enable_reuse_port took its place, and is on unless switched off",
		},
	}
	balanceFields = config.Fields[*listenerv3.Listener_ConnectionBalanceConfig]{
		Refused: "extend_balance cpu_locality_balance",
		NoOp: map[string]string{
			"exact_balance": "one accept queue serves all threads, so connections are balanced",
		},
	}
	deprecatedFields = config.Fields[*listenerv3.Listener_DeprecatedV1]{Used: "bind_to_port"}
	chainFields      = config.Fields[*listenerv3.FilterChain]{
		Used:    "filter_chain_match filters name transport_socket transport_socket_connect_timeout",
		OffOnly: "use_proxy_proto",
		NoOp: map[string]string{
			"metadata": "only read by filters that are refused here",
		},
	}
	filterFields         = config.Fields[*listenerv3.Filter]{Used: "name typed_config config_discovery"}
	listenerFilterFields = config.Fields[*listenerv3.ListenerFilter]{
		Used: "name typed_config filter_disabled", Refused: "config_discovery",
	}
)

const (
	defaultBufferLimit    = 1 << 20
	defaultFiltersTimeout = 15 * time.Second
)

// Env is what compiling a listener may use.
type Env struct {
	Network map[string]*filter.NetworkEntry // by the full name of the configuration message
	// ListenerFilters makes listener filters, by the full name of the configuration message.
	ListenerFilters map[string]filter.ListenerEntry
	// Transports makes transport sockets, by the full name of the configuration message.
	Transports map[string]*filter.TransportEntry
	Scope      *stats.Scope
	Log        *slog.Logger
	AccessLogs func(p *config.Path, logs []*accesslogv3.AccessLog, errs *config.Errors) []AccessLog
	// DynamicFilter makes the factory of a network filter whose configuration comes over ECDS.
	DynamicFilter func(name string, cs *corev3.ExtensionConfigSource, c filter.NetworkContext) (any, error)
	// Digest tells whether two messages mean the same, whatever the order of maps inside typed configs:
	// a chain that means the same keeps its connections. nil: their bytes tell.
	Digest func(m proto.Message) [32]byte
	// Runtime reads a number of the runtime; nil: there is none.
	Runtime func(key string) (uint64, bool)
}

// AccessLog writes one line; it must not block.
type AccessLog interface {
	Log(info *stream.Info)
}

// Config is a compiled listener. It is immutable.
type Config struct {
	Name      string
	Addresses []Address
	Direction int32
	// Raw is the resource as it came; for config_dump and for telling that nothing has changed.
	Raw []byte

	statName       string
	bind           bool
	backlog        int // 0: the system's
	useOriginalDst bool
	ignoreLimit    bool
	bypassOverload bool
	modifyOnly     bool
	bufferLimit    int
	filters        []listenerFilter
	filtersTimeout time.Duration
	continueOnTO   bool
	matches        []*chain.Match
	chains         []*Chain
	fallback       *Chain
	made           []*Chain // those that no earlier version has
	accessLogs     []AccessLog
	metadata       map[string]map[string]any
	frame          [32]byte // digest of everything but the chains
	// connectionLimit is the listener's own limit in the runtime; nil: there is no runtime.
	connectionLimit func() (uint64, bool)
	// scope is the handle on the listener's stats, "listener.ADDR."; close gives it back.
	scope *stats.Scope
}

// close gives back what a Config holds besides its chains: nobody uses its stats any more.
func (c *Config) close() { c.scope.Close() }

// Chain is one filter chain with its connections.
type Chain struct {
	Name      string
	transport filter.DownstreamTransport // nil: plaintext
	// connectTimeout bounds making the transport ready; 0 is not at all.
	connectTimeout time.Duration
	filters        netfilter.Chain // those before terminal
	terminal       filter.NetworkTerminal
	digest         [32]byte
	drain          *Draining
	conns          connections
	// warmed is set once, by the goroutine that warms the chain's first version.
	warmed atomic.Bool
	retire sync.Once
}

// end closes what is left of the chain's connections and lets go of what its filters hold. The chain
// takes no connection any more.
func (ch *Chain) end() {
	ch.conns.closeAll()
	ch.retire.Do(func() {
		for _, part := range ch.parts() {
			if r, ok := part.(filter.Retirer); ok {
				r.Retire()
			}
		}
	})
}

// parts are what may have to be warmed, waited for and retired.
func (ch *Chain) parts() []any {
	out := []any{ch.transport, ch.terminal}
	for _, f := range ch.filters {
		out = append(out, f)
	}
	return out
}

// Compile turns a listener resource into a Config. Chains that are the same in old are taken over
// from it, with their connections. drain is the process's.
func Compile(m *listenerv3.Listener, env *Env, old *Config, drain *Draining) (*Config, error) {
	var errs config.Errors
	config.Validate(nil, m, &errs)
	listenerFields.Check(nil, m, &errs)
	raw, err := marshal(m)
	if err != nil {
		return nil, err
	}
	c := &Config{
		Name: m.GetName(), Raw: raw, Direction: int32(m.GetTrafficDirection()),
		bind:           config.Value(m.GetBindToPort(), true),
		backlog:        int(config.Value(m.GetTcpBacklogSize(), 0)),
		useOriginalDst: m.GetUseOriginalDst().GetValue(),
		ignoreLimit:    m.GetIgnoreGlobalConnLimit(), bypassOverload: m.GetBypassOverloadManager(),
		modifyOnly:     m.GetDrainType() == listenerv3.Listener_MODIFY_ONLY,
		bufferLimit:    int(config.Value(m.GetPerConnectionBufferLimitBytes(), defaultBufferLimit)),
		filtersTimeout: config.Duration(config.Field("listener_filters_timeout"), m.GetListenerFiltersTimeout(), defaultFiltersTimeout, &errs),
		continueOnTO:   m.GetContinueOnListenerFiltersTimeout(),
		metadata:       config.Metadata(m.GetMetadata()),
	}
	balanceFields.Check(config.Field("connection_balance_config"), m.GetConnectionBalanceConfig(), &errs)
	if d := m.GetDeprecatedV1(); d != nil {
		deprecatedFields.Check(config.Field("deprecated_v1"), d, &errs)
		c.bind = c.bind && config.Value(d.GetBindToPort(), true)
	}
	c.compileAddresses(m, &errs)
	c.statName = m.GetStatPrefix()
	if c.statName == "" && len(c.Addresses) > 0 {
		c.statName = StatName(c.Addresses[0].Text)
	}
	if env.Runtime != nil {
		key := "envoy.resource_limits.listener." + c.Name + ".connection_limit"
		c.connectionLimit = func() (uint64, bool) { return env.Runtime(key) }
	}
	c.scope = env.Scope.Sub("listener." + c.statName)
	c.frame = env.frameDigest(m)
	if env.AccessLogs != nil {
		c.accessLogs = env.AccessLogs(config.Field("access_log"), m.GetAccessLog(), &errs)
	}
	c.compileFilters(m, env, &errs)
	c.compileChains(m, env, old, drain, &errs)
	if err := errs.Err(); err != nil {
		c.discard()
		return nil, err
	}
	return c, nil
}

// marshal gives the bytes by which versions are compared.
func marshal(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// discard ends a Config that never was in force, with the chains that it does not share with another.
func (c *Config) discard() {
	for _, ch := range c.made {
		ch.end()
	}
	c.close()
}

// StatName is an address as it stands in stat names: colons are underscores.
func StatName(addr string) string { return strings.ReplaceAll(addr, ":", "_") }

// frameDigest is over everything but the chains: when it stays, an update swaps chains in place.
func (e *Env) frameDigest(m *listenerv3.Listener) [32]byte {
	f := &listenerv3.Listener{}
	proto.Merge(f, m)
	f.FilterChains, f.DefaultFilterChain = nil, nil
	return e.digest(f)
}

// digest is that of a message's meaning, or, without Digest, of its bytes.
func (e *Env) digest(m proto.Message) [32]byte {
	if e.Digest != nil {
		return e.Digest(m)
	}
	b, err := marshal(m)
	if err != nil {
		return [32]byte{}
	}
	return sha256.Sum256(b)
}

const originalDst = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst"

func (c *Config) compileFilters(m *listenerv3.Listener, env *Env, errs *config.Errors) {
	for i, lf := range m.GetListenerFilters() {
		p := config.Field("listener_filters").Index(i)
		listenerFilterFields.Check(p, lf, errs)
		f := listenerFilter{disabled: compilePredicate(p.Field("filter_disabled"), lf.GetFilterDisabled(), errs)}
		if f.ListenerFilter = compileFilter(p.Field("typed_config"), lf, env, errs); f.ListenerFilter != nil {
			c.filters = append(c.filters, f)
		}
	}
	if !c.useOriginalDst {
		return
	}
	// The field stands for the filter as well (ListenerImpl::buildOriginalDstListenerFilter).
	e, ok := env.ListenerFilters[originalDst]
	if !ok {
		errs.Add(config.Field("use_original_dst"), "needs the listener filter original_dst")
		return
	}
	f, err := e.Compile(e.Config, filter.ListenerContext{Scope: env.Scope})
	errs.Wrap(config.Field("use_original_dst"), err)
	if err == nil {
		c.filters = append(c.filters, listenerFilter{ListenerFilter: f})
	}
}

func compileFilter(p *config.Path, lf *listenerv3.ListenerFilter, env *Env, errs *config.Errors) filter.ListenerFilter {
	name := string(config.TypeName(lf.GetTypedConfig()))
	e, ok := env.ListenerFilters[name]
	if !ok {
		errs.Addf(p, "listener filter %q (%s) is not supported", lf.GetName(), name)
		return nil
	}
	opened, ok := config.OpenAs[proto.Message](p, lf.GetTypedConfig(), errs)
	if !ok {
		return nil
	}
	f, err := e.Compile(opened, filter.ListenerContext{Scope: env.Scope})
	errs.Wrap(p, err)
	if err != nil {
		return nil
	}
	return f
}

func (c *Config) compileChains(m *listenerv3.Listener, env *Env, old *Config, drain *Draining, errs *config.Errors) {
	if len(m.GetFilterChains()) == 0 && m.GetDefaultFilterChain() == nil {
		errs.Addf(nil, "error adding listener '%s': no filter chains specified", c.addressText())
		return
	}
	seen := map[string]int{}
	var overlaps chain.Overlaps
	for i, fc := range m.GetFilterChains() {
		p := config.Field("filter_chains").Index(i)
		match := chain.CompileMatch(p.Field("filter_chain_match"), fc.GetFilterChainMatch(), errs)
		overlap := overlaps.Add(match)
		if j, twice := seen[match.Key()]; twice {
			errs.Addf(p.Field("filter_chain_match"),
				"error adding listener '%s': filter chain '%s' has the same matching rules defined as filter_chains[%d]",
				c.addressText(), fc.GetName(), j)
		} else if overlap >= 0 {
			errs.Addf(p.Field("filter_chain_match"), "error adding listener '%s': multiple filter chains "+
				"with overlapping matching rules are defined: filter_chains[%d]", c.addressText(), overlap)
		}
		seen[match.Key()] = i
		c.matches = append(c.matches, match)
		c.chains = append(c.chains, c.compileChain(p, fc, env, old, drain, errs))
	}
	if fc := m.GetDefaultFilterChain(); fc != nil {
		c.fallback = c.compileChain(config.Field("default_filter_chain"), fc, env, old, drain, errs)
	}
}

func (c *Config) addressText() string {
	if len(c.Addresses) == 0 {
		return ""
	}
	return c.Addresses[0].Text
}

func (c *Config) compileChain(p *config.Path, fc *listenerv3.FilterChain, env *Env, old *Config,
	drain *Draining, errs *config.Errors,
) *Chain {
	chainFields.Check(p, fc, errs)
	digest := env.digest(fc)
	if ch := old.chainLike(c.frame, digest); ch != nil {
		return ch
	}
	ch := &Chain{Name: fc.GetName(), digest: digest}
	c.made = append(c.made, ch)
	ch.drain = &Draining{policy: drain.policy, parent: drain}
	ch.drain.modifyOnly = c.modifyOnly
	ch.transport = c.compileTransport(p.Field("transport_socket"), fc, env, errs)
	ch.connectTimeout = config.Duration(p.Field("transport_socket_connect_timeout"),
		fc.GetTransportSocketConnectTimeout(), filter.DefaultTransportTimeout, errs)
	fp := p.Field("filters")
	if len(fc.GetFilters()) == 0 {
		errs.Add(fp, "must not be empty")
		return nil
	}
	for i, f := range fc.GetFilters() {
		filterFields.Check(fp.Index(i), f, errs)
		ch.add(fp.Index(i), f.GetName(), c.compileNetwork(fp.Index(i), f, env, errs), i == len(fc.GetFilters())-1, errs)
	}
	return ch
}

// add takes what a filter was compiled to; nil was refused already.
func (ch *Chain) add(p *config.Path, name string, made any, last bool, errs *config.Errors) {
	switch f := made.(type) {
	case filter.NetworkTerminal:
		if !last {
			errs.Addf(p, "Error: terminal filter named %s must be the last filter in a network filter chain.", name)
		}
		ch.terminal = f
	case filter.NetworkFactory:
		if last {
			errs.Addf(p, "Error: non-terminal filter named %s is the last filter in a network filter chain.", name)
		}
		ch.filters = append(ch.filters, f)
	case nil:
	default:
		errs.Addf(p, "%s is no network filter", name)
	}
}

func (c *Config) compileNetwork(p *config.Path, f *listenerv3.Filter, env *Env, errs *config.Errors) any {
	nc := filter.NetworkContext{
		Path: p.String(), Name: f.GetName(), Scope: env.Scope,
		ListenerScope: c.scope, Log: env.Log,
		BufferLimit: c.bufferLimit, Direction: c.Direction, ListenerName: c.Name,
	}
	if cs := f.GetConfigDiscovery(); cs != nil {
		p = p.Field("config_discovery")
		if env.DynamicFilter == nil {
			errs.Add(p, "is not supported here")
			return nil
		}
		made, err := env.DynamicFilter(f.GetName(), cs, nc)
		errs.Wrap(p, err)
		if err != nil {
			return nil
		}
		return made
	}
	return CompileNetwork(p.Field("typed_config"), f.GetName(), f.GetTypedConfig(), env.Network, nc, errs)
}

// CompileNetwork compiles the configuration of a network filter of the table; nil after an error.
func CompileNetwork(p *config.Path, name string, a *anypb.Any, table map[string]*filter.NetworkEntry,
	nc filter.NetworkContext, errs *config.Errors,
) any {
	typ := string(config.TypeName(a))
	e := table[typ]
	if e == nil {
		errs.Addf(p, "network filter %q (%s) is not supported", name, typ)
		return nil
	}
	opened, ok := config.OpenAs[proto.Message](p, a, errs)
	if !ok {
		return nil
	}
	nc.Path = p.String()
	made, err := e.Compile(opened, nc)
	errs.Wrap(p, err)
	if err != nil {
		return nil
	}
	return made
}

// chainLike finds a chain of the same content in an earlier version of the same listener.
func (c *Config) chainLike(frame, digest [32]byte) *Chain {
	if c == nil || c.frame != frame {
		return nil
	}
	for _, ch := range c.chains {
		if ch.digest == digest {
			return ch
		}
	}
	if c.fallback != nil && c.fallback.digest == digest {
		return c.fallback
	}
	return nil
}

// all returns the chains, the default one last.
func (c *Config) all() []*Chain {
	if c.fallback == nil {
		return c.chains
	}
	return append(append([]*Chain(nil), c.chains...), c.fallback)
}
