package wasmcli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func plugin(name string) string {
	return filepath.Join("..", "..", "..", "testdata", "plugins", name, name+".wasm")
}

// wasm runs the command and returns all that it printed.
func wasm(t *testing.T, args ...string) (code int, output string) {
	t.Helper()
	var out bytes.Buffer
	code = Main(t.Context(), args, &out, &out)
	return code, out.String()
}

// inOrder fails unless text has all of want, one after the other.
func inOrder(t *testing.T, text string, want ...string) {
	t.Helper()
	rest := text
	for _, w := range want {
		i := strings.Index(rest, w)
		if i < 0 {
			t.Fatalf("%q is missing, or not in its place, in:\n%s", w, text)
		}
		rest = rest[i+len(w):]
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"headers", []string{plugin("http_headers"), "-H", "a: b", "-request", "GET /x"}, 0, []string{
			"proxy_on_vm_start(context=1, vm_configuration_size=0)", "= true",
			"stream 1: GET /x",
			"proxy_on_request_headers(context=2, headers=5, end_of_stream=true)",
			`proxy_get_header_map_pairs(map=request_headers) = OK  pairs={[":authority: localhost" ":path: /x"`,
			`proxy_add_header_map_value(map=request_headers, key="x-header-count", value="5") = OK`,
			"= Continue", "proxy_on_log(context=2)", "proxy_on_done(context=2)", "proxy_on_delete(context=2)",
			"upstream gets:", "a: b", "x-header-count: 5", "client gets:", ":status: 200",
			"end:", "proxy_on_done(context=1)", "memory 1.1 MiB", "host calls: 2",
		}},
		{"body in chunks", []string{
			plugin("body"), "-H", "x-body: upper", "-H", "x-response: append", "-body", "hello world",
			"-chunk", "5", "-response-body", "hi", "-status", "201",
		}, 0, []string{
			"body_size=5, end_of_stream=false)", "= StopIterationAndBuffer", "body_size=10,", "body_size=11,",
			"body_size=11, end_of_stream=true)", `data="hello world"`, `data="HELLO WORLD"`,
			"upstream gets:", `body, 11 bytes: "HELLO WORLD"`, ":status: 201", `body, 9 bytes: "hi.append"`,
		}},
		{"call-out", []string{plugin("http_auth"), "-cluster", "auth=200:fine"}, 0, []string{
			`call-out to cluster "auth"`, "x-path: /", "= StopIteration",
			"proxy_on_http_call_response(context=1, token=4, headers=1, body_size=4, trailers=0)",
			"proxy_set_effective_context(context=2) = OK", "proxy_continue_stream(stream=request) = OK",
			"upstream gets:", "x-auth:",
		}},
		{"unknown cluster", []string{plugin("http_auth")}, 0, []string{
			`! the plugin calls cluster "auth"`, "--cluster auth=200", "= BAD_ARGUMENT", "client gets a local reply",
		}},
		{"trap", []string{plugin("trap"), "-H", "x-trap: request"}, 1, []string{
			"TRAP: function proxy_on_request_headers failed", "unreachable",
			"client gets a local reply (wasm_fail_stream)", ":status: 503",
		}},
		{"deadline", []string{plugin("looping"), "-H", "x-loop: on", "-deadline", "50ms"}, 1, []string{"TRAP:", "interrupt"}},
		{"results only", []string{plugin("http_headers"), "-quiet"}, 0, []string{"start:\n\nstream 1: GET /\n", "upstream gets"}},
		{"environment", []string{plugin("http_headers"), "-env", "A=b", "-repeat", "2"}, 0, []string{"stream 1", "stream 2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, out := wasm(t, append([]string{"run"}, tc.args...)...)
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			inOrder(t, out, tc.want...)
		})
	}
}

func TestScenario(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "scenario.yaml")
	text := `
plugin: {name: auth, configuration: checker}
clusters:
  checker:
  - {status: 200, headers: {x-user: [me]}, delay: 20ms}
  - {status: 401, body: denied}
  - {reset: true}
together: true
streams:
- name: first
  request: {path: /1, headers: ["x-one: 1", "x-one: 2"]}
  response: {status: 200, body: hello, trailers: {t: v}}
- name: second
  request: {path: /2, method: PUT, chunks: [a, b]}
- name: third
  request: {path: /3}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := wasm(t, "run", plugin("http_auth"), "-scenario", file)
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	inOrder(t, out,
		"stream 1: first: GET /1\n  upstream gets:", "x-one: 1", "x-one: 2", "x-auth: me",
		"client gets:", `"hello"`, "trailers:", "t: v",
		"stream 2: second: PUT /2\n  client gets a local reply", ":status: 403", "x-denied: yes", `"denied"`,
		"stream 3: third: GET /3\n  client gets a local reply", ":status: 403", "upstream connect error",
	)
}

func TestPausedForEver(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "scenario.json")
	text := `{"clusters": {"auth": [{"delay": "1h"}]}, "timeout": "50ms"}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := wasm(t, "run", plugin("http_auth"), "-scenario", file)
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	inOrder(t, out, "! paused in the request headers for 50ms", "proxy_on_log(context=2)", "the client went away")
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("streams: [{requests: {}}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"nothing", nil, 2, "usage:"},
		{"no such command", []string{"walk"}, 2, `no command "walk"`},
		{"no plugin", []string{"run"}, 2, "the plugin's file is missing"},
		{"two plugins", []string{"run", "a", "b"}, 2, "one plugin at a time"},
		{"no such file", []string{"run", "missing.wasm"}, 1, "no such file"},
		{"no such flag", []string{"run", "a", "-x"}, 2, "-x"},
		{"header", []string{"run", "a", "-H", "x"}, 2, `a header is "name: value"`},
		{"cluster", []string{"run", "a", "-cluster", "x=1"}, 2, "a cluster is NAME=STATUS"},
		{"unknown field", []string{"run", "a", "-scenario", bad}, 2, `unknown field "`},
		{"policy", []string{"run", plugin("version"), "-failure-policy", "NEVER"}, 2, "is no failure policy"},
		{"source of a plugin", []string{"run", "wasmcli_test.go"}, 1, "doesn't begin with"},
		{"help", []string{"run", "-help"}, 0, "-allow-headers-stop"},
		{"help of all", []string{"help"}, 0, "inspect"},
	} {
		code, out := wasm(t, tc.args...)
		if code != tc.code || !strings.Contains(out, tc.want) {
			t.Errorf("%s: exit code %d, want %d and %q in:\n%s", tc.name, code, tc.code, tc.want, out)
		}
	}
}

func TestInspect(t *testing.T) {
	t.Parallel()
	code, out := wasm(t, "inspect", plugin("http_headers"))
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	inOrder(t, out, "sha256 ", "language Rust", "memory: 1.1 MiB", "sections:", "code", "ABI version: 0.2.1",
		"env.proxy_log", "(i32, i32, i32) -> i32", "exports:", "called by the host", "would be taken")
}

func TestInspectRefusals(t *testing.T) {
	t.Parallel()
	head := "\x00asm\x01\x00\x00\x00"
	for _, tc := range []struct{ name, module, want string }{
		{"empty", "", "doesn't begin with"},
		{"gzip", "\x1f\x8b\x08", "gzip"},
		{"text", " (module)", "Wasm text"},
		{"component", "\x00asm\x0d\x00\x01\x00", "component"},
		{"cut in a section", head + "\x01\x7f", "cut short"},
		{"no version", head, "exports a function proxy_abi_version_0_1_0"},
		{"bad section", head + "\x01\x01\x7f", "doesn't compile"},
	} {
		file := filepath.Join(t.TempDir(), "m.wasm")
		if err := os.WriteFile(file, []byte(tc.module), 0o600); err != nil {
			t.Fatal(err)
		}
		code, out := wasm(t, "inspect", file)
		if code != 1 || !strings.Contains(out, tc.want) {
			t.Errorf("%s: exit code %d, want 1 and %q in:\n%s", tc.name, code, tc.want, out)
		}
	}
}

func FuzzLayout(f *testing.F) {
	real, err := os.ReadFile(plugin("version"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(real)
	for _, seed := range []string{
		"", "\x00asm", "\x00asm\x01\x00\x00\x00", "\x00asm\x0d\x00\x01\x00",
		"\x00asm\x01\x00\x00\x00\x05\x03\x01\x00\x11", "\x00asm\x01\x00\x00\x00\x05\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
		"\x00asm\x01\x00\x00\x00\x00\x0a\x09producers", "\x00asm\x01\x00\x00\x00\x04\x05\x01\x70\x01\x00\x10",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := readLayout(b)
		if err != nil {
			return
		}
		total := 0
		for _, s := range l.Sections {
			total += s.Bytes
		}
		if total > len(b) {
			t.Errorf("sections of %d bytes in a module of %d", total, len(b))
		}
		printLayout(new(bytes.Buffer), l)
	})
}

func FuzzScenario(f *testing.F) {
	for _, seed := range []string{
		"", "streams: [{request: {headers: {a: [b, c]}}}]", "streams: [{request: {headers: ['a: b']}}]",
		"wait: 1s", "wait: 1.5", "wait: x", "clusters: {a: []}", "clusters: {a: [{reset: true}]}",
		"streams: [{response: {status: 100}}]", "streams: [{request: {body: a, chunks: [b]}}]", "a: &a [*a]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseScenario(b)
		if err != nil {
			return
		}
		for _, x := range s.Streams {
			for _, p := range x.Request.pieces(1) {
				if p == "" && len(x.Request.Chunks) == 0 {
					t.Error("an empty piece")
				}
			}
		}
	})
}
