package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRun_Configuration runs the whole program up to where it would begin to serve.
func TestRun_Configuration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.yaml", `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  clusters:
  - {name: up, type: static, lb_policy: round_robin, connect_timeout: 1s}
`)
	bad := file("bad.yaml", `
nope: 1
watchdog: {}
static_resources:
  clusters:
  - name: a
    lb_policy: SOMETHING
  - name: ""
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 80x}}
`)
	tests := []struct {
		name string
		args []string
		code int
		// stderr are lines that must be there, in this order.
		stderr []string
	}{
		{"good", []string{"-c", good, "--mode", "validate"}, 0, []string{"configuration '" + good + "' OK"}},
		{
			"flag without effect",
			[]string{"-c", good, "--mode", "validate", "--base-id", "1"},
			0,
			[]string{"--base-id has no effect: there is no hot restart"},
		},
		{"everything that is wrong", []string{"-c", bad, "--mode", "validate"}, 1, []string{
			bad + ":2: nope: unknown field",
			bad + ":7: static_resources.clusters[0].lb_policy: unknown value",
			bad + ":11: static_resources.listeners[0].address.socket_address.port_value: must be an integer",
			bad + ":3: watchdog: is not supported",
			bad + ":8: static_resources.clusters[1].name: ",
		}},
		{"the same when it is to serve", []string{"-c", bad, "-l", "off"}, 1, []string{bad + ":2: nope: unknown field"}},
		{"unknown fields allowed", []string{
			"-c", good, "--config-yaml", "{nope: 1}", "--mode", "validate",
			"--allow-unknown-static-fields",
		}, 0, []string{"--config-yaml:1: nope: unknown field", "OK"}},
		{"no file", []string{"-c", filepath.Join(dir, "none.yaml")}, 1, []string{"none.yaml: no such file or directory"}},
		{"two log formats", []string{
			"--config-yaml", `{application_log_config: {log_format: {text_format: "%v"}}}`,
			"--log-format", "%v",
		}, 1, []string{"Only one of ApplicationLogConfig.log_format or CLI option --log-format"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append([]string{"sidecar"}, tt.args...), &stdout, &stderr)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			rest := stderr.String() + stdout.String()
			for _, line := range tt.stderr {
				_, after, ok := strings.Cut(rest, line)
				if !ok {
					t.Fatalf("no %q in its place in\n%s", line, stderr.String())
				}
				rest = after
			}
		})
	}
}
