package wasi_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sidecar/wasmhost/internal/engine"
	"sidecar/wasmhost/wasi"
)

type guest struct{ out []string }

func (*guest) Environ() []string { return []string{"A=b", "LONG=value"} }
func (g *guest) Output(stderr bool, text string) {
	g.out = append(g.out, fmt.Sprint(stderr, " ", text))
}

func TestFunctions(t *testing.T) {
	t.Parallel()
	e, err := engine.New(engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	for _, tc := range []struct {
		name, fn, params, args string
		want                   uint32
		word                   uint32 // at address 0 afterwards, if not 0
		out                    string
	}{
		{name: "write to stdout", fn: "fd_write", params: "i32 i32 i32 i32", args: "1 64 1 0", word: 3, out: "false hi"},
		{name: "write to stderr", fn: "fd_write", params: "i32 i32 i32 i32", args: "2 64 1 0", word: 3, out: "true hi"},
		{name: "write elsewhere", fn: "fd_write", params: "i32 i32 i32 i32", args: "3 64 1 0", want: 8},
		{name: "write from nowhere", fn: "fd_write", params: "i32 i32 i32 i32", args: "1 99999999 1 0", want: 21},
		{name: "environment sizes", fn: "environ_sizes_get", params: "i32 i32", args: "0 4", word: 2},
		{name: "environment", fn: "environ_get", params: "i32 i32", args: "0 128", word: 128},
		{name: "no arguments", fn: "args_sizes_get", params: "i32 i32", args: "8 12"},
		{name: "clock 2", fn: "clock_res_get", params: "i32 i32", args: "2 0", want: 58},
		{name: "random", fn: "random_get", params: "i32 i32", args: "256 1000"},
		{name: "too much random", fn: "random_get", params: "i32 i32", args: "0 65537", want: 28},
		{name: "poll", fn: "poll_oneoff", params: "i32 i32 i32 i32", args: "0 0 0 8"},
		{name: "prestat ends Go's search for files", fn: "fd_prestat_get", params: "i32 i32", args: "3 0", want: 8},
		{name: "restricted", fn: "sched_yield", want: 76},
	} {
		for _, module := range []string{"wasi_snapshot_preview1", "wasi_unstable"} {
			var consts strings.Builder
			for a := range strings.FieldsSeq(tc.args) {
				consts.WriteString("(i32.const " + a + ")")
			}
			g, in := load(t, e, fmt.Sprintf(`(module (import %q %q (func $f (param %s) (result i32)))
				(memory (export "memory") 1) (data (i32.const 64) "\50\00\00\00\03\00\00\00") (data (i32.const 80) "hi\0a")
				(func (export "run") (result i32) (call $f %s)))`, module, tc.fn, tc.params, consts.String()))
			got, err := in.Call(0)
			if err != nil || uint32(got) != tc.want {
				t.Errorf("%s of %s: %d, %v; want %d", tc.name, module, uint32(got), err, tc.want)
			}
			if w := uint32(in.Memory()[0]); tc.word != 0 && w != tc.word {
				t.Errorf("%s: wrote %d, want %d", tc.name, w, tc.word)
			}
			if out := strings.Join(g.out, "|"); out != tc.out {
				t.Errorf("%s: output %q, want %q", tc.name, out, tc.out)
			}
		}
	}
}

func TestExit(t *testing.T) {
	t.Parallel()
	e, err := engine.New(engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	_, in := load(t, e, `(module (import "wasi_snapshot_preview1" "proc_exit" (func $f (param i32)))
		(func (export "run") (result i32) (call $f (i32.const 7)) (i32.const 0)))`)
	_, err = in.Call(0)
	var exit *wasi.ExitError
	if !errors.As(err, &exit) || exit.Code != 7 {
		t.Errorf("got %v", err)
	}
}

func load(t *testing.T, e *engine.Engine, wat string) (*guest, *engine.Instance) {
	t.Helper()
	wasm, err := engine.FromText(wat)
	if err != nil {
		t.Fatal(err)
	}
	m, err := e.Compile(wasm)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	p, err := m.Link(wasi.Functions(func(name string) bool { return name != "sched_yield" }),
		[]engine.Export{{Name: "run", Signature: ":i"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	g := &guest{}
	in, err := p.New(engine.Limits{}, g)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.Close)
	return g, in
}
