package engine

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"
)

// Snapshot is the state of an instance of an instrumented module: its memory and its mutable globals.
// Its tables can't have changed. Safe for concurrent use; whoever holds it counts (Hold, Release).
type Snapshot struct {
	c    *C.sc_snapshot
	refs atomic.Int64
}

// ErrGrown is the answer of an instance that isn't taken back to a snapshot, since its memory has become
// larger by too much.
var ErrGrown = errors.New("the memory has grown by more than 16 MiB")

// Snapshot takes one, which the caller holds.
func (in *Instance) Snapshot() (*Snapshot, error) {
	if err := in.usable(); err != nil {
		return nil, err
	}
	if err := in.findGlobals(); err != nil {
		return nil, err
	}
	c := C.sc_snapshot_take(in.c)
	if c == nil {
		return nil, errors.New("snapshot: out of memory")
	}
	s := &Snapshot{c: c}
	s.refs.Store(1)
	return s, nil
}

// Hold counts one more holder.
func (s *Snapshot) Hold() { s.refs.Add(1) }

// Release frees the snapshot with its last holder.
func (s *Snapshot) Release() {
	if s.refs.Add(-1) == 0 {
		C.sc_snapshot_delete(s.c)
		s.c = nil
	}
}

// Bytes is the size of the memory.
func (s *Snapshot) Bytes() int { return int(s.c.size) }

func (in *Instance) usable() error {
	switch {
	case in.fault != nil:
		return in.fault
	case in.c == nil:
		return ErrClosed
	case in.c.depth != 0:
		return errors.New("snapshot: the instance runs")
	}
	return nil
}

// findGlobals looks up the exports that Instrument has added, once.
func (in *Instance) findGlobals() error {
	if in.globals {
		return nil
	}
	for i := range in.pre.globals {
		name := globalExport(i)
		p := C.CString(name)
		found := C.sc_instance_global(in.c, p, C.size_t(len(name)), C.uint32_t(in.pre.globals))
		C.free(unsafe.Pointer(p))
		if found != 0 {
			return fmt.Errorf("snapshot: there is no export %q", name)
		}
	}
	in.globals = true
	return nil
}

// Adopt makes the instance what the snapshot is of; it must be of the same module. Costs some system
// calls, and a page fault for each page that is used for the first time.
func (in *Instance) Adopt(s *Snapshot) error {
	if err := in.usable(); err != nil {
		return err
	}
	if err := in.findGlobals(); err != nil {
		return err
	}
	switch C.sc_snapshot_adopt(in.c, s.c) {
	case 0:
		return nil
	case 1:
		return ErrGrown
	}
	return errors.New("snapshot: the memory can't be mapped")
}

// Restore takes an instance back to the snapshot that it adopted last: pages that were written get their
// contents back, and stay where they are, so that the next use of them faults no more.
func (in *Instance) Restore(s *Snapshot) error {
	if err := in.usable(); err != nil {
		return err
	}
	switch C.sc_snapshot_restore(in.c, s.c) {
	case 0:
		return nil
	case 1:
		return ErrGrown
	}
	return errors.New("snapshot: the memory can't be restored")
}

// Differs tells whether the instance, which has adopted the snapshot or which it was taken of, has
// changed since.
func (in *Instance) Differs(s *Snapshot) bool { return C.sc_snapshot_differs(in.c, s.c) != 0 }
