package abi

import (
	"time"

	"sidecar/wasmhost/internal/engine"
)

// Observer is shown all that passes between a guest and its host, as text: for tools and for the trace
// log. It is called on the goroutine that runs the guest and must not call back.
type Observer interface {
	// Entering: a callback begins. What is written is its call, with the arguments by name.
	Entering(callback string)
	// Left: it has ended with a result, which is empty where it has none, or with a trap.
	Left(callback, result string, took time.Duration, err error)
	// Called: the guest has called the host.
	Called(c HostCall)
}

// HostCall is a host function that has run.
type HostCall struct {
	// Name of the function, Args its arguments as the guest gave them.
	Name, Args string
	// Status is the name of the status or error number that it returned; empty if it returns none.
	Status string
	// Results is what it handed out, for a status of OK.
	Results string
	// Err is set if it trapped the guest.
	Err error
}

// Meter is implemented by a Host that wants to know what callbacks cost. Called by who runs the guest.
type Meter interface {
	// Observer is asked for before each callback; nil is none.
	Observer() Observer
	// Measured is told of each callback after it.
	Measured(m *Measure)
	// NoEffect is told of a call that answers OK, as Envoy's does, and changes nothing.
	NoEffect(call, why string)
}

// Measure is one callback.
type Measure struct {
	// Callback is an index of CallbackNames.
	Callback int
	Took     time.Duration
	Err      error

	vm *VM
}

// EachHostCall gives the functions that the guest has called since the last time, as indices of
// FunctionNames, with how often.
func (m *Measure) EachHostCall(yield func(function, count int)) {
	for _, i := range m.vm.touched {
		yield(int(i), int(m.vm.counts[i]))
		m.vm.counts[i] = 0
	}
	m.vm.touched = m.vm.touched[:0]
}

// noEffect notes a call that its caller will take for a success.
func (v *VM) noEffect(call, why string) {
	if v.meter != nil {
		v.meter.NoEffect(call, why)
	}
}

// CallbackNames are the exports that the host calls, by their index.
func CallbackNames() []string {
	out := make([]string, numCallbacks)
	for i := range callbacks {
		out[i] = callbacks[i].Name
	}
	return out
}

// FunctionNames are the functions of the ABI by their index; the last stands for all others (WASI).
func FunctionNames() []string {
	out := make([]string, 0, len(hostFuncs)+1)
	for _, f := range hostFuncs {
		out = append(out, f.name)
	}
	return append(out, "wasi")
}

// maxCounted bounds the indices of functions that are counted.
const maxCounted = 96

// count notes a call of function i.
func (v *VM) count(i int) {
	i = min(i, maxCounted-1)
	if v.counts[i]++; v.counts[i] == 1 {
		v.touched = append(v.touched, uint8(i))
	}
}

// watch is the state of a callback that is measured.
type watch struct {
	start    time.Duration
	observer Observer
	text     string
}

// entering begins to measure a callback; it asks for an observer again each time, as the level of a log
// changes while the process runs.
func (v *VM) entering(cb callback, args []uint64) watch {
	if v.meter == nil {
		return watch{}
	}
	w := watch{observer: v.observer}
	v.observer = v.meter.Observer()
	if v.observer != nil {
		w.text = describeCallback(cb, args)
		v.observer.Entering(w.text)
	}
	// Between two callbacks of one entry there is no more than a look at what is next: the clock isn't
	// asked twice.
	if w.start = v.lastLeft; w.start == 0 {
		w.start = time.Since(v.epoch)
	}
	return w
}

// Idle says that the VM was left: what comes next is later.
func (v *VM) Idle() { v.lastLeft = 0 }

func (v *VM) left(w watch, cb callback, result uint64, err error) {
	if v.meter == nil {
		return
	}
	v.lastLeft = time.Since(v.epoch)
	took := v.lastLeft - w.start
	if v.observer != nil {
		v.observer.Left(w.text, describeResult(cb, v, result), took, err)
	}
	v.observer = w.observer
	v.measure = Measure{Callback: int(cb), Took: took, Err: err, vm: v}
	v.meter.Measured(&v.measure)
}

// observed wraps a host function so that it is counted, as function i, and shown to the observer.
func observed(f engine.HostFunc, i int) engine.HostFunc {
	run := f.Call
	status := statusName
	if f.Module != "env" {
		status = errnoName
	}
	f.Call = func(in *engine.Instance, a engine.Args) (uint64, error) {
		v, ok := in.Data.(*VM)
		if !ok || v.meter == nil {
			return run(in, a)
		}
		v.count(i)
		if v.observer == nil {
			return run(in, a)
		}
		c := describeCall(in, f, a)
		r, err := run(in, a)
		c.Err = err
		if hasResult(f.Signature) {
			c.Status = status(r)
		}
		if err == nil && r == uint64(OK) {
			c.Results = describeResults(in, f, a)
		}
		v.observer.Called(c)
		return r, err
	}
	return f
}

func hasResult(s engine.Signature) bool { return s[len(s)-1] != ':' }
