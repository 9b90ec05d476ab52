package engine_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sidecar/wasmhost/internal/engine"
)

// stateful keeps state in its memory, in globals of each type and nowhere else.
const stateful = `(module
 (memory (export "memory") 2)
 (global $i (mut i32) (i32.const 1)) (global $l (mut i64) (i64.const 2)) (global $f (mut f32) (f32.const 3))
 (global $d (mut f64) (f64.const 4)) (global $v (mut v128) (v128.const i32x4 1 2 3 4)) (global $c i32 (i32.const 7))
 (data (i32.const 70000) "data")
 (func (export "put") (param $at i32) (param $v i32) (result i32)
  (i32.store8 (local.get $at) (local.get $v))
  (global.set $i (i32.add (global.get $i) (local.get $v)))
  (global.set $l (i64.add (global.get $l) (i64.extend_i32_u (local.get $v))))
  (global.set $f (f32.const 9)) (global.set $d (f64.const 9)) (global.set $v (v128.const i32x4 9 9 9 9))
  (i32.const 0))
 (func (export "sum") (param $at i32) (result i32)
  (i32.add (i32.add (i32.load8_u (local.get $at)) (global.get $i))
   (i32.add (i32.add (i32.wrap_i64 (global.get $l)) (i32.trunc_f32_s (global.get $f)))
    (i32.add (i32.trunc_f64_s (global.get $d)) (i32x4.extract_lane 0 (global.get $v))))))
 (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))`

func fresh(t testing.TB, p *engine.Pre) *engine.Instance {
	t.Helper()
	in, err := p.New(engine.Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.Close)
	return in
}

func statefulPre(t testing.TB) *engine.Pre {
	t.Helper()
	e, err := engine.New(engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	wasm, err := engine.FromText(stateful)
	if err != nil {
		t.Fatal(err)
	}
	wasm, err = engine.Instrument(wasm)
	if err != nil {
		t.Fatal(err)
	}
	m, err := e.Compile(wasm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	p, err := m.Link(nil, []engine.Export{{Name: "put", Signature: "ii:i"}, {Name: "sum", Signature: "i:i"}, {Name: "grow", Signature: "i:i"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

const (
	fnPut = iota
	fnSum
	fnLarger
)

func calls(t testing.TB, in *engine.Instance, fn int, args ...uint64) uint32 {
	t.Helper()
	r, err := in.Call(fn, args...)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(r)
}

func TestSnapshot(t *testing.T) {
	t.Parallel()
	p := statefulPre(t)
	template := fresh(t, p)
	calls(t, template, fnPut, 100, 5)
	s, err := template.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	want := calls(t, template, fnSum, 100)
	in := fresh(t, p)
	if got := calls(t, in, fnSum, 100); got == want {
		t.Fatal("a fresh instance is as the one that has run")
	}
	if err := in.Adopt(s); err != nil {
		t.Fatal(err)
	}
	image := bytes.Clone(in.Memory())
	for i := range 50 {
		if got := calls(t, in, fnSum, 100); got != want {
			t.Fatalf("round %d: %d, want %d", i, got, want)
		}
		if in.Differs(s) {
			t.Fatalf("round %d: reading has changed it", i)
		}
		for _, at := range []uint64{100, 5000, 70001, 131071, uint64(i * 997)} {
			calls(t, in, fnPut, at, 77)
		}
		if !in.Differs(s) {
			t.Fatal("nothing has changed")
		}
		if err := in.Restore(s); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(in.Memory()[:len(image)], image) {
			t.Fatal("the memory is not what it was")
		}
	}
	for range 5 { // The memory is as large as it was, and what is new is empty, as the module sees it.
		if got := calls(t, in, fnLarger, 1); got != 2 {
			t.Fatalf("the memory had %d pages", got)
		}
		if got := calls(t, in, fnSum, 131072); got != want-5 {
			t.Fatalf("a new page isn't empty: %d, want %d", got, want-5)
		}
		calls(t, in, fnPut, 131072, 99)
		if err := in.Restore(s); err != nil {
			t.Fatal(err)
		}
	}
	if got := calls(t, in, fnLarger, 70000); int32(got) != -1 {
		t.Errorf("grown by 70,000 pages: %d", int32(got))
	}
	calls(t, in, fnLarger, 300)
	if err := in.Restore(s); err != engine.ErrGrown { //nolint:errorlint // as returned
		t.Errorf("grown: %v", err)
	}
	// A template that has grown, and an instance that has to follow.
	calls(t, template, fnLarger, 3)
	calls(t, template, fnPut, 5*65536-1, 9)
	large, err := template.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer large.Release()
	follower := fresh(t, p)
	if err := follower.Adopt(large); err != nil {
		t.Fatal(err)
	}
	if got, want := calls(t, follower, fnSum, 5*65536-1), calls(t, template, fnSum, 5*65536-1); got != want {
		t.Errorf("%d, want %d", got, want)
	}
}

func TestInstrument(t *testing.T) {
	t.Parallel()
	for name, wat := range map[string]string{
		"of 64 bits": `(module (memory i64 1) (func))`, "are no functions": `(module (type (struct)))`,
		"changes its tables": `(module (table 1 funcref) (func (export "f") (table.set (i32.const 0) (ref.null func))))`,
		"drops segments":     `(module (memory 1) (data $d "x") (func (data.drop $d)))`,
		"is a reference":     `(module (global (mut funcref) (ref.null func)))`,
	} {
		wasm, err := engine.FromText(wat)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := engine.Instrument(wasm); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{"", "\x00asm", "\x00asm\x0d\x00\x01\x00", "\x00asm\x01\x00\x00\x00\x06\x05\x01"} {
		if _, err := engine.Instrument([]byte(bad)); err == nil {
			t.Errorf("%q is instrumented", bad)
		}
	}
	e, err := engine.New(engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	files, err := filepath.Glob("../../../testdata/plugins/*/*.wasm")
	if err != nil || len(files) == 0 {
		t.Skip("no plugins")
	}
	for _, f := range files {
		wasm, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if wasm, err = engine.Instrument(wasm); err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		m, err := e.Compile(wasm)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		m.Close()
	}
}

func FuzzInstrument(f *testing.F) {
	for _, wat := range []string{stateful, `(module)`, `(module (global (mut i32) (i32.const 1)))`, testModule} {
		wasm, err := engine.FromText(wat)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wasm)
		f.Add(wasm[:len(wasm)*2/3])
	}
	e, err := engine.New(engine.Options{})
	if err != nil {
		f.Fatal(err)
	}
	defer e.Close()
	f.Fuzz(func(t *testing.T, wasm []byte) {
		out, err := engine.Instrument(wasm)
		if err != nil {
			return
		}
		before, err := e.Compile(wasm)
		if err != nil {
			return
		}
		defer before.Close()
		for _, x := range before.Exports { // A name that is taken is refused when it is compiled.
			if strings.HasPrefix(x.Name, "\x00sidecar.") {
				return
			}
		}
		after, err := e.Compile(out)
		if err != nil {
			t.Fatalf("a valid module is none any more: %v", err)
		}
		after.Close()
	})
}

func BenchmarkRestore(b *testing.B) {
	p := statefulPre(b)
	in := fresh(b, p)
	s, err := in.Snapshot()
	if err != nil {
		b.Fatal(err)
	}
	defer s.Release()
	if err := in.Adopt(s); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		calls(b, in, fnPut, 100, 5)
		calls(b, in, fnPut, 70000, 5)
		if err := in.Restore(s); err != nil {
			b.Fatal(err)
		}
	}
}
