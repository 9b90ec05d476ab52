// Package wasmtest makes modules for tests of whoever runs plugins.
package wasmtest

import (
	"os"
	"path/filepath"
	"testing"

	"sidecar/wasmhost/internal/engine"
)

// Module translates a module from the text format.
func Module(tb testing.TB, wat string) []byte {
	tb.Helper()
	wasm, err := engine.FromText(wat)
	if err != nil {
		tb.Fatal(err)
	}
	return wasm
}

// File is Module in a file that lives as long as the test.
func File(tb testing.TB, wat string) string {
	tb.Helper()
	name := filepath.Join(tb.TempDir(), "plugin.wasm")
	if err := os.WriteFile(name, Module(tb, wat), 0o600); err != nil {
		tb.Fatal(err)
	}
	return name
}
