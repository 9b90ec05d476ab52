package wasmcli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const sdkScenario = `
plugin: {name: p, root_id: headers, configuration: blue}
streams:
- request: {path: /, headers: ["x-tag: old", "x-secret: s", "x-tag: older"]}
  response: {status: 404, headers: {server: up}, body: nothing}
- request: {path: /hello, chunks: [never, read], trailers: {t: v}}
- request: {method: POST, path: /other, body: kept, headers: {x-secret: [a, b]}}
  response: {headers: {x-plugin: old}, trailers: {a: b}}
`

// goPlugin builds the plugin in Go, whose module is too large to keep.
func goPlugin(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a module of Go and compiles it, which takes long")
	}
	file := filepath.Join(t.TempDir(), "go.wasm")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-buildmode=c-shared", "-o", file, ".")
	cmd.Dir = sdk("go")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return file
}

func sdk(name ...string) string {
	return filepath.Join(append([]string{"..", "..", "..", "testdata", "plugins", "sdk"}, name...)...)
}

// TestSDKs holds that plugins of every language that SDKs are for do the same in the same scenario.
func TestSDKs(t *testing.T) {
	t.Parallel()
	scenario := filepath.Join(t.TempDir(), "s.yaml")
	if err := os.WriteFile(scenario, []byte(sdkScenario), 0o600); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("testdata", "sdk.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		file func(t *testing.T) string
	}{
		{"rust", func(*testing.T) string { return sdk("rust", "rust.wasm") }},
		{"cpp", func(*testing.T) string { return sdk("cpp", "cpp.wasm") }},
		{"assemblyscript", func(*testing.T) string { return sdk("assemblyscript", "assemblyscript.wasm") }},
		{"go", goPlugin},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			file := tc.file(t)
			code, out := wasm(t, "run", file, "-quiet", "-log-level", "info", "-scenario", scenario)
			out, _, _ = strings.Cut(out, "\ncompiled, ")
			if code != 0 || out != string(want) {
				t.Errorf("exit code %d, output:\n%s\nwant:\n%s", code, out, want)
			}
			if code, out := wasm(t, "inspect", file); code != 0 {
				t.Errorf("inspect: exit code %d:\n%s", code, out)
			}
		})
	}
}
