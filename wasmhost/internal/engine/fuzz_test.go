package engine_test

import (
	"os"
	"path/filepath"
	"testing"

	"sidecar/wasmhost/internal/engine"
)

// FuzzCompile: no module, however bad, does more than fail to compile, to link or to run.
func FuzzCompile(f *testing.F) {
	e, err := engine.New(engine.Options{})
	if err != nil {
		f.Fatal(err)
	}
	defer e.Close()
	for _, wat := range []string{
		`(module)`, testModule, `(module (memory (export "memory") 1) (data (i32.const 0) "x"))`,
		`(module (func $s unreachable) (start $s))`, `(module (table 10 funcref) (elem (i32.const 20)))`,
		`(module (import "env" "twice" (func (param i32) (result i32))))`,
	} {
		wasm, err := engine.FromText(wat)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wasm)
		f.Add(wasm[:len(wasm)/2])
	}
	files, _ := filepath.Glob("../../../testdata/plugins/looping/*.wasm")
	for _, name := range files {
		if wasm, err := os.ReadFile(name); err == nil {
			f.Add(wasm[:1024])
		}
	}
	f.Add([]byte("\x00asm\x01\x00\x00\x00"))
	f.Add([]byte("\x00asm\x0d\x00\x01\x00")) // A component.
	f.Fuzz(func(_ *testing.T, wasm []byte) {
		m, err := e.Compile(wasm)
		if err != nil {
			return
		}
		defer m.Close()
		p, err := m.Link(testHost(), testExports)
		if err != nil {
			return
		}
		defer p.Close()
		in, err := p.New(engine.Limits{MemoryBytes: 1 << 20, TableElements: 1000, Deadline: 1}, nil)
		if err != nil {
			return
		}
		defer in.Close()
		if p.Has(fnAdd) {
			_, _ = in.Call(fnAdd, 1, 2)
		}
	})
}
