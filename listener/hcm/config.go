package hcm

import (
	"log/slog"
	"net/netip"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"sidecar/api/filter"
	"sidecar/api/header"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/buf"
	"sidecar/internal/config"
	"sidecar/internal/config/protocol"
	"sidecar/internal/wire"
	"sidecar/listener/route"
)

// Config is a compiled connection manager. It is immutable, apart from the objects it holds that
// swap by themselves: the route table of RDS, filters of ECDS.
type Config struct {
	statPrefix    string
	stats         *Stats
	listenerStats *ListenerStats
	bugs          *bugStats
	log0          *slog.Logger
	newCodec      NewCodec
	codecOptions  CodecOptions
	routes        Routes
	filters       []filterEntry
	terminal      filter.TerminalFactory
	upgrades      []upgrade
	accessLogs    []AccessLog
	localReply    *localReply
	clock         Clock
	random        func() uint64
	tracing       *tracing
	overload      Overload
	streams       *buf.Pool[Stream]
	xfcc          xfcc
	clusterName   func(name string) (string, bool)

	serverName      string
	serverTransform serverTransformation
	localAddress    string
	localCluster    string
	localNode       string
	via             string
	schemeOverwrite string
	internal        []netip.Prefix

	idleTimeout              time.Duration
	maxConnectionDuration    time.Duration
	drainTimeout             time.Duration
	maxStreamDuration        time.Duration
	streamIdleTimeout        time.Duration
	requestTimeout           time.Duration
	requestHeadersTimeout    time.Duration
	drainJitter              float64 // a share of drainTimeout
	maxRequestsPerConnection uint32
	bufferLimit              int
	xffTrustedHops           int
	escapedSlashes           escapedSlashes

	useRemoteAddress     bool
	skipXFFAppend        bool
	appendXForwardedPort bool
	addUserAgent         bool
	generateRequestID    bool
	preserveRequestID    bool
	requestIDInResponse  bool
	acceptHTTP10         bool
	proxy100Continue     bool
	schemeMatchUpstream  bool
	normalize            bool
	mergeSlashes         bool
	stripFragment        bool
	stripAnyPort         bool
	stripMatchingPort    bool
	stripTrailingDot     bool
}

type serverTransformation uint8

const (
	serverOverwrite serverTransformation = iota
	serverAppendIfAbsent
	serverPassThrough
)

// Routes is where the manager's route table comes from; the table is pinned by each stream.
type Routes interface {
	// Load returns the table in force; nil while RDS has brought none.
	Load() *route.Table
}

// AccessLog writes the line of a finished stream. Log must not block.
type AccessLog interface {
	Log(info *stream.Info)
}

// Overload is what the overload manager asks of connections.
type Overload interface {
	DisableKeepAlive() bool
}

// CodecOptions are what the connection manager asks of whatever codec serves a connection.
type CodecOptions struct {
	Type                CodecType
	HTTP2               protocol.HTTP2
	DefaultHost         string // of HTTP/1.0 requests without one
	MaxHeadersBytes     int
	MaxHeaders          int
	DelayedCloseTimeout time.Duration
	// StreamFlushTimeout bounds how long the end of a response waits for a client that takes nothing of
	// it; 0 is for ever. HTTP/2 alone reads it, as in Envoy.
	StreamFlushTimeout   time.Duration
	AllowAbsoluteURL     bool
	AcceptHTTP10         bool
	Proxy100Continue     bool
	EnableTrailers       bool
	AllowChunkedLength   bool
	AllowCustomMethods   bool
	PreserveCase         bool
	ProperCase           bool
	RejectUnderscores    bool
	DropUnderscores      bool
	StreamErrorOnInvalid bool
	Strict               bool
	DelayedCloseExpired  *stats.Counter
	// ProtocolError is counted when HTTP/2 ends a connection for what the client sent; of HTTP/1 the
	// manager counts what it is told to reject.
	ProtocolError *stats.Counter
	// IgnoreUpgrade, if not nil, tells the values of Upgrade that are taken out of requests.
	IgnoreUpgrade func(value string) bool
}

// CodecType is which codec serves a connection (HttpConnectionManager.CodecType).
type CodecType uint8

// The codec types. CodecAuto goes by ALPN, and else by the preface of HTTP/2.
const (
	CodecAuto CodecType = iota
	CodecHTTP1
	CodecHTTP2
)

// NewCodec makes the codec of a connection, of which info tells what was negotiated.
type NewCodec func(w *wire.Conn, h stream.ServerHandler, info *stream.ConnInfo) Codec

// Env is what a Compile may use: lookups and constructors of what lives outside this package.
type Env struct {
	Filters       *filter.Table
	Scope         *stats.Scope // the server's
	ListenerScope *stats.Scope // the listener's
	Log           *slog.Logger
	Codec         func(o *CodecOptions) NewCodec
	Clock         Clock
	Random        func() uint64
	Overload      Overload
	LocalAddress  string
	Cluster, Node string
	Direction     int32
	BufferLimit   int
	// Strict makes codecs refuse what RFC 9112 doesn't allow and Envoy takes.
	Strict bool
	// ClusterName returns what a cluster is called in logs; false if there is none of that name.
	ClusterName func(name string) (string, bool)

	// CompileRoutes compiles a route table; statPrefix is that of the manager.
	CompileRoutes func(rc *routev3.RouteConfiguration) (*route.Table, error)
	// DynamicRoutes returns the holder of an RDS table.
	DynamicRoutes func(name string, source *corev3.ConfigSource) (Routes, error)
	// DynamicFilter returns the holder of an ECDS filter: a filter.Factory.
	DynamicFilter func(name string, source *corev3.ExtensionConfigSource, c filter.Context) (any, error)
	// AccessLogs compiles access loggers.
	AccessLogs func(p *config.Path, logs []*accesslogv3.AccessLog, errs *config.Errors) []AccessLog
	// LogFilter compiles an access log filter, which local_reply_config uses as a condition.
	LogFilter func(p *config.Path, f *accesslogv3.AccessLogFilter, errs *config.Errors) func(*stream.Info) bool
	// Format compiles a body format.
	Format func(p *config.Path, f *corev3.SubstitutionFormatString, errs *config.Errors) Formatter
	// Mutations compiles header mutations.
	Mutations func(p *config.Path, add []*corev3.HeaderValueOption, errs *config.Errors) func(*header.Map, *stream.Info)
}

// Formatter renders a body.
type Formatter interface {
	Append(b []byte, info *stream.Info) []byte
	// ContentType is what the rendering is, "text/plain" or "application/json".
	ContentType() string
}

// filterEntry is one HTTP filter of the chain.
type filterEntry struct {
	Name     string
	factory  filter.Factory
	disabled bool
}

type upgrade struct {
	kind    string // lower-case
	enabled bool
	filters []filterEntry // nil: those of the manager
	own     bool
}

// isInternal tells whether an address is of the internal ranges. Without internal_address_config
// none is (Envoy 1.40: explicit_internal_address_config).
func (c *Config) isInternal(a netip.Addr) bool {
	for _, p := range c.internal {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (c *Config) log(s *Stream) {
	for _, l := range c.accessLogs {
		l.Log(&s.info)
	}
}

// filtersFor finds the filters of the request, since an upgrade may have its own; false refuses an
// upgrade that the configuration does not name.
func (s *Stream) filtersFor(h *header.Map) (isUpgraded, ok bool) {
	c := s.cfg
	s.chain = c.filters
	var kind string
	switch {
	case isUpgrade(h):
		kind = h.Value(header.Upgrade)
	case h.Value(header.Method) == "CONNECT":
		kind = "CONNECT"
	default:
		return false, true
	}
	enabled, known := false, false
	for i := range c.upgrades {
		u := &c.upgrades[i]
		if equalFold(u.kind, kind) {
			enabled, known = u.enabled, true
			if u.own {
				s.chain = u.filters
			}
			break
		}
	}
	if r := s.entryOf(); r != nil && r.Action != nil {
		if on, said := r.Action.Upgrade(kind); said {
			return on, on
		}
	}
	if !known && kind == "CONNECT" {
		return false, true // the router answers: no route matches CONNECT without a connect_matcher
	}
	return enabled, enabled
}

// disabled tells whether a filter is left out of the stream: the route, as it is before any filter
// ran, overrides the chain.
func (s *Stream) disabled(f *filterEntry) bool {
	if e := s.entryOf(); e != nil {
		if off, said := e.FilterDisabled(f.Name); said {
			return off
		}
	}
	return f.disabled
}

// makeFilters makes the stream's filters.
func (s *Stream) makeFilters() {
	n := len(s.chain) + 1
	if cap(s.slots) < n {
		s.slots = make([]slot, n)
	}
	s.slots = s.slots[:n]
	for i := range s.slots {
		s.slots[i].s, s.slots[i].index = s, i
	}
	for i := range s.chain {
		sl := &s.slots[i]
		sl.entry = &s.chain[i]
		if s.disabled(&s.chain[i]) {
			continue
		}
		sl.f = s.chain[i].factory.NewFilter(sl)
	}
	last := &s.slots[n-1]
	last.entry = nil
	s.terminal = s.cfg.terminal.NewTerminal(last)
}
