package engine

/*
#cgo CFLAGS: -std=gnu11 -O2 -Wall
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"errors"
	"time"
	"unsafe"
)

// Options of an Engine. The zero value has the defaults.
type Options struct {
	// Tick is the granularity of deadlines, 10 ms by default: a guest stops at most one tick late.
	Tick time.Duration
	// MemoryReservation is the address space kept for each memory. The default of 4 GiB lets the
	// compiler leave out bounds checks; it is reserved, not committed.
	MemoryReservation uint64
	// StackBytes bounds a guest's stack, 512 KiB by default.
	StackBytes int
}

const (
	defaultTick       = 10 * time.Millisecond
	defaultStackBytes = 512 << 10
)

// Engine compiles and runs modules. Its one thread ticks the epoch that deadlines count in, and
// sleeps while no guest runs. Safe for concurrent use.
type Engine struct {
	c    *C.sc_engine
	tick time.Duration
}

// New makes an engine and starts its thread. Close it after all that was made from it.
func New(o Options) (*Engine, error) {
	if o.Tick <= 0 {
		o.Tick = defaultTick
	}
	if o.StackBytes <= 0 {
		o.StackBytes = defaultStackBytes
	}
	co := C.sc_options{
		tick_ns:            C.uint64_t(o.Tick.Nanoseconds()),
		memory_reservation: C.uint64_t(o.MemoryReservation),
		stack_bytes:        C.size_t(o.StackBytes),
	}
	var text *C.char
	c := C.sc_engine_new(&co, &text)
	if c == nil {
		return nil, takeError("engine", text)
	}
	return &Engine{c: c, tick: o.Tick}, nil
}

// Running is the number of guests inside an outermost call now.
func (e *Engine) Running() int { return int(C.sc_engine_running(e.c)) }

// Close stops the thread and frees the engine. Idempotent, not concurrent with other calls.
func (e *Engine) Close() {
	if e.c != nil {
		C.sc_engine_delete(e.c)
		e.c = nil
	}
}

// Objects counts the C objects of the process that are open.
type Objects struct {
	Engines, Modules, Pres, Instances, Snapshots int64
}

// Live counts what is open now, over all engines: tests expect it to go back to where it was.
func Live() Objects {
	l := C.sc_live_objects()
	return Objects{
		Engines: int64(l.engines), Modules: int64(l.modules),
		Pres: int64(l.pres), Instances: int64(l.instances), Snapshots: int64(C.sc_live_snapshots()),
	}
}

// FromText translates a module in the text format, for tests and tools.
func FromText(wat string) ([]byte, error) {
	if wat == "" {
		return nil, errors.New("text: empty")
	}
	var data, text *C.char
	var n C.size_t
	in := C.CString(wat)
	defer C.free(unsafe.Pointer(in))
	if C.sc_wat(in, C.size_t(len(wat)), &data, &n, &text) != 0 {
		return nil, takeError("text", text)
	}
	return takeBytes(data, n), nil
}

// takeBytes copies and frees a buffer of the shim.
func takeBytes(data *C.char, n C.size_t) []byte {
	out := append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(data)), int(n))...)
	C.free(unsafe.Pointer(data))
	return out
}

// takeError copies and frees an error text of the shim.
func takeError(what string, text *C.char) error {
	if text == nil {
		return errors.New(what + ": out of memory")
	}
	err := errors.New(what + ": " + C.GoString(text))
	C.free(unsafe.Pointer(text))
	return err
}
