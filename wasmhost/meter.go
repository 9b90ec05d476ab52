package wasmhost

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sidecar/api/stats"
	"sidecar/wasmhost/abi"
)

// meter counts what a plugin's callbacks and host calls cost. Its stats are made when they are first
// written: a plugin uses few of them.
//
// Names, under "wasm.<plugin>." where Envoy has only vm_reload_*: callback_ns.<callback> (histogram),
// callback_failed.<callback>, host_call.<function> and no_effect.
type meter struct {
	scope *stats.Scope

	callbacks []atomic.Pointer[stats.Histogram]
	failed    []atomic.Pointer[stats.Counter]
	functions []atomic.Pointer[stats.Counter]
	noEffect  atomic.Pointer[stats.Counter]

	mu   sync.Mutex // guards below
	last failure
}

// names are those of stats, the callbacks' and functions' without "proxy_".
//
//nolint:gochecknoglobals // immutable table
var callbackStats, functionStats = statNames(abi.CallbackNames()), statNames(abi.FunctionNames())

func statNames(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strings.TrimPrefix(n, "proxy_")
	}
	return out
}

func newMeter(scope *stats.Scope) *meter {
	return &meter{
		scope:     scope,
		callbacks: make([]atomic.Pointer[stats.Histogram], len(callbackStats)),
		failed:    make([]atomic.Pointer[stats.Counter], len(callbackStats)),
		functions: make([]atomic.Pointer[stats.Counter], len(functionStats)),
	}
}

func (m *meter) measured(c *abi.Measure) {
	h := m.callbacks[c.Callback].Load()
	if h == nil {
		h = m.scope.Histogram("callback_ns."+callbackStats[c.Callback], stats.Unspecified)
		m.callbacks[c.Callback].Store(h)
	}
	h.Record(uint64(c.Took))
	c.EachHostCall(func(function, n int) {
		m.counter(&m.functions[function], "host_call.", functionStats[function]).Add(uint64(n))
	})
	if c.Err != nil {
		m.counter(&m.failed[c.Callback], "callback_failed.", callbackStats[c.Callback]).Inc()
		m.mu.Lock()
		m.last = failure{c.Err.Error(), time.Now()}
		m.mu.Unlock()
	}
}

// lastFailure is the text of the last callback that failed.
func (m *meter) lastFailure() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last.text
}

func (m *meter) counter(p *atomic.Pointer[stats.Counter], prefix, name string) *stats.Counter {
	c := p.Load()
	if c == nil {
		c = m.scope.Counter(prefix + name)
		p.Store(c)
	}
	return c
}
