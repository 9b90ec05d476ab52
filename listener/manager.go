package listener

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"sidecar/api/filter"
	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/task"
)

// Limits are asked at each new connection.
type Limits interface {
	// MaxConnections is the most connections of the process; 0 is no limit.
	MaxConnections() int64
	// RejectConnections tells that memory or the overload manager allows no new ones.
	RejectConnections() bool
}

// Manager owns the listeners: it binds, warms, swaps and drains them.
type Manager struct {
	env    *Env
	drain  *Draining
	limits Limits
	stats  *ManagerStats
	ids    atomic.Uint64
	open   atomic.Int64
	index  atomic.Pointer[addressIndex]

	mu       sync.Mutex // guards below
	live     map[string]*generation
	warming  map[string]*warmup
	static   map[string]bool
	errors   map[string]string // the last refused version by name, for config_dump
	sockets  map[string]*socket
	started  bool
	stopping bool
	stops    []func(*Config) bool // what StopAccepting was called with

	wg    sync.WaitGroup // warm-ups, drains, accept loops and connections
	ended chan struct{}  // closed by Close: drains wait no longer
}

type warmup struct {
	gen    *generation
	cancel context.CancelFunc
}

// NewManager makes a manager without listeners. limits may be nil.
func NewManager(env *Env, drain *Draining, limits Limits) *Manager {
	return &Manager{
		env: env, drain: drain, limits: limits,
		stats: stats.Bind[ManagerStats](env.Scope.Sub("listener_manager")),
		live:  map[string]*generation{}, warming: map[string]*warmup{}, static: map[string]bool{},
		errors: map[string]string{}, sockets: map[string]*socket{}, ended: make(chan struct{}),
	}
}

// Outcome tells how an Apply went on. Each function is called once, from any goroutine, also from
// inside Apply.
type Outcome struct {
	// Started gets nil when the version compiled, is bound and its plugins have started, or what is
	// wrong with it; the version in force stays then.
	Started func(error)
	// Ready is called when the version is in force, or was given up.
	Ready func()
}

// Apply adds or updates one listener: it compiles, binds and begins to warm it.
func (m *Manager) Apply(l *listenerv3.Listener, version string, static bool, out Outcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.apply(l, version, static, out); err != nil {
		out.Started(err)
		out.Ready()
	}
}

func (m *Manager) apply(l *listenerv3.Listener, version string, static bool, out Outcome) error {
	old := m.live[l.GetName()]
	if m.static[l.GetName()] && !static {
		return fmt.Errorf("listener '%s' is static and cannot be updated", l.GetName())
	}
	raw, err := marshal(l)
	if err != nil {
		return err
	}
	if w := m.warming[l.GetName()]; w != nil && bytes.Equal(w.gen.cfg.Raw, raw) {
		out.Started(nil)
		out.Ready()
		return nil
	}
	var oldCfg *Config
	if old != nil {
		oldCfg = old.cfg
		if bytes.Equal(oldCfg.Raw, raw) {
			m.cancelWarming(l.GetName())
			delete(m.errors, l.GetName())
			old.version = version
			out.Started(nil)
			out.Ready()
			return nil
		}
	}
	cfg, err := Compile(l, m.env, oldCfg, m.drain)
	if err == nil {
		if err = m.duplicate(cfg); err != nil {
			cfg.discard()
		}
	}
	if err != nil {
		m.stats.CreateFailure.Inc()
		m.errors[l.GetName()] = err.Error()
		return err
	}
	delete(m.errors, cfg.Name)
	return m.begin(cfg, version, static, old, out)
}

// duplicate refuses an address that another listener has. The sockets of two would take connections
// from each other (SO_REUSEPORT).
func (m *Manager) duplicate(cfg *Config) error {
	taken := map[string]bool{}
	note := func(g *generation) {
		if g.cfg.Name == cfg.Name {
			return
		}
		for _, a := range g.cfg.Addresses {
			taken[a.Text] = true
		}
	}
	for _, g := range m.live {
		note(g)
	}
	for _, w := range m.warming {
		note(w.gen)
	}
	for _, a := range cfg.Addresses {
		if taken[a.Text] && (!a.IP.IsValid() || a.IP.Port() != 0) {
			return fmt.Errorf("error adding listener: '%s' has duplicate address '%s' as existing listener, "+
				"to check if the listener has duplicated addresses with other listeners or "+
				"'enable_reuse_port' is set to 'false' for the listener", cfg.Name, a.Text)
		}
	}
	return nil
}

func (m *Manager) begin(cfg *Config, version string, static bool, old *generation, out Outcome) error {
	g := &generation{cfg: cfg, m: m, version: version, updated: time.Now(), stats: stats.Bind[Stats](cfg.scope)}
	if err := m.bindAll(g); err != nil {
		cfg.discard()
		m.stats.CreateFailure.Inc()
		m.errors[cfg.Name] = err.Error()
		return err
	}
	m.static[cfg.Name] = static
	if old == nil && m.warming[cfg.Name] == nil {
		m.stats.Added.Inc()
	} else {
		m.stats.Modified.Inc()
	}
	m.cancelWarming(cfg.Name)
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // ended by the next version
	w := &warmup{gen: g, cancel: cancel}
	m.warming[cfg.Name] = w
	m.stats.Warming.Set(int64(len(m.warming)))
	if !m.needsWarming(g) {
		cancel()
		m.swap(g)
		out.Started(nil)
		out.Ready()
		return nil
	}
	m.wg.Add(1)
	task.Go("warm listener "+cfg.Name, func() {
		defer m.wg.Done()
		defer cancel()
		m.warm(ctx, w, out)
	}, func(p *task.Panic) {
		out.Started(p)
		out.Ready()
	})
	return nil
}

// warm starts what the chains of a new version need, waits for what they depend on, and puts the
// version in force, unless it was given up meanwhile.
func (m *Manager) warm(ctx context.Context, w *warmup, out Outcome) {
	g, name := w.gen, w.gen.cfg.Name
	err := g.start(ctx)
	out.Started(err)
	if err == nil {
		g.await(ctx)
	}
	m.mu.Lock()
	defer out.Ready()
	defer m.mu.Unlock()
	if m.warming[name] == w && err == nil {
		m.swap(g) //nolint:contextcheck // connections outlive the warming
		return
	}
	if m.warming[name] == w {
		delete(m.warming, name)
		m.stats.Warming.Set(int64(len(m.warming)))
		m.stats.CreateFailure.Inc()
		m.errors[name] = err.Error()
	}
	m.discard(g)
}

// discard lets go of a version that never was in force.
func (m *Manager) discard(g *generation) {
	m.unbind(g)
	g.cfg.discard()
}

// needsWarming tells whether a chain that is new has something to wait for.
func (m *Manager) needsWarming(g *generation) bool {
	for _, ch := range g.cfg.all() {
		for _, part := range ch.parts() {
			_, warms := part.(filter.Warmer)
			_, awaits := part.(filter.Awaiter)
			if (warms || awaits) && !ch.warmed.Load() {
				return true
			}
		}
	}
	return false
}

// start starts the plugins of the chains; an error rejects the version.
func (g *generation) start(ctx context.Context) error {
	var errs []error
	for _, ch := range g.cfg.all() {
		for _, part := range ch.parts() {
			if w, ok := part.(filter.Warmer); ok && !ch.warmed.Load() {
				errs = append(errs, w.Warm(ctx))
			}
		}
	}
	return errors.Join(errs...)
}

// await waits for what the chains depend on.
func (g *generation) await(ctx context.Context) {
	for _, ch := range g.cfg.all() {
		for _, part := range ch.parts() {
			if a, ok := part.(filter.Awaiter); ok && !ch.warmed.Load() {
				a.Await(ctx)
			}
		}
		ch.warmed.Store(true)
	}
}

func (m *Manager) cancelWarming(name string) {
	if w := m.warming[name]; w != nil {
		w.cancel()
		delete(m.warming, name)
		m.stats.Warming.Set(int64(len(m.warming)))
	}
}

// bindAll gets the sockets of a generation, those of the version before where the address is the
// same.
func (m *Manager) bindAll(g *generation) error {
	if !g.cfg.bind || m.stopping || m.stopped(g.cfg) {
		return nil
	}
	for _, a := range g.cfg.Addresses {
		s := m.sockets[socketKey(g.cfg.Name, a)]
		if s == nil {
			var err error
			if s, err = listen(a, g.cfg); err != nil {
				m.unbind(g)
				return err
			}
			m.sockets[socketKey(g.cfg.Name, a)] = s
		} else if err := s.chmod(a.Mode); err != nil {
			m.unbind(g)
			return err
		}
		s.uses++
		g.sockets = append(g.sockets, s)
	}
	return nil
}

func socketKey(name string, a Address) string { return name + "\x00" + a.key() }

func (m *Manager) unbind(g *generation) {
	for _, s := range g.sockets {
		if s.uses--; s.uses == 0 {
			s.close()
			delete(m.sockets, socketKey(g.cfg.Name, s.addr))
		}
	}
	g.sockets = nil
}

// swap makes g the live version of its listener and drains what it replaces.
func (m *Manager) swap(g *generation) {
	name := g.cfg.Name
	delete(m.warming, name)
	old := m.live[name]
	m.live[name] = g
	for _, s := range g.sockets {
		s.active.Store(g)
		if m.started && !s.began {
			s.began = true
			s.start(&m.wg)
		}
	}
	m.stats.CreateSuccess.Inc()
	m.stats.Warming.Set(int64(len(m.warming)))
	m.stats.Active.Set(int64(len(m.live)))
	m.index.Store(indexOf(m.live))
	if old != nil {
		if old.cfg.frame == g.cfg.frame {
			m.stats.InPlaceUpdated.Inc()
		}
		m.retire(old, g)
	}
}

// retire drains the chains of old that g does not share and lets go of its sockets.
func (m *Manager) retire(old, g *generation) {
	keep := map[*Chain]bool{}
	if g != nil {
		for _, ch := range g.cfg.all() {
			keep[ch] = true
		}
	}
	for _, ch := range old.cfg.all() {
		if !keep[ch] {
			old.drain = append(old.drain, ch)
		}
	}
	m.unbind(old)
	m.drainChains(old)
}

// drainChains has chains that no new connection can reach end their connections over the drain time.
func (m *Manager) drainChains(old *generation) {
	whole := len(old.drain) == len(old.cfg.all())
	if whole {
		m.stats.Draining.Inc()
	}
	m.stats.ChainsDraining.Add(int64(len(old.drain)))
	for _, ch := range old.drain {
		ch.drain.Begin()
	}
	end := func() {
		for _, ch := range old.drain {
			ch.end()
		}
		m.stats.ChainsDraining.Add(-int64(len(old.drain)))
		if whole {
			m.stats.Draining.Dec()
		}
		old.cfg.close()
	}
	m.wg.Add(1)
	task.Go("drain listener "+old.cfg.Name, func() {
		defer m.wg.Done()
		m.waitDrained(old.drain)
		end()
	}, nil)
}

// waitDrained returns when no connection is left, the drain time is over, or the manager is closed.
func (m *Manager) waitDrained(list []*Chain) {
	deadline := time.NewTimer(m.drain.policy.Time)
	defer deadline.Stop()
	for {
		open := firstOpen(list)
		if open == nil {
			return
		}
		select {
		case <-open:
		case <-deadline.C:
			return
		case <-m.ended:
			return
		}
	}
}

// firstOpen returns what ends with the connections of the first chain that has any; nil if none has.
func firstOpen(list []*Chain) <-chan struct{} {
	for _, ch := range list {
		if c := ch.conns.ended(); c != nil {
			return c
		}
	}
	return nil
}

// Remove takes a listener away: it accepts no more and its connections drain.
func (m *Manager) Remove(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.errors, name)
	if w := m.warming[name]; w != nil {
		w.cancel()
		delete(m.warming, name)
		m.stats.Warming.Set(int64(len(m.warming)))
	}
	g := m.live[name]
	if g == nil {
		return
	}
	delete(m.live, name)
	delete(m.static, name)
	m.stats.Removed.Inc()
	m.stats.Active.Set(int64(len(m.live)))
	m.index.Store(indexOf(m.live))
	m.retire(g, nil)
}

// Start begins to accept on every listener that is ready, and on later ones as they become so.
func (m *Manager) Start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.started = true
	m.stats.WorkersStarted.Set(1)
	for _, s := range m.sockets {
		if s.active.Load() != nil && !s.began {
			s.began = true
			s.start(&m.wg)
		}
	}
}

// StopAccepting closes the sockets of the listeners that match; their connections go on.
func (m *Manager) StopAccepting(match func(*Config) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stops = append(m.stops, match)
	for _, g := range m.live {
		if match != nil && !match(g.cfg) {
			continue
		}
		if len(g.sockets) > 0 {
			m.stats.Stopped.Inc()
		}
		m.unbind(g)
	}
}

// stopped tells whether a listener is among those that accept no more.
func (m *Manager) stopped(c *Config) bool {
	return slices.ContainsFunc(m.stops, func(match func(*Config) bool) bool { return match == nil || match(c) })
}

// BeginDrain asks the connections of the listeners that match to end, as they do when the process
// drains; the listeners go on to accept.
func (m *Manager) BeginDrain(match func(*Config) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.live {
		if !match(g.cfg) {
			continue
		}
		for _, ch := range g.cfg.all() {
			ch.drain.Begin()
		}
	}
}

// Close ends everything at once and waits until connections, drains and warm-ups have ended.
func (m *Manager) Close() {
	m.mu.Lock()
	if m.stopping {
		m.mu.Unlock()
		return
	}
	m.stopping = true
	close(m.ended)
	for name := range m.warming {
		m.cancelWarming(name)
	}
	var chains []*Chain
	for _, g := range m.live {
		m.unbind(g)
		chains = append(chains, g.cfg.all()...)
	}
	m.mu.Unlock()
	for _, ch := range chains {
		ch.end()
	}
	m.wg.Wait()
}

// Connections returns how many downstream connections are open.
func (m *Manager) Connections() int64 { return m.open.Load() }

// Status is what the admin pages show of a listener.
type Status struct {
	Name      string
	Static    bool
	Version   string
	Addresses []Address
	Bound     []stream.Addr // with the ports that the system chose; none if not bound
	Raw       []byte
	Updated   time.Time
	Warming   bool
	Err       string
}

// Local returns the addresses that the listener listens at, or would if it were bound.
func (s *Status) Local() []stream.Addr {
	if len(s.Bound) > 0 {
		return s.Bound
	}
	var out []stream.Addr
	for _, a := range s.Addresses {
		if a.IP.IsValid() {
			out = append(out, stream.IPAddr(a.IP))
		} else {
			out = append(out, stream.PipeAddr(a.Text))
		}
	}
	return out
}

// Snapshot lists the listeners by name.
func (m *Manager) Snapshot() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Status
	add := func(g *generation, warming bool) {
		s := Status{
			Name: g.cfg.Name, Static: m.static[g.cfg.Name], Version: g.version, Addresses: g.cfg.Addresses,
			Raw: g.cfg.Raw, Updated: g.updated, Warming: warming, Err: m.errors[g.cfg.Name],
		}
		for _, k := range g.sockets {
			s.Bound = append(s.Bound, addrOf(k.ln.Addr()))
		}
		out = append(out, s)
	}
	for _, g := range m.live {
		add(g, false)
	}
	for _, w := range m.warming {
		add(w.gen, true)
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}
