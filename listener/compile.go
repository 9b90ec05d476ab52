package listener

import (
	"crypto/sha256"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/config"
	"sidecar/listener/chain"
)

//nolint:gochecknoglobals // immutable tables
var (
	listenerFields = config.Fields[*listenerv3.Listener]{
		Used: "name address additional_addresses stat_prefix filter_chains use_original_dst " +
			"default_filter_chain per_connection_buffer_limit_bytes metadata deprecated_v1 drain_type " +
			"listener_filters listener_filters_timeout continue_on_listener_filters_timeout " +
			"traffic_direction access_log bind_to_port enable_reuse_port transparent freebind " +
			"ignore_global_conn_limit bypass_overload_manager tcp_backlog_size",
		OffOnly: "enable_mptcp",
		Refused: "stats_matcher fcds_config filter_chain_matcher " +
			"per_connection_buffer_high_watermark_timeout socket_options tcp_fast_open_queue_length " +
			"udp_listener_config api_listener internal_listener tcp_keepalive reuse_port",
		NoOp: map[string]string{
			"connection_balance_config": "one accept queue serves all threads, so connections are balanced",
			"max_connections_to_accept_per_socket_event": "each accepted connection is handed to its own " +
				"goroutine at once",
		},
	}
	deprecatedFields = config.Fields[*listenerv3.Listener_DeprecatedV1]{Used: "bind_to_port"}
	additionalFields = config.Fields[*listenerv3.AdditionalAddress]{
		Used: "address", Refused: "socket_options tcp_keepalive",
	}
	chainFields = config.Fields[*listenerv3.FilterChain]{
		Used:    "filter_chain_match filters name",
		OffOnly: "use_proxy_proto",
		Refused: "transport_socket",
		NoOp: map[string]string{
			"metadata":                         "only read by filters that are refused here",
			"transport_socket_connect_timeout": "bounds a TLS handshake; only plaintext is served",
		},
	}
	filterFields         = config.Fields[*listenerv3.Filter]{Used: "name typed_config", Refused: "config_discovery"}
	listenerFilterFields = config.Fields[*listenerv3.ListenerFilter]{
		Used: "name typed_config", Refused: "config_discovery filter_disabled",
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
	ListenerFilters map[string]ListenerFilterEntry
	Scope           *stats.Scope
	Log             *slog.Logger
	AccessLogs      func(p *config.Path, logs []*accesslogv3.AccessLog, errs *config.Errors) []AccessLog
	// Runtime reads a number of the runtime; nil: there is none.
	Runtime func(key string) (uint64, bool)
}

// AccessLog writes one line; it must not block.
type AccessLog interface {
	Log(info *stream.Info)
}

// Address is where a listener listens.
type Address struct {
	Network string // "tcp", "tcp4", "tcp6" or "unix"
	Text    string // "1.2.3.4:80" or the path
	IP      netip.AddrPort
	Mode    uint32 // of a unix socket's file
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
	reusePort      bool
	transparent    bool
	freebind       bool
	backlog        int
	useOriginalDst bool
	ignoreLimit    bool
	bypassOverload bool
	modifyOnly     bool
	bufferLimit    int
	filters        []ListenerFilter
	filtersTimeout time.Duration
	continueOnTO   bool
	matches        []*chain.Match
	chains         []*Chain
	fallback       *Chain
	accessLogs     []AccessLog
	metadata       map[string]map[string]any
	frame          [32]byte // digest of everything but the chains
	// connectionLimit is the listener's own limit in the runtime; nil: there is no runtime.
	connectionLimit func() (uint64, bool)
}

// Chain is one filter chain with its connections.
type Chain struct {
	Name     string
	terminal filter.NetworkTerminal
	digest   [32]byte
	drain    *Draining
	conns    connections
	// warmed is set once, by the goroutine that warms the chain's first version.
	warmed atomic.Bool
}

// Compile turns a listener resource into a Config. Chains that are the same in old are taken over
// from it, with their connections. drain is the process's.
func Compile(m *listenerv3.Listener, env *Env, old *Config, drain *Draining) (*Config, error) {
	var errs config.Errors
	config.Validate(nil, m, &errs)
	listenerFields.Check(nil, m, &errs)
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	c := &Config{
		Name: m.GetName(), Raw: raw, Direction: int32(m.GetTrafficDirection()),
		bind: config.Value(m.GetBindToPort(), true), reusePort: config.Value(m.GetEnableReusePort(), true),
		transparent: m.GetTransparent().GetValue(), freebind: m.GetFreebind().GetValue(),
		backlog:        int(config.Value(m.GetTcpBacklogSize(), 0)),
		useOriginalDst: m.GetUseOriginalDst().GetValue(),
		ignoreLimit:    m.GetIgnoreGlobalConnLimit(), bypassOverload: m.GetBypassOverloadManager(),
		modifyOnly:     m.GetDrainType() == listenerv3.Listener_MODIFY_ONLY,
		bufferLimit:    int(config.Value(m.GetPerConnectionBufferLimitBytes(), defaultBufferLimit)),
		filtersTimeout: config.Duration(config.Field("listener_filters_timeout"), m.GetListenerFiltersTimeout(), defaultFiltersTimeout, &errs),
		continueOnTO:   m.GetContinueOnListenerFiltersTimeout(),
		metadata:       config.Metadata(m.GetMetadata()),
	}
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
	c.frame = frameDigest(m)
	if env.AccessLogs != nil {
		c.accessLogs = env.AccessLogs(config.Field("access_log"), m.GetAccessLog(), &errs)
	}
	c.compileFilters(m, env, &errs)
	c.compileChains(m, env, old, drain, &errs)
	if err := errs.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

// StatName is an address as it stands in stat names: colons are underscores.
func StatName(addr string) string { return strings.ReplaceAll(addr, ":", "_") }

// frameDigest is over everything but the chains: when it stays, an update swaps chains in place.
func frameDigest(m *listenerv3.Listener) [32]byte {
	f := &listenerv3.Listener{}
	proto.Merge(f, m)
	f.FilterChains, f.DefaultFilterChain = nil, nil
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(f)
	if err != nil {
		return [32]byte{}
	}
	return sha256.Sum256(b)
}

func (c *Config) compileAddresses(m *listenerv3.Listener, errs *config.Errors) {
	if m.GetAddress() == nil {
		errs.Add(config.Field("address"), "is required")
		return
	}
	c.addAddress(config.Field("address"), m.GetAddress(), errs)
	for i, a := range m.GetAdditionalAddresses() {
		p := config.Field("additional_addresses").Index(i)
		additionalFields.Check(p, a, errs)
		c.addAddress(p.Field("address"), a.GetAddress(), errs)
	}
}

func (c *Config) addAddress(p *config.Path, a *corev3.Address, errs *config.Errors) {
	switch x := a.GetAddress().(type) {
	case *corev3.Address_SocketAddress:
		sa := x.SocketAddress
		p = p.Field("socket_address")
		if sa.GetProtocol() != corev3.SocketAddress_TCP {
			errs.Add(p.Field("protocol"), "UDP is not supported")
		}
		ip, err := netip.ParseAddr(sa.GetAddress())
		if err != nil {
			errs.Addf(p.Field("address"), "malformed IP address: %s", sa.GetAddress())
			return
		}
		if sa.GetNamedPort() != "" {
			errs.Add(p.Field("named_port"), "is not supported")
		}
		ap := netip.AddrPortFrom(ip, uint16(sa.GetPortValue()))
		network := "tcp4"
		if ip.Is6() {
			network = "tcp6"
			if sa.GetIpv4Compat() {
				network = "tcp"
			}
		}
		c.Addresses = append(c.Addresses, Address{Network: network, Text: ap.String(), IP: ap})
	case *corev3.Address_Pipe:
		c.Addresses = append(c.Addresses, Address{
			Network: "unix", Text: x.Pipe.GetPath(), Mode: x.Pipe.GetMode(),
		})
	default:
		errs.Add(p, "must be a socket_address or a pipe")
	}
}

func (c *Config) compileFilters(m *listenerv3.Listener, env *Env, errs *config.Errors) {
	for i, lf := range m.GetListenerFilters() {
		p := config.Field("listener_filters").Index(i)
		listenerFilterFields.Check(p, lf, errs)
		name := string(config.TypeName(lf.GetTypedConfig()))
		e, ok := env.ListenerFilters[name]
		if !ok {
			errs.Addf(p.Field("typed_config"), "listener filter %q (%s) is not supported", lf.GetName(), name)
			continue
		}
		f, err := e.Compile(lf.GetTypedConfig(), env.Scope)
		errs.Wrap(p.Field("typed_config"), err)
		if err == nil {
			c.filters = append(c.filters, f)
		}
	}
}

func (c *Config) compileChains(m *listenerv3.Listener, env *Env, old *Config, drain *Draining, errs *config.Errors) {
	if len(m.GetFilterChains()) == 0 && m.GetDefaultFilterChain() == nil {
		errs.Addf(nil, "error adding listener '%s': no filter chains specified", c.addressText())
		return
	}
	seen := map[string]int{}
	for i, fc := range m.GetFilterChains() {
		p := config.Field("filter_chains").Index(i)
		match := chain.CompileMatch(p.Field("filter_chain_match"), fc.GetFilterChainMatch(), errs)
		if j, twice := seen[match.Key()]; twice {
			errs.Addf(p.Field("filter_chain_match"),
				"error adding listener '%s': filter chain '%s' has the same matching rules defined as filter_chains[%d]",
				c.addressText(), fc.GetName(), j)
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
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(fc)
	if err != nil {
		errs.Addf(p, "%w", err)
		return nil
	}
	digest := sha256.Sum256(b)
	if ch := old.chainLike(c.frame, digest); ch != nil {
		return ch
	}
	ch := &Chain{Name: fc.GetName(), digest: digest}
	ch.drain = &Draining{policy: drain.policy, parent: drain}
	if c.modifyOnly {
		ch.drain.parent = nil
	}
	fp := p.Field("filters")
	if len(fc.GetFilters()) == 0 {
		errs.Add(fp, "must not be empty")
		return nil
	}
	for i, f := range fc.GetFilters() {
		filterFields.Check(fp.Index(i), f, errs)
		made := c.compileNetwork(fp.Index(i), f, env, errs)
		term, ok := made.(filter.NetworkTerminal)
		switch {
		case made == nil:
		case i < len(fc.GetFilters())-1:
			errs.Addf(fp.Index(i), "Error: terminal filter named %s must be the last filter in a network filter chain.", f.GetName())
		case !ok:
			errs.Addf(fp.Index(i), "Error: non-terminal filter named %s is the last filter in a network filter chain.", f.GetName())
		default:
			ch.terminal = term
		}
	}
	return ch
}

func (c *Config) compileNetwork(p *config.Path, f *listenerv3.Filter, env *Env, errs *config.Errors) any {
	p = p.Field("typed_config")
	name := string(config.TypeName(f.GetTypedConfig()))
	e := env.Network[name]
	if e == nil {
		errs.Addf(p, "network filter %q (%s) is not supported", f.GetName(), name)
		return nil
	}
	opened, err := config.Open(f.GetTypedConfig())
	if err != nil {
		errs.Wrap(p, err)
		return nil
	}
	before := errs.Len()
	config.Validate(p, opened, errs)
	if errs.Len() > before {
		return nil
	}
	made, err := e.Compile(opened, filter.NetworkContext{
		Path: p.String(), Name: f.GetName(), Scope: env.Scope,
		ListenerScope: env.Scope.Sub("listener." + c.statName), Log: env.Log,
		BufferLimit: c.bufferLimit, Direction: c.Direction, ListenerName: c.Name,
	})
	errs.Wrap(p, err)
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

func (a Address) key() string { return a.Network + " " + a.Text + " " + strconv.Itoa(int(a.Mode)) }
