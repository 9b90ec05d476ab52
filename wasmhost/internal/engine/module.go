package engine

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"errors"
	"strings"
	"unsafe"
)

// Signature is a function type written as its parameters, a colon and its results, one letter each:
// i for i32, I for i64, f for f32, F for f64, r for references. "ii:i" takes two i32 and gives one.
type Signature string

// Params is the number of parameters.
func (s Signature) Params() int { return strings.IndexByte(string(s), ':') }

// callable tells whether Call can pass these values.
func (s Signature) callable() bool {
	params, results, ok := strings.Cut(string(s), ":")
	return ok && len(params) <= MaxArgs && len(results) <= 1 && strings.Trim(params+results, "iI") == ""
}

// Type is an import or an export. Signature is empty unless it is a function.
type Type struct {
	Module, Name string // Module is empty for an export.
	Signature    Signature
}

// Module is compiled code. Safe for concurrent use.
type Module struct {
	c *C.wasmtime_module_t
	e *Engine
	// Imports and Exports in the module's order. Never changed.
	Imports, Exports []Type
}

// Compile validates and compiles a binary module; it takes seconds for a large one, on the calling
// goroutine.
func (e *Engine) Compile(wasm []byte) (*Module, error) {
	if len(wasm) == 0 {
		return nil, errors.New("module: empty")
	}
	var text *C.char
	c := C.sc_module_new(e.c, (*C.uint8_t)(unsafe.Pointer(&wasm[0])), C.size_t(len(wasm)), &text)
	if c == nil {
		return nil, takeError("module", text)
	}
	return e.newModule(c), nil
}

// Load takes what Save gave. It is native code: the caller vouches for where it comes from.
// Code of another version or configuration of the engine is an error.
func (e *Engine) Load(code []byte) (*Module, error) {
	if len(code) == 0 {
		return nil, errors.New("compiled module: empty")
	}
	var text *C.char
	c := C.sc_module_load(e.c, (*C.uint8_t)(unsafe.Pointer(&code[0])), C.size_t(len(code)), &text)
	if c == nil {
		return nil, takeError("compiled module", text)
	}
	return e.newModule(c), nil
}

// LoadFile is Load of a file, which is mapped rather than read: processes share its pages, and those
// that are never run are never read. The file must not be changed as long as the module lives; removing
// it is fine.
func (e *Engine) LoadFile(path string) (*Module, error) {
	var text *C.char
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	c := C.sc_module_load_file(e.c, name, &text)
	if c == nil {
		return nil, takeError("compiled module", text)
	}
	return e.newModule(c), nil
}

func (e *Engine) newModule(c *C.wasmtime_module_t) *Module {
	m := &Module{c: c, e: e}
	imports, exports := C.sc_imports(c), C.sc_exports(c)
	m.Imports, m.Exports = readTypes(imports), readTypes(exports)
	C.sc_types_delete(imports)
	C.sc_types_delete(exports)
	return m
}

// Save is the compiled code for Load.
func (m *Module) Save() ([]byte, error) {
	var data, text *C.char
	var n C.size_t
	if C.sc_module_save(m.c, &data, &n, &text) != 0 {
		return nil, takeError("compiled module", text)
	}
	return takeBytes(data, n), nil
}

// Export is the signature of an exported function; empty when there is none of that name.
func (m *Module) Export(name string) Signature {
	for _, e := range m.Exports {
		if e.Name == name {
			return e.Signature
		}
	}
	return ""
}

// Close frees the module. What was linked from it keeps its own reference. Idempotent.
func (m *Module) Close() {
	if m.c != nil {
		C.sc_module_delete(m.c)
		m.c = nil
	}
}

func readTypes(c *C.sc_types) []Type {
	types := make([]Type, int(C.sc_types_len(c)))
	for i := range types {
		var t C.sc_type
		C.sc_types_at(c, C.size_t(i), &t)
		types[i] = Type{
			Module: goString(t.module, t.module_len), Name: goString(t.name, t.name_len),
			Signature: signature(&t),
		}
	}
	return types
}

func signature(t *C.sc_type) Signature {
	if t.kind != C.WASM_EXTERN_FUNC {
		return ""
	}
	var b strings.Builder
	kinds := func(n C.uint32_t, list *[C.SC_MAX_TYPES]C.uint8_t) {
		for i := range int(n) {
			if i >= len(list) { // Longer than any signature of the ABI: only has to differ.
				b.WriteByte('+')
				continue
			}
			b.WriteByte(kindLetter(list[i]))
		}
	}
	kinds(t.nparams, &t.params)
	b.WriteByte(':')
	kinds(t.nresults, &t.results)
	return Signature(b.String())
}

func kindLetter(kind C.uint8_t) byte {
	switch kind {
	case C.WASM_I32:
		return 'i'
	case C.WASM_I64:
		return 'I'
	case C.WASM_F32:
		return 'f'
	case C.WASM_F64:
		return 'F'
	default:
		return 'r'
	}
}

func goString(p *C.char, n C.size_t) string { return C.GoStringN(p, C.int(n)) }
