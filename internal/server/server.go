package server

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/cluster"
	"sidecar/internal/admin"
	"sidecar/internal/config"
	"sidecar/internal/config/source"
	"sidecar/internal/format"
	"sidecar/internal/tlsctx"
	"sidecar/internal/uuid"
	"sidecar/listener"
	"sidecar/listener/accesslog"
	"sidecar/wasmhost"
	"sidecar/xds"
	"sidecar/xds/bootstrap"
	"sidecar/xds/warm"
)

// State is how far the process is, as /ready and server.state say.
type State int32

// The states, by Envoy's numbers.
const (
	Live State = iota
	DrainingState
	PreInitializing
	Initializing
)

// String returns the name that /ready shows.
func (s State) String() string {
	return [...]string{"LIVE", "DRAINING", "PRE_INITIALIZING", "INITIALIZING"}[s]
}

// Server is the process: all parts and how they are connected.
type Server struct {
	// Set by start, never changed.
	opts         *Options
	boot         *bootstrap.Bootstrap
	log          *slog.Logger
	store        *stats.Store
	scope        *stats.Scope
	stats        *serverStats
	node         *corev3.Node // as management servers see it
	started      time.Time
	clock        clock
	sinks        *accesslog.Sinks
	formats      format.Options
	xds          *xds.Client
	clusters     *cluster.Manager
	listeners    *listener.Manager
	wasm         *wasmhost.Host
	places       places
	filters      *filter.Table
	routes       *routeTables
	extensions   *extensions
	secrets      *secrets
	draining     *listener.Draining
	limits       *limits
	init         *warm.Group
	admin        *admin.Server // nil without one
	localAddress string
	// staticClusters and staticListeners are the names in the bootstrap.
	staticClusters, staticListeners map[string]bool

	state      atomic.Int32
	ldsVersion atomic.Pointer[string]
	drained    atomic.Bool   // a drain was asked for
	changed    chan struct{} // holds one token after configuration has been taken in
	shutdown   chan struct{}
	endOnce    sync.Once
	wg         sync.WaitGroup // goroutines of this package that outlive a call

	subs []source.Subscription // only touched while starting, and ending after that
}

// Run starts the process and runs it until it is told to stop. With --mode validate it only checks
// the configuration. The error joins all that is wrong, each with its place.
func Run(ctx context.Context, opts *Options) error {
	setRuntime(opts.Concurrency)
	s := &Server{
		opts: opts, log: opts.Logs.Component("main"), started: time.Now(),
		shutdown: make(chan struct{}), changed: make(chan struct{}, 1),
		staticClusters: map[string]bool{}, staticListeners: map[string]bool{},
	}
	s.setState(PreInitializing)
	in := bootstrap.Input{
		Path: opts.ConfigPath, YAML: opts.ConfigYAML, Unknown: opts.StaticUnknown,
		ServiceNode: opts.ServiceNode, ServiceCluster: opts.ServiceCluster, ServiceZone: opts.ServiceZone,
		LogFormatSet: opts.LogFormatSet,
	}
	boot, warnings, err := bootstrap.Load(in)
	for _, w := range warnings {
		s.log.Warn(w.Error())
	}
	var errs config.Errors
	errs.Wrap(nil, err)
	s.boot = boot
	if boot.LogFormat != "" {
		opts.Logs.SetFormat(boot.LogFormat)
	}
	if err := s.assemble(&errs); err != nil {
		return err
	}
	defer s.close()
	s.compileStatic(&errs)
	if err := in.Locate(errs.Err()); err != nil {
		return err
	}
	if opts.Mode == Validate {
		return nil
	}
	return s.run(ctx)
}

// assemble makes every part; nothing runs yet. errs gets what is wrong with the bootstrap.
func (s *Server) assemble(errs *config.Errors) error {
	bind := cluster.CompileBind(config.Field("cluster_manager.upstream_bind_config"), s.boot.UpstreamBind, errs)
	s.store = stats.New()
	s.scope = s.store.Root()
	s.stats = stats.Bind[serverStats](s.scope.Sub("server"))
	s.setStats()
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	s.formats = format.Options{Hostname: host, Getenv: os.LookupEnv}
	s.sinks = accesslog.NewSinks(accesslog.SinkOptions{
		FlushInterval: s.opts.FileFlushInterval, FlushMinBytes: s.opts.FileFlushMinBytes, Store: s.store,
		Log: s.opts.Logs.Component("main"), Dry: s.opts.Mode == Validate,
	})
	s.localAddress = localAddress(s.opts.LocalAddressV6)
	s.init = warm.New("server")
	s.node = xds.Node(s.boot.Node, nil) // its extensions follow below
	s.xds = xds.New(xds.Config{
		Node: s.node, ADS: s.boot.ADS, Dialer: clusterDialer{s}, Stats: s.scope,
		Log:                 s.opts.Logs.Component("config"),
		RejectUnknownFields: s.opts.DynamicUnknown == config.RejectUnknown,
		UnknownField:        &s.stats.DynamicUnknown,
	})
	s.secrets = &secrets{s: s, env: &tlsctx.SecretEnv{Log: s.opts.Logs.Component("config")}}
	s.clusters = cluster.NewManager(cluster.Options{
		Ctx: context.Background(), Scope: s.scope, Log: s.opts.Logs.Component("upstream"),
		Concurrency: s.opts.Concurrency, NewCodec: newClientCodec, NewHTTP2: newHTTP2Client, Random: rand.Uint64, Subscriber: s.xds,
		Bind: bind, Network: s.networkFilters(), Transports: s.transports(), Runtime: s.runtimeNumber,
		RuntimeDouble: s.runtimeDouble,
	})
	s.wasm, err = wasmhost.NewHost(s.wasmOptions())
	if err != nil {
		return fmt.Errorf("wasm: %w", err)
	}
	s.filters = s.httpFilters()
	s.node.Extensions = s.builtins()
	s.routes = &routeTables{s: s}
	s.extensions = &extensions{s: s}
	s.draining = listener.NewDraining(listener.DrainPolicy{
		Time: s.opts.DrainTime, Immediate: s.opts.DrainStrategy == Immediate,
	})
	s.limits = newLimits(s.boot.Overload, s.scope)
	s.listeners = listener.NewManager(s.listenerEnv(), s.draining, s.limits)
	s.store.BeforeRead(s.refreshStats)
	return nil
}

// compileStatic compiles the static resources; with --mode validate they are dropped again.
func (s *Server) compileStatic(errs *config.Errors) {
	s.secrets.compileStatic(s.boot.Secrets, errs)
	s.compilePlaces(errs)
	for i, c := range s.boot.Clusters {
		conf, err := cluster.Compile(c, s.clusters.Env())
		errs.Wrap(bootstrap.ClusterPath(i), err)
		if s.staticClusters[c.GetName()] {
			errs.Addf(bootstrap.ClusterPath(i).Field("name"), "cluster manager: duplicate cluster '%s'", c.GetName())
		}
		s.staticClusters[c.GetName()] = true
		if err == nil && s.opts.Mode != Validate {
			s.clusters.Apply(conf, false, "")
		}
	}
	env := s.listenerEnv()
	for i, l := range s.boot.Listeners {
		if l.GetName() == "" {
			// As in Envoy, which gives it a UUID, so that unnamed listeners do not replace one another.
			l.Name = string(uuid.Append(nil, fastRandom(), fastRandom()))
		}
		s.staticListeners[l.GetName()] = true
		_, err := listener.Compile(l, env, nil, s.draining)
		errs.Wrap(bootstrap.ListenerPath(i), err)
	}
}

// setRuntime gives the Go runtime the processors and the memory behaviour that the data path wants:
// fewer collections than the default, with the cgroup's limit as the guard.
func setRuntime(concurrency int) {
	runtime.GOMAXPROCS(concurrency)
	setMemory()
}

// localAddress is the machine's address, which x-forwarded-for shows for loopback peers (Envoy:
// Utility::getLocalAddress: the first address that is not a loopback one).
func localAddress(v6 bool) string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "127.0.0.1"
	}
	for _, a := range addrs {
		ip, ok := a.(*net.IPNet)
		if !ok || ip.IP.IsLoopback() || ip.IP.IsLinkLocalUnicast() {
			continue
		}
		if (ip.IP.To4() == nil) == v6 {
			return ip.IP.String()
		}
	}
	if v6 {
		return "::1"
	}
	return "127.0.0.1"
}
