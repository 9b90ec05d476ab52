package wasmhost

import (
	"context"
	"time"

	"sidecar/wasmhost/abi"
)

// Observer implements abi.Meter: the host's own, or the log's while it takes lines of level trace.
func (v *VM) Observer() abi.Observer {
	o := &v.plugin.host.opts
	if o.Observer != nil {
		return o.Observer
	}
	if o.Log.Enabled(context.Background(), levelTrace) { //nolint:forbidigo // guests have none
		return tracer{v}
	}
	return nil
}

// Measured implements abi.Meter.
func (v *VM) Measured(m *abi.Measure) { v.plugin.meter.measured(m) }

// maxRemarks bounds what a VM is told of its own mistakes.
const maxRemarks = 64

// NoEffect implements abi.Meter, and is for placements too: it counts, and warns the first time. The
// VM's owner calls it.
func (v *VM) NoEffect(call, why string) {
	m := v.plugin.meter
	m.counter(&m.noEffect, "", "no_effect").Inc()
	text := call + " has no effect: " + why
	if v.remarks[text] || len(v.remarks) >= maxRemarks {
		return
	}
	if v.remarks == nil {
		v.remarks = map[string]bool{}
	}
	v.remarks[text] = true
	v.warn(text)
}

// tracer writes what a guest does to the log.
type tracer struct{ vm *VM }

func (t tracer) write(text string, attrs ...any) {
	c := t.vm.plugin.config
	attrs = append(attrs, "plugin", c.Name, "root_id", c.RootID)
	t.vm.plugin.host.opts.Log.Log(context.Background(), levelTrace, text, attrs...) //nolint:forbidigo // guests have none
}

// Entering implements abi.Observer.
func (t tracer) Entering(callback string) { t.write("wasm: -> " + callback) }

// Left implements abi.Observer.
func (t tracer) Left(callback, result string, took time.Duration, err error) {
	switch {
	case err != nil:
		t.write("wasm: <- "+callback, "took", took, "error", err)
	case result != "":
		t.write("wasm: <- "+callback+" = "+result, "took", took)
	default:
		t.write("wasm: <- "+callback, "took", took)
	}
}

// Called implements abi.Observer.
func (t tracer) Called(c abi.HostCall) {
	text := "wasm:    " + c.Name + "(" + c.Args + ")"
	if c.Status != "" {
		text += " = " + c.Status
	}
	if c.Results != "" {
		text += " " + c.Results
	}
	if c.Err != nil {
		t.write(text, "error", c.Err)
		return
	}
	t.write(text)
}
