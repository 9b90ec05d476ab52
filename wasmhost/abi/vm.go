package abi

import (
	"errors"
	"fmt"
	"time"

	"sidecar/wasmhost/internal/engine"
)

// Module is a plugin's code, linked: what VMs are made from. Safe for concurrent use.
type Module struct {
	Version Version
	pre     *engine.Pre
	malloc  callback
}

// ErrNoVersion is the error of a module without a marker of a known ABI version.
var ErrNoVersion = errors.New("missing or unknown Proxy-Wasm ABI version")

// Capabilities restricts which host functions and callbacks a plugin may use, by their names; nil
// allows all.
type Capabilities map[string]bool

func (c Capabilities) allows(name string) bool { return c == nil || c[name] }

// Link checks that m is a Proxy-Wasm module and links it. further are host functions besides the
// ABI's, such as WASI's.
func Link(m *engine.Module, allowed Capabilities, further ...engine.HostFunc) (*Module, error) {
	out := &Module{Version: version(m), malloc: cbMalloc}
	if out.Version == NoVersion {
		return nil, ErrNoVersion
	}
	host := functions(allowed)
	for _, f := range further {
		host = append(host, observed(f, len(hostFuncs)))
	}
	pre, err := m.Link(host, exports(allowed))
	if err != nil {
		return nil, err
	}
	out.pre = pre
	if !pre.Has(int(cbMalloc)) { // The specification has it the other way round; Envoy prefers malloc.
		out.malloc = cbMemoryAllocate
	}
	if !pre.Has(int(out.malloc)) {
		pre.Close()
		return nil, errors.New(`the module exports neither "malloc" nor "proxy_on_memory_allocate"`)
	}
	if err := out.checkShapes(); err != nil {
		pre.Close()
		return nil, err
	}
	return out, nil
}

// version is that of the first marker among the exports.
func version(m *engine.Module) Version {
	for _, e := range m.Exports {
		if e.Signature == "" {
			continue
		}
		switch e.Name {
		case "proxy_abi_version_0_1_0":
			return V010
		case "proxy_abi_version_0_2_0":
			return V020
		case "proxy_abi_version_0_2_1":
			return V021
		}
	}
	return NoVersion
}

// checkShapes refuses a headers callback of the other version's shape, as Envoy does.
func (m *Module) checkShapes() error {
	want := 3
	if m.Version == V010 {
		want = 2
	}
	for _, cb := range []callback{cbRequestHeaders, cbResponseHeaders} {
		if m.pre.Has(int(cb)) && m.pre.Params(int(cb)) != want {
			return fmt.Errorf("export %q: takes %d parameters, %d in the ABI version of the module",
				callbacks[cb].Name, m.pre.Params(int(cb)), want)
		}
	}
	return nil
}

// Close frees the module; VMs made from it keep running. Idempotent.
func (m *Module) Close() { m.pre.Close() }

// VM is one instance of a module with the state of its guest calls. One goroutine at a time uses it.
type VM struct {
	Host   Host
	module *Module
	in     *engine.Instance

	// Contexts by id; the owner adds and removes them.
	Contexts map[uint32]Context
	// VMConfig and PluginConfig are the configuration buffers; PluginConfig is set only while
	// on_configure runs.
	VMConfig, PluginConfig []byte

	// FailedIn is the context in whose callback a call failed first.
	FailedIn Context

	current   Context // whose callback runs
	effective Context // current, unless the guest switched
	call      CallResponse
	received  received
	callData  []byte
	metrics   metrics
	scratch   []byte
	warned    map[string]bool
	legacyCfg bool // 0.1.0 get_configuration gives the plugin's

	expressions expressions
	declared    map[string]Declared
	sharing     bool // the maps are a State's

	lastLeft time.Duration // when the last callback of this entry ended; 0: there was none
	meter    Meter         // nil if the Host is none
	observer Observer
	epoch    time.Time
	measure  Measure
	counts   [maxCounted]uint32
	touched  []uint8 // indices of counts that aren't 0
}

// NewVM makes an instance and runs its wasm start section, no export yet. It blocks until that ends.
func (m *Module) NewVM(h Host, l engine.Limits) (*VM, error) {
	v := &VM{Host: h, module: m, Contexts: map[uint32]Context{}, epoch: time.Now()}
	if meter, ok := h.(Meter); ok {
		v.meter, v.touched = meter, make([]uint8, 0, maxCounted)
	}
	in, err := m.pre.New(l, v)
	if err != nil {
		return nil, err
	}
	v.in = in
	return v, nil
}

// SetDeadline bounds each callback from now on; 0 is no bound.
func (v *VM) SetDeadline(d time.Duration) { v.in.SetDeadline(d) }

// Environ is what WASI shows as the environment.
func (v *VM) Environ() []string { return v.Host.Environ() }

// Output logs what the guest writes to its standard output or error, one line for each write.
func (v *VM) Output(stderr bool, text string) {
	level := LogInfo
	if stderr {
		level = LogError
	}
	if level >= v.Host.LogLevel() {
		v.Host.Log(level, clipLine([]byte(text)))
	}
}

// MemoryBytes is the size of the guest's memory.
func (v *VM) MemoryBytes() int { return len(v.in.Memory()) }

// Fault is the trap that ended the VM's useful life, or nil.
func (v *VM) Fault() error { return v.in.Fault() }

// Close frees the instance. Idempotent; not while a call runs.
func (v *VM) Close() { v.in.Close() }

// run calls cb in a context. The context is the effective one until the guest switches.
func (v *VM) run(cb callback, c Context, args ...uint64) (uint64, error) {
	oldCurrent, oldEffective := v.current, v.effective
	v.current, v.effective = c, c
	w := v.entering(cb, args)
	r, err := v.in.Call(int(cb), args...)
	v.left(w, cb, r, err)
	if err != nil {
		v.FailedIn = c
	}
	v.current, v.effective = oldCurrent, oldEffective
	return r, err
}

// warnOnce logs a line the first time that this VM has cause to.
func (v *VM) warnOnce(message string) {
	message = clip(message)
	if v.warned[message] {
		return
	}
	if v.warned == nil {
		v.warned = map[string]bool{}
	}
	if len(v.warned) < 64 {
		v.warned[message] = true
		v.Host.Log(LogError, message)
	}
}
