package engine

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"
)

// HostFunc is a function that modules may import. Call runs on the goroutine of the guest call and
// must not block; an error, or a panic, traps the guest. Its result is ignored when the signature
// has none.
type HostFunc struct {
	Module, Name string
	Signature    Signature
	Call         func(in *Instance, a Args) (uint64, error)

	results bool // Whether the linked signature has a result.
}

// Export names a function that the host will call, by its position in the list given to Link.
// Alternatives are further acceptable signatures.
type Export struct {
	Name         string
	Signature    Signature
	Alternatives []Signature
}

// Pre is a module whose imports are resolved and whose exports are checked: all that can be done
// before an instance is made. Safe for concurrent use.
type Pre struct {
	c       *C.wasmtime_instance_pre_t
	e       *Engine
	host    []HostFunc // By the index that the shim passes.
	names   []C.sc_name
	present []bool
	params  []int
	globals int // that Instrument exported
}

// Link resolves the module's imports with the host functions and checks the types of the exports
// that will be called: an unchecked call with another signature would corrupt memory. An import that
// no host function answers is linked to one that traps with its name when it is called; an import
// that is no function, or a host function of another type, is an error.
func (m *Module) Link(host []HostFunc, exports []Export) (*Pre, error) {
	p := &Pre{e: m.e, globals: instrumented(m)}
	if err := p.checkExports(m, exports); err != nil {
		return nil, err
	}
	linker := C.sc_linker_new(m.e.c)
	defer C.sc_linker_delete(linker)
	if err := p.define(m, linker, host); err != nil {
		return nil, err
	}
	var text *C.char
	if p.c = C.sc_linker_pre(linker, m.c, &text); p.c == nil {
		return nil, takeError("link", text)
	}
	for _, x := range exports {
		p.names = append(p.names, C.sc_name{data: C.CString(x.Name), len: C.size_t(len(x.Name))})
	}
	return p, nil
}

func (p *Pre) checkExports(m *Module, exports []Export) error {
	var errs []error
	p.present, p.params = make([]bool, len(exports)), make([]int, len(exports))
	for i, x := range exports {
		got := m.Export(x.Name)
		if got == "" {
			continue
		}
		ok := got == x.Signature
		for _, alt := range x.Alternatives {
			ok = ok || got == alt
		}
		if !ok || !got.callable() {
			errs = append(errs, fmt.Errorf("export %q: has type %q, want %q", x.Name, got, x.Signature))
			continue
		}
		p.present[i], p.params[i] = true, got.Params()
	}
	return errors.Join(errs...)
}

type importName struct{ module, name string }

// define gives each import its function; an import listed twice is defined once.
func (p *Pre) define(m *Module, linker *C.wasmtime_linker_t, host []HostFunc) error {
	known := make(map[importName]*HostFunc, len(host))
	for i := range host {
		known[importName{host[i].Module, host[i].Name}] = &host[i]
	}
	types := C.sc_imports(m.c)
	defer C.sc_types_delete(types)
	seen := map[importName]Signature{}
	var errs []error
	for i, im := range m.Imports {
		name := importName{im.Module, im.Name}
		where := fmt.Sprintf("import %q %q", im.Module, im.Name)
		if im.Signature == "" {
			errs = append(errs, errors.New(where+": not a function, which is all that the host has"))
			continue
		}
		if old, ok := seen[name]; ok {
			if old != im.Signature {
				errs = append(errs, fmt.Errorf("%s: imported as %q and as %q", where, old, im.Signature))
			}
			continue
		}
		seen[name] = im.Signature
		f := known[name]
		switch {
		case f == nil:
			f = &HostFunc{Module: im.Module, Name: im.Name, Call: unknownImport(im)}
		case f.Signature.Params() > MaxHostArgs:
			errs = append(errs, fmt.Errorf("%s: more than %d parameters", where, MaxHostArgs))
			continue
		case f.Signature != im.Signature:
			errs = append(errs, fmt.Errorf("%s: has type %q, the host's is %q",
				where, im.Signature, f.Signature))
			continue
		}
		var text *C.char
		index := C.uint32_t(len(p.host))
		if C.sc_linker_define(linker, types, C.size_t(i), index, &text) != 0 {
			errs = append(errs, takeError(where, text))
			continue
		}
		linked := *f
		linked.results = !strings.HasSuffix(string(im.Signature), ":")
		p.host = append(p.host, linked)
	}
	return errors.Join(errs...)
}

func unknownImport(t Type) func(*Instance, Args) (uint64, error) {
	err := fmt.Errorf("import %q %q is not provided by the host", t.Module, t.Name)
	return func(*Instance, Args) (uint64, error) { return 0, err }
}

// Has tells whether the module has export i of the list given to Link.
func (p *Pre) Has(i int) bool { return p.present[i] }

// Params is the number of parameters that export i takes.
func (p *Pre) Params(i int) int { return p.params[i] }

// Close frees what Link made; instances keep running. Idempotent.
func (p *Pre) Close() {
	if p.c == nil {
		return
	}
	C.sc_pre_delete(p.c)
	p.c = nil
	for _, n := range p.names {
		C.free(unsafe.Pointer(n.data))
	}
	p.names = nil
}
