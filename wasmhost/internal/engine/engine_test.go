package engine_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sidecar/wasmhost/internal/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	fnAdd = iota
	fnHost
	fnSpin
	fnTrap
	fnGrow
	fnNest
	fnMalloc
	fnRecurse
	fnPanic
	fnUnknown
	fnAbsent
)

var testExports = []engine.Export{
	fnAdd:     {Name: "add", Signature: "ii:i"},
	fnHost:    {Name: "host", Signature: "i:i"},
	fnSpin:    {Name: "spin", Signature: ":"},
	fnTrap:    {Name: "trap", Signature: ":"},
	fnGrow:    {Name: "grow", Signature: "i:i"},
	fnNest:    {Name: "nest", Signature: "i:i"},
	fnMalloc:  {Name: "malloc", Signature: "i:i"},
	fnRecurse: {Name: "recurse", Signature: ":"},
	fnPanic:   {Name: "panic", Signature: ":"},
	fnUnknown: {Name: "unknown", Signature: ":"},
	fnAbsent:  {Name: "absent", Signature: ":"},
}

const testModule = `(module
 (import "env" "twice" (func $twice (param i32) (result i32)))
 (import "env" "alloc" (func $alloc (param i32) (result i32)))
 (import "env" "boom" (func $boom))
 (import "other" "missing" (func $missing (param i32 i64) (result f64)))
 (memory (export "memory") 1)
 (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
 (func (export "host") (param i32) (result i32) (call $twice (local.get 0)))
 (func $spin (export "spin") (loop (br 0)))
 (func $inner unreachable)
 (func (export "trap") (call $inner))
 (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
 (func (export "nest") (param i32) (result i32) (call $alloc (local.get 0)))
 (func (export "malloc") (param i32) (result i32)
   (if (i32.eq (local.get 0) (i32.const 13)) (then unreachable))
   (drop (memory.grow (i32.const 1)))
   (i32.const 1024))
 (func $recurse (export "recurse") (call $recurse))
 (func (export "panic") (call $boom))
 (func (export "unknown") (drop (call $missing (i32.const 1) (i64.const 2)))))`

func testHost() []engine.HostFunc {
	return []engine.HostFunc{
		{
			Module: "env", Name: "twice", Signature: "i:i",
			Call: func(_ *engine.Instance, a engine.Args) (uint64, error) { return uint64(2 * a.U32(0)), nil },
		},
		{
			Module: "env", Name: "alloc", Signature: "i:i",
			Call: func(in *engine.Instance, a engine.Args) (uint64, error) {
				before := len(in.Memory())
				p, err := in.Call(fnMalloc, uint64(a.U32(0)))
				if err != nil {
					return 0, err
				}
				if len(in.Memory()) != before+65536 {
					return 0, errors.New("the grown memory is not seen")
				}
				in.Memory()[p] = 42
				return p, nil
			},
		},
		{
			Module: "env", Name: "boom", Signature: ":",
			Call: func(*engine.Instance, engine.Args) (uint64, error) { panic("host bug") },
		},
	}
}

func newEngine(tb testing.TB) *engine.Engine {
	tb.Helper()
	e, err := engine.New(engine.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(e.Close)
	return e
}

func link(tb testing.TB, e *engine.Engine, wat string) *engine.Pre {
	tb.Helper()
	wasm, err := engine.FromText(wat)
	if err != nil {
		tb.Fatal(err)
	}
	m, err := e.Compile(wasm)
	if err != nil {
		tb.Fatal(err)
	}
	defer m.Close()
	p, err := m.Link(testHost(), testExports)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.Close)
	return p
}

func instance(tb testing.TB, p *engine.Pre, l engine.Limits) *engine.Instance {
	tb.Helper()
	in, err := p.New(l, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(in.Close)
	return in
}

func TestCall(t *testing.T) {
	t.Parallel()
	p := link(t, newEngine(t), testModule)
	in := instance(t, p, engine.Limits{})
	for _, tc := range []struct {
		name string
		fn   int
		args []uint64
		want uint32
	}{
		{"guest only", fnAdd, []uint64{40, 2}, 42},
		{"i32 wraps", fnAdd, []uint64{0xffffffff, 2}, 1},
		{"host function", fnHost, []uint64{21}, 42},
		{"host function that calls the guest", fnNest, []uint64{8}, 1024},
	} {
		got, err := in.Call(tc.fn, tc.args...)
		if err != nil || uint32(got) != tc.want {
			t.Errorf("%s: got %d, %v; want %d", tc.name, uint32(got), err, tc.want)
		}
	}
	if in.Memory()[1024] != 42 {
		t.Error("what the host function wrote after the memory moved is lost")
	}
	if p.Has(fnAbsent) || !p.Has(fnAdd) || p.Params(fnAdd) != 2 {
		t.Error("Has or Params is wrong")
	}
}

func TestTraps(t *testing.T) {
	t.Parallel()
	p := link(t, newEngine(t), testModule)
	for _, tc := range []struct {
		name   string
		fn     int
		args   []uint64
		reason engine.Reason
		text   string
	}{
		{"unreachable", fnTrap, nil, engine.Unreachable, "inner"},
		{"stack overflow", fnRecurse, nil, engine.StackOverflow, "call stack exhausted"},
		{"panic of a host function", fnPanic, nil, engine.HostError, "host bug"},
		{"unknown import", fnUnknown, nil, engine.HostError, `"other" "missing"`},
		{"trap inside a nested call", fnNest, []uint64{13}, engine.HostError, "malloc"},
	} {
		in := instance(t, p, engine.Limits{})
		_, err := in.Call(tc.fn, tc.args...)
		var trap *engine.Trap
		if !errors.As(err, &trap) {
			t.Errorf("%s: got %v, want a trap", tc.name, err)
			continue
		}
		if trap.Reason != tc.reason {
			t.Errorf("%s: reason %q, want %q", tc.name, trap.Reason, tc.reason)
		}
		if !strings.Contains(trap.Error()+trap.Message, tc.text) {
			t.Errorf("%s: no %q in %q and %q", tc.name, tc.text, trap.Error(), trap.Message)
		}
		if strings.Contains(trap.Error(), "\n") {
			t.Errorf("%s: more than one line: %q", tc.name, trap.Error())
		}
		if _, again := in.Call(fnAdd, 1, 2); !errors.Is(again, err) || in.Fault() == nil {
			t.Errorf("%s: the instance is used after it failed: %v", tc.name, again)
		}
	}
}

func TestDeadline(t *testing.T) {
	p := link(t, newEngine(t), testModule)
	for range 3 { // The first also wakes the sleeping ticker.
		in := instance(t, p, engine.Limits{Deadline: 50 * time.Millisecond})
		start := time.Now()
		_, err := in.Call(fnSpin)
		took := time.Since(start)
		var trap *engine.Trap
		if !errors.As(err, &trap) || trap.Reason != engine.DeadlineOver {
			t.Fatalf("got %v, want the deadline", err)
		}
		if !strings.Contains(trap.Message, "spin") {
			t.Errorf("no name of the function in %q", trap.Message)
		}
		if took < 50*time.Millisecond {
			t.Errorf("ended after %v, before the deadline of 50 ms", took)
		}
		if took > 500*time.Millisecond { // 20 ms on an idle machine.
			t.Errorf("ended after %v", took)
		}
		t.Logf("deadline of 50 ms ended after %v", took)
	}
}

func TestDeadlineCountsFromEachCall(t *testing.T) {
	t.Parallel()
	in := instance(t, link(t, newEngine(t), testModule), engine.Limits{Deadline: 30 * time.Millisecond})
	for end := time.Now().Add(90 * time.Millisecond); time.Now().Before(end); {
		if _, err := in.Call(fnAdd, 1, 2); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	p := link(t, newEngine(t), testModule)
	in := instance(t, p, engine.Limits{MemoryBytes: 4 << 16})
	if got, err := in.Call(fnGrow, 3); err != nil || uint32(got) != 1 {
		t.Errorf("growing up to the limit: %d, %v", int32(got), err)
	}
	if got, err := in.Call(fnGrow, 1); err != nil || int32(got) != -1 {
		t.Errorf("growing beyond the limit: %d, %v", int32(got), err)
	}
	if len(in.Memory()) != 4<<16 {
		t.Errorf("memory is %d bytes", len(in.Memory()))
	}
	if _, err := p.New(engine.Limits{MemoryBytes: 1000}, nil); err == nil {
		t.Error("an instance that starts above its limit was made")
	}
}

func TestStartSection(t *testing.T) {
	t.Parallel()
	var size int
	host := []engine.HostFunc{{
		Module: "env", Name: "f", Signature: "i:",
		Call: func(in *engine.Instance, _ engine.Args) (uint64, error) {
			size = len(in.Memory())
			return 7, nil
		},
	}}
	e := newEngine(t)
	compile := func(wat string) *engine.Pre {
		wasm, err := engine.FromText(wat)
		if err != nil {
			t.Fatal(err)
		}
		m, err := e.Compile(wasm)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Close)
		p, err := m.Link(host, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		return p
	}
	instance(t, compile(`(module (import "env" "f" (func $f (param i32))) (memory (export "memory") 2)
		(func $s (call $f (i32.const 1))) (start $s))`), engine.Limits{})
	if size != 2<<16 {
		t.Errorf("the host function saw %d bytes of memory", size)
	}
	spin := compile(`(module (func $s (loop (br 0))) (start $s))`)
	if _, err := spin.New(engine.Limits{Deadline: 20 * time.Millisecond}, nil); err == nil {
		t.Error("a start section that loops has no deadline")
	}
}

func TestBadModules(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	for _, tc := range []struct{ name, wat, want string }{
		{
			"import of another type", `(module (import "env" "twice" (func (param i64) (result i32))))`,
			`import "env" "twice": has type "I:i", the host's is "i:i"`,
		},
		{"imported memory", `(module (import "env" "memory" (memory 1)))`, `import "env" "memory": not a function`},
		{
			"export of another type", `(module (func (export "add") (param i32) (result i32) (local.get 0)))`,
			`export "add": has type "i:i", want "ii:i"`,
		},
		{"shared memory", `(module (memory (export "memory") 1 2 shared))`, "threads"},
		{"64-bit memory", `(module (memory (export "memory") i64 1))`, "memory64"},
	} {
		wasm, err := engine.FromText(tc.wat)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		m, err := e.Compile(wasm)
		if err == nil {
			_, err = m.Link(testHost(), testExports)
			m.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
	for _, bad := range [][]byte{nil, []byte("\x00asm"), []byte("not wasm at all")} {
		if _, err := e.Compile(bad); err == nil {
			t.Errorf("%q compiled", bad)
		}
		if _, err := e.Load(bad); err == nil {
			t.Errorf("%q loaded", bad)
		}
	}
}

func TestSaveLoad(t *testing.T) {
	t.Parallel()
	e := newEngine(t)
	wasm, err := engine.FromText(`(module (func (export "add") (param i32 i32) (result i32)
		(i32.mul (local.get 0) (local.get 1))))`)
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
	loaded, err := e.Load(code)
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	p, err := loaded.Link(nil, testExports)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got, err := instance(t, p, engine.Limits{}).Call(fnAdd, 6, 7); err != nil || got != 42 {
		t.Errorf("got %d, %v", got, err)
	}
}

// TestHeadersAgree compiles testdata/check.c: our declarations of the C API against the headers that
// come with the library that is linked.
func TestHeadersAgree(t *testing.T) {
	t.Parallel()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no cc")
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}",
		"github.com/bytecodealliance/wasmtime-go/v39").Output()
	if err != nil {
		t.Fatal(err)
	}
	include := filepath.Join(strings.TrimSpace(string(out)), "build", "include")
	cmd := exec.CommandContext(t.Context(), cc, "-std=gnu11", "-Wall", "-Werror", "-fsyntax-only",
		"-I", include, filepath.Join("testdata", "check.c"))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
}
