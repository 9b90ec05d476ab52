package abi

import (
	"maps"
	"slices"

	"sidecar/wasmhost/internal/engine"
)

// State is what the host keeps of a guest: the metrics, expressions and properties that it has defined.
type State struct {
	metrics     metrics
	expressions expressions
	declared    map[string]Declared
}

// State of the VM, for SetState. What the VM defines from now on is not in it.
func (v *VM) State() State {
	s := State{v.metrics, v.expressions, maps.Clone(v.declared)}
	s.expressions.programs = maps.Clone(v.expressions.programs)
	s.metrics.clip()
	return s
}

// SetState takes the VM back to a state. The maps are shared until the guest defines something.
func (v *VM) SetState(s State) {
	v.metrics, v.expressions, v.declared = s.metrics, s.expressions, s.declared
	v.sharing = true
}

// own makes the maps of a state the VM's own, before it changes them.
func (v *VM) own() {
	if v.sharing {
		v.sharing = false
		v.expressions.programs, v.declared = maps.Clone(v.expressions.programs), maps.Clone(v.declared)
	}
}

// clip has the next append copy: states share their beginnings.
func (m *metrics) clip() {
	m.counters, m.gauges, m.histograms = slices.Clip(m.counters), slices.Clip(m.gauges), slices.Clip(m.histograms)
}

// Snapshot takes one of the guest, which must be of an instrumented module and not run.
func (v *VM) Snapshot() (*engine.Snapshot, error) { return v.in.Snapshot() }

// Adopt makes the guest what the snapshot is of.
func (v *VM) Adopt(s *engine.Snapshot) error { return v.in.Adopt(s) }

// Restore takes the guest back to the snapshot that it adopted last.
func (v *VM) Restore(s *engine.Snapshot) error { return v.in.Restore(s) }

// Differs tells whether the guest has changed since.
func (v *VM) Differs(s *engine.Snapshot) bool { return v.in.Differs(s) }
