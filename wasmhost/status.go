package wasmhost

import (
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sidecar/api/stats"
)

// Status is what there is to see of one plugin, for operators. JSON names are part of the admin API.
type Status struct {
	Name    string `json:"name"`
	RootID  string `json:"root_id,omitempty"`
	VMID    string `json:"vm_id,omitempty"`
	Runtime string `json:"runtime"`
	// Filter is the name of the filter whose configuration it is; empty for a plugin of another kind.
	Filter string `json:"filter,omitempty"`
	Policy string `json:"failure_policy"`
	// Source is where the code comes from, Code its SHA-256; empty while it isn't there.
	Source string `json:"source"`
	Code   string `json:"code_sha256,omitempty"`
	ABI    string `json:"abi_version,omitempty"`
	State  State  `json:"state"`
	// Started is when it was put in force: its last swap.
	Started *time.Time `json:"started,omitempty"`
	// Remark says more of the state, such as how a trial of it goes.
	Remark    string           `json:"remark,omitempty"`
	LastError string           `json:"last_error,omitempty"`
	ErrorTime *time.Time       `json:"last_error_time,omitempty"`
	Streams   int              `json:"streams"`
	VMs       []VMStatus       `json:"vms"`
	Callbacks []CallbackStatus `json:"callbacks,omitempty"`
	// Functions are the calls of the host by the function's name.
	Functions map[string]uint64 `json:"host_calls,omitempty"`
	// NoEffect counts calls that said OK and changed nothing.
	NoEffect uint64 `json:"calls_without_effect"`
}

// State is how far a plugin is.
type State string

// The states.
const (
	StateFetching State = "fetching" // its code is not there yet, or can't be had: see LastError
	StateRefused  State = "refused"  // its code is there, and doesn't start
	StateServing  State = "serving"
	StateFailed   State = "failed"   // it trapped: streams get what the failure policy says
	StateDraining State = "draining" // it was replaced, and has streams left
)

// VMStatus is one VM.
type VMStatus struct {
	MemoryBytes int64 `json:"memory_bytes"`
	Streams     int   `json:"streams"`
	Waiting     int   `json:"waiting"`
	CallOuts    int   `json:"call_outs"`
}

// CallbackStatus is what a callback has cost so far. Times are of the guest with its host calls.
type CallbackStatus struct {
	Name   string        `json:"name"`
	Count  uint64        `json:"count"`
	Failed uint64        `json:"failed"`
	Mean   time.Duration `json:"mean_ns"`
	P50    time.Duration `json:"p50_ns"`
	P99    time.Duration `json:"p99_ns"`
	Max    time.Duration `json:"max_ns"`
}

// registry knows the plugins of a host. The zero value is empty.
type registry struct {
	mu       sync.Mutex // guards below
	plugins  map[*Plugin]time.Time
	awaited  map[*Running]struct{} // have no plugin yet
	failures map[*Running]failure
}

// failure is what went wrong last.
type failure struct {
	text string
	at   time.Time
}

func (g *registry) add(p *Plugin) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.plugins == nil {
		g.plugins = map[*Plugin]time.Time{}
	}
	g.plugins[p] = time.Now()
}

func (g *registry) remove(p *Plugin) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.plugins, p)
}

// await notes a plugin that is to come; arrived ends that.
func (g *registry) await(r *Running) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.awaited == nil {
		g.awaited, g.failures = map[*Running]struct{}{}, map[*Running]failure{}
	}
	g.awaited[r] = struct{}{}
}

func (g *registry) arrived(r *Running) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.awaited, r)
	delete(g.failures, r)
}

// failed notes why a plugin has not come yet.
func (g *registry) failed(r *Running, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.awaited[r]; ok {
		g.failures[r] = failure{err.Error(), time.Now()}
	}
}

// Status lists the plugins by name, the youngest of a name first.
func (h *Host) Status() []Status {
	h.registry.mu.Lock()
	var out []Status
	for r := range h.registry.awaited {
		s := r.config.status()
		s.Filter, s.State = r.name, StateFetching
		select {
		case <-r.ended:
			s.State = StateRefused
		default:
		}
		s.fail(h.registry.failures[r])
		out = append(out, s)
	}
	plugins := maps.Clone(h.registry.plugins)
	h.registry.mu.Unlock()
	for p, at := range plugins {
		s := p.statusNow()
		s.Started = &at
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Status) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return b.age().Compare(a.age())
	})
	return out
}

func (s *Status) age() time.Time {
	if s.Started == nil {
		return time.Time{}
	}
	return *s.Started
}

func (s *Status) fail(f failure) {
	if f.text != "" {
		s.LastError, s.ErrorTime = f.text, &f.at
	}
}

func (c *Config) status() Status {
	return Status{
		Name: c.Name, RootID: c.RootID, VMID: c.VMID, Runtime: c.Runtime, Source: c.source(),
		Policy: c.Policy.String(), VMs: []VMStatus{},
	}
}

// String is the policy's name in the configuration.
func (p Policy) String() string {
	return [...]string{"FAIL_CLOSED", "FAIL_OPEN", "FAIL_RELOAD", "fail_open"}[p]
}

func (p *Plugin) statusNow() Status {
	s := p.config.status()
	s.Code, s.ABI = hex.EncodeToString(p.digest[:]), p.module.Version.String()
	if p.owner != nil {
		s.Filter = p.owner.name
	}
	if text := p.status.Load(); text != nil {
		s.Remark = *text
	}
	p.mu.Lock()
	vms := slices.Clone(p.vms)
	switch {
	case p.closing:
		s.State = StateDraining
	case p.broken || len(p.vms) == 0:
		s.State = StateFailed
	default:
		s.State = StateServing
	}
	p.mu.Unlock()
	for _, v := range vms {
		v.mu.Lock()
		one := VMStatus{
			MemoryBytes: v.memory.Load(), Streams: len(v.streams), Waiting: len(v.queue), CallOuts: len(v.calls),
		}
		v.mu.Unlock()
		s.VMs = append(s.VMs, one)
	}
	// Each stream holds the plugin, and so does its owner until it closes it.
	s.Streams = int(p.refs.Load())
	if s.State != StateDraining {
		s.Streams--
	}
	p.meter.fill(&s)
	return s
}

// fill adds what was counted.
func (m *meter) fill(s *Status) {
	for i := range m.callbacks {
		h := m.callbacks[i].Load()
		if h == nil {
			continue
		}
		c := CallbackStatus{Name: callbackStats[i]}
		shot := h.Cumulative()
		if c.Count = shot.Count(); c.Count == 0 {
			continue
		}
		c.Mean = time.Duration(shot.Sum(stats.Unspecified) / float64(c.Count))
		for q, to := range map[float64]*time.Duration{0.5: &c.P50, 0.99: &c.P99, 1: &c.Max} {
			v, _ := shot.Quantile(q, stats.Unspecified)
			*to = time.Duration(v)
		}
		if f := m.failed[i].Load(); f != nil {
			c.Failed = f.Value()
		}
		s.Callbacks = append(s.Callbacks, c)
	}
	for i := range m.functions {
		if f := m.functions[i].Load(); f != nil {
			if s.Functions == nil {
				s.Functions = map[string]uint64{}
			}
			s.Functions[functionStats[i]] = f.Value()
		}
	}
	if n := m.noEffect.Load(); n != nil {
		s.NoEffect = n.Value()
	}
	m.mu.Lock()
	s.fail(m.last)
	m.mu.Unlock()
}
