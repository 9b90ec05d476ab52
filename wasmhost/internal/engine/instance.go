package engine

/*
#include "shim.h"
*/
import "C"

import (
	"errors"
	"runtime"
	"time"
	"unsafe"
)

// MaxArgs bounds the parameters of functions that the host calls.
const MaxArgs = C.SC_MAX_ARGS

// Limits of one instance.
type Limits struct {
	// MemoryBytes bounds the linear memory: a module that starts above it doesn't start, growing
	// beyond it fails in the guest. 0 is no limit but the 4 GiB of the format.
	MemoryBytes int64
	// TableElements bounds each table. 0 means 1 Mi elements.
	TableElements int64
	// Deadline of the start section, and of calls until SetDeadline. 0 is none.
	Deadline time.Duration
}

const defaultTableElements = 1 << 20

// ErrClosed is the answer of a closed instance.
var ErrClosed = errors.New("instance: closed")

// Instance is a store with one instance of a module. One goroutine at a time may use it.
type Instance struct {
	// Data is the owner's: host functions find their state there. Set before the first call.
	Data any

	c       *C.sc_instance
	globals bool // were found
	pre     *Pre
	pin     runtime.Pinner
	hostErr error // Why the last host call trapped; taken by the guest call that it ends.
	fault   error // Set by the first failed call: the guest's state is not to be trusted again.
}

// New makes an instance and runs its start section, under the limits. data becomes Instance.Data.
func (p *Pre) New(l Limits, data any) (*Instance, error) {
	if l.MemoryBytes <= 0 {
		l.MemoryBytes = -1
	}
	if l.TableElements <= 0 {
		l.TableElements = defaultTableElements
	}
	in := &Instance{Data: data, pre: p}
	in.pin.Pin(in)
	in.c = C.sc_instance_new(p.e.c, C.uintptr_t(uintptr(unsafe.Pointer(in))),
		C.int64_t(l.MemoryBytes), C.int64_t(l.TableElements), p.e.ticks(l.Deadline))
	if in.c == nil {
		in.pin.Unpin()
		return nil, errors.New("instance: out of memory")
	}
	var names *C.sc_name
	if len(p.names) > 0 {
		names = &p.names[0]
	}
	if C.sc_instance_start(in.c, p.c, names, C.uint32_t(len(p.names))) != 0 {
		err := in.failure("instantiate")
		in.Close()
		return nil, err
	}
	return in, nil
}

// ticks is the number of epochs after which d has surely passed.
func (e *Engine) ticks(d time.Duration) C.uint64_t {
	if d <= 0 {
		return 0
	}
	return C.uint64_t((d+e.tick-1)/e.tick) + 1
}

// SetDeadline bounds each outermost call from now on; 0 is no bound.
func (in *Instance) SetDeadline(d time.Duration) {
	if in.c != nil {
		in.c.ticks = in.pre.e.ticks(d)
	}
}

// Call calls export fn of the list given to Link, with as many arguments as it takes. It blocks
// until the guest returns. The error is a *Trap; after one the instance only answers that error.
// Calling an export that the module lacks, or with a wrong number of arguments, panics: Pre.Has and
// Pre.Params tell.
func (in *Instance) Call(fn int, args ...uint64) (uint64, error) {
	if in.fault != nil {
		return 0, in.fault
	}
	if in.c == nil {
		return 0, ErrClosed
	}
	if !in.pre.present[fn] || len(args) != in.pre.params[fn] {
		panic("engine: call of an absent export, or with a wrong number of arguments")
	}
	for i, a := range args {
		in.c.args[i] = C.uint64_t(a)
	}
	if C.sc_call(in.c, C.uint32_t(fn), C.uint32_t(len(args))) != 0 {
		return 0, in.failure(C.GoString(in.pre.names[fn].data))
	}
	return uint64(in.c.result), nil
}

// Memory is the guest's linear memory: valid until the next guest call, which may move it. Nil when
// the module exports none.
func (in *Instance) Memory() []byte {
	if in.c == nil || in.c.mem_base == nil {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(in.c.mem_base)), int(in.c.mem_size))
}

// Fault is the error of the call that failed, nil while the instance is usable.
func (in *Instance) Fault() error { return in.fault }

// Close frees the store with its memory. Idempotent; never while a call runs.
func (in *Instance) Close() {
	if in.c == nil {
		return
	}
	if in.c.depth != 0 {
		panic("engine: instance closed while it runs")
	}
	C.sc_instance_delete(in.c)
	in.c = nil
	in.pin.Unpin()
}

// Bytes is the guest memory [p, p+n), valid as Memory is; false when it is not all there.
func (in *Instance) Bytes(p, n uint32) ([]byte, bool) {
	m := in.Memory()
	if uint64(p)+uint64(n) > uint64(len(m)) {
		return nil, false
	}
	return m[p : uint64(p)+uint64(n) : uint64(p)+uint64(n)], true
}

// Text is Bytes as a string that shares the guest's memory: for look-ups that keep nothing of it.
func (in *Instance) Text(p, n uint32) (string, bool) {
	b, ok := in.Bytes(p, n)
	return unsafe.String(unsafe.SliceData(b), len(b)), ok
}
