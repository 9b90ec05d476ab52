package wasmhost_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"

	"sidecar/wasmhost"
)

// compileChild is the argument that makes the test's binary the compiler.
const compileChild = "compile-child"

func compiler() []string { return []string{"/proc/self/exe", compileChild} }

func needLinux(t testing.TB) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
}

func started(t *testing.T, h *wasmhost.Host, wasm []byte) (*wasmhost.Plugin, error) {
	t.Helper()
	cfg, err := wasmhost.Compile(config(t, wasm, ""), nil, short())
	if err != nil {
		t.Fatal(err)
	}
	return h.Start(t.Context(), cfg)
}

// natives are the files of compiled code in a directory.
func natives(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(dir + "/*.native")
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestCompileInChild holds that a child's code runs, from memory and from the cache, that the cache is
// used the next time, and that one that was spoiled is replaced.
func TestCompileInChild(t *testing.T) {
	t.Parallel()
	needLinux(t)
	wasm := code(t, plugin)
	dir := t.TempDir() + "/c"
	run := func(o wasmhost.Options) {
		t.Helper()
		h, err := wasmhost.NewHost(o)
		if err != nil {
			t.Fatal(err)
		}
		p, err := started(t, h, wasm)
		if err != nil {
			t.Fatal(err)
		}
		p.Close()
		h.Close() // The cache is written by now.
	}
	run(wasmhost.Options{Compiler: compiler()})
	run(wasmhost.Options{Compiler: compiler(), CacheDir: dir})
	if n := natives(t, dir); len(n) != 1 {
		t.Fatalf("%d files of compiled code", len(n))
	}
	// A compiler that can't be started shows that none is.
	run(wasmhost.Options{Compiler: []string{"/nowhere"}, CacheDir: dir})
	if err := os.WriteFile(natives(t, dir)[0], []byte("spoiled"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(wasmhost.Options{Compiler: compiler(), CacheDir: dir})
	run(wasmhost.Options{Compiler: []string{"/nowhere"}, CacheDir: dir})
	// What the process itself compiles is kept too.
	if err := os.Remove(natives(t, dir)[0]); err != nil {
		t.Fatal(err)
	}
	run(wasmhost.Options{CacheDir: dir})
	run(wasmhost.Options{Compiler: []string{"/nowhere"}, CacheDir: dir})
}

func TestCompileErrorsOfChild(t *testing.T) {
	t.Parallel()
	needLinux(t)
	for _, tc := range []struct {
		name     string
		compiler []string
		wasm     string
		want     string
	}{
		{"bad module", compiler(), "\x00asm\x01\x00\x00\x00\x01\x01\x7f", "module: "},
		{"no compiler", []string{"/nowhere"}, "\x00asm\x01\x00\x00\x00", "compiler: "},
		{"a compiler that fails", []string{"/bin/sh", "-c", "echo out of luck >&2; exit 1"}, "\x00asm\x01\x00\x00\x00", "(exit status 1): out of luck"},
		{"a compiler that is killed", []string{"/bin/sh", "-c", "kill -9 $$"}, "\x00asm\x01\x00\x00\x00", "signal: killed"},
		{"a compiler that writes nothing", []string{"/bin/true"}, "\x00asm\x01\x00\x00\x00", "compiled module"},
	} {
		h, _ := newHost(t, wasmhost.Options{Compiler: tc.compiler, CacheDir: t.TempDir() + "/c"})
		if _, err := started(t, h, []byte(tc.wasm)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q in it", tc.name, err, tc.want)
		}
	}
}

// TestCloseEndsChild holds that a compiler doesn't outlive the host, nor whoever doesn't want its code any
// more.
func TestCloseEndsChild(t *testing.T) {
	t.Parallel()
	needLinux(t)
	for _, how := range []string{"cancel", "close"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "pid")
			h, err := wasmhost.NewHost(wasmhost.Options{
				Compiler: []string{"/bin/sh", "-c", "echo $$ > " + file + ".part; mv " + file + ".part " + file + "; exec sleep 600"},
			})
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := wasmhost.Compile(config(t, code(t, plugin), ""), nil, short())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				_, err := h.Start(ctx, cfg)
				ended <- err
			}()
			pid := 0
			for tick := time.NewTicker(5 * time.Millisecond); pid == 0; <-tick.C {
				if b, err := os.ReadFile(file); err == nil {
					pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			if how == "cancel" {
				cancel()
				if err := <-ended; err == nil {
					t.Error("started")
				}
			}
			h.Close()
			if how == "close" {
				if err := <-ended; err == nil {
					t.Error("started")
				}
			}
			if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err == nil {
				t.Error("the child is still there")
			}
		})
	}
}

// TestCacheIsRefused holds that a directory that others may write to isn't used, and that plugins start
// without it.
func TestCacheIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // what is refused
		t.Fatal(err)
	}
	h, _ := newHost(t, wasmhost.Options{CacheDir: dir})
	p, err := started(t, h, code(t, plugin))
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	if n := natives(t, dir); len(n) != 0 {
		t.Errorf("%d files were written", len(n))
	}
}

// TestOneCompile holds that plugins of the same code compile it once, also if the first goes away.
func TestOneCompile(t *testing.T) {
	t.Parallel()
	needLinux(t)
	log := filepath.Join(t.TempDir(), "log")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h, _ := newHost(t, wasmhost.Options{
		Compiler: []string{"/bin/sh", "-c", "echo x >> " + log + "; exec " + exe + " " + compileChild + " $0"},
	})
	wasm := code(t, plugin)
	results := make(chan *wasmhost.Plugin, 8)
	for i := range cap(results) {
		cfg, err := wasmhost.Compile(config(t, wasm, "", func(c *wasmv3.PluginConfig) { c.Name = "p" + strconv.Itoa(i) }), nil, short())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			p, err := h.Start(t.Context(), cfg)
			if err != nil {
				t.Error(err)
			}
			results <- p
		}()
	}
	for range cap(results) {
		if p := <-results; p != nil {
			defer p.Close()
		}
	}
	if b, err := os.ReadFile(log); err != nil || len(b) != 2 {
		t.Errorf("compiled %d times, %v", len(b)/2, err)
	}
}
