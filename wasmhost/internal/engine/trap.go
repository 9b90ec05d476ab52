package engine

/*
#include "shim.h"
*/
import "C"

import (
	"fmt"
	"runtime/debug"
	"strings"
	"unsafe"
)

// Reason classes a Trap.
type Reason string

// The reasons. A guest's own panic is Unreachable in most languages.
const (
	Unreachable   Reason = "unreachable"
	DeadlineOver  Reason = "deadline"
	StackOverflow Reason = "stack overflow"
	HostError     Reason = "host call"
	OtherTrap     Reason = "trap"
)

// Trap is how a guest call ended that did not return.
type Trap struct {
	Function string // The export that was called, or "instantiate".
	Reason   Reason
	Message  string // wasmtime's text: the guest's stack with names, then the cause.
	Err      error  // For HostError: what the host function failed with.
}

// Error is one line, without the backtrace.
func (t *Trap) Error() string {
	cause := t.Message
	if t.Err != nil {
		cause = t.Err.Error()
	} else if i := strings.LastIndex(cause, "wasm trap: "); i >= 0 {
		cause = cause[i:]
	} else if i := strings.LastIndex(cause, "Caused by:"); i >= 0 {
		cause = strings.TrimSpace(cause[i+len("Caused by:"):])
	}
	cause, _, _ = strings.Cut(cause, "\n")
	return fmt.Sprintf("function %s failed: %s", t.Function, cause)
}

// Unwrap gives the error of the host function.
func (t *Trap) Unwrap() error { return t.Err }

// PanicError is a panic of a host function, which became a trap.
type PanicError struct {
	Value any
	Stack []byte
}

func (p *PanicError) Error() string { return fmt.Sprintf("panic in a host function: %v", p.Value) }

const (
	trapStackOverflow = 0
	trapUnreachable   = 9
	trapInterrupt     = 10
)

// failure takes what the shim and the host functions left behind, and marks the instance.
func (in *Instance) failure(function string) error {
	t := &Trap{Function: function, Reason: OtherTrap, Err: in.hostErr}
	if in.c.error != nil {
		t.Message = C.GoStringN(in.c.error, C.int(in.c.error_len))
	}
	switch {
	case in.hostErr != nil:
		t.Reason = HostError
	case in.c.trap_code == trapUnreachable:
		t.Reason = Unreachable
	case in.c.trap_code == trapInterrupt:
		t.Reason = DeadlineOver
	case in.c.trap_code == trapStackOverflow:
		t.Reason = StackOverflow
	}
	in.hostErr = nil
	in.fault = t
	return t
}

// Args are the parameters of a host call. Valid until the host function returns.
type Args struct{ p *[MaxHostArgs][2]uint64 }

// MaxHostArgs bounds the parameters of a host function.
const MaxHostArgs = 12

// U32 is parameter i, an i32.
func (a Args) U32(i int) uint32 { return uint32(a.p[i][0]) }

// U64 is parameter i, an i64.
func (a Args) U64(i int) uint64 { return a.p[i][0] }

//export sidecarHostCall
func sidecarHostCall(self unsafe.Pointer, index C.uint32_t, raw unsafe.Pointer) (trap C.int32_t) {
	in := (*Instance)(self)
	// The second of the two places that recover: unwinding a panic through C frames would leave the
	// store locked in the middle of a call.
	defer func() {
		if r := recover(); r != nil {
			in.hostErr = &PanicError{Value: r, Stack: debug.Stack()}
			trap = 1
		}
	}()
	args := (*[MaxHostArgs][2]uint64)(raw)
	result, err := in.pre.host[index].Call(in, Args{args})
	if err != nil {
		in.hostErr = err
		return 1
	}
	// Without a parameter and a result there is no slot to write to.
	if in.pre.host[index].results {
		args[0][0] = result
	}
	return 0
}
