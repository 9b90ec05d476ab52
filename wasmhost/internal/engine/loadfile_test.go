package engine_test

import (
	"os"
	"path/filepath"
	"testing"

	"sidecar/wasmhost/internal/engine"
)

// TestLoadFile holds that a file may be removed once it is loaded, and that what isn't compiled code is
// an error.
func TestLoadFile(t *testing.T) {
	e, err := engine.New(engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	wasm, err := engine.FromText(`(module (func (export "add") (param i32 i32) (result i32)
		local.get 0 local.get 1 i32.add))`)
	if err != nil {
		t.Fatal(err)
	}
	m, err := e.Compile(wasm)
	if err != nil {
		t.Fatal(err)
	}
	code, err := m.Save()
	m.Close()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(file, code, 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := e.LoadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	p, err := loaded.Link(nil, []engine.Export{{Name: "add", Signature: "ii:i"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	in, err := p.New(engine.Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if got, err := in.Call(0, 6, 7); err != nil || got != 13 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, bad := range []string{file, "/dev/null"} {
		if _, err := e.LoadFile(bad); err == nil {
			t.Errorf("%s was loaded", bad)
		}
	}
}
