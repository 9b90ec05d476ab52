package abi_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"sidecar/api/header"
	"sidecar/wasmhost/abi"
	"sidecar/wasmhost/internal/engine"
)

// dispatcher is a module whose on_tick calls the functions that a script in its memory names: from 1024
// on, a word with the function's number and twelve with the arguments. Word 0 ends it.
func dispatcher() string {
	var imports, cases, blocks strings.Builder
	n := 0
	abi.EachFunction(func(name, params string) {
		kinds, args := "", ""
		for i, p := range params {
			if p == 'I' {
				kinds += " (param i64)"
				args += fmt.Sprintf(" (i64.load (i32.add (local.get $p) (i32.const %d)))", 4+4*i)
				continue
			}
			kinds += " (param i32)"
			args += fmt.Sprintf(" (i32.load (i32.add (local.get $p) (i32.const %d)))", 4+4*i)
		}
		fmt.Fprintf(&imports, " (import \"env\" %q (func $f%d%s (result i32)))\n", name, n, kinds)
		fmt.Fprintf(&cases, "  (if (i32.eq (i32.load (local.get $p)) (i32.const %d)) (then (drop (call $f%d%s))))\n", n+1, n, args)
		n++
	})
	_ = blocks
	return `(module
` + imports.String() + ` (memory (export "memory") 2 16)
 (global $heap (mut i32) (i32.const 65536))
 (func (export "proxy_abi_version_0_2_1"))
 (func (export "malloc") (param $n i32) (result i32) (local $p i32)
  (local.set $p (global.get $heap))
  (global.set $heap (i32.add (local.get $p) (local.get $n)))
  (if (i32.gt_u (global.get $heap) (i32.const 131072)) (then (global.set $heap (i32.const 65536)) (return (i32.const 0))))
  (local.get $p))
 (func (export "proxy_on_tick") (param i32) (local $p i32)
  (local.set $p (i32.const 1024))
  (loop $next
` + cases.String() + `  (local.set $p (i32.add (local.get $p) (i32.const 52)))
   (br_if $next (i32.and (i32.ne (i32.load (local.get $p)) (i32.const 0)) (i32.lt_u (local.get $p) (i32.const 60000)))))))`
}

// FuzzHostCalls: whatever a guest calls the host with, the host answers or traps the guest, and keeps no
// more than its bounds say.
func FuzzHostCalls(f *testing.F) {
	e, err := engine.New(engine.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(e.Close)
	m, err := module(e, dispatcher(), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(m.Close)
	n := 0
	abi.EachFunction(func(_, params string) {
		n++
		for _, args := range [][]uint32{
			make([]uint32, 12),
			{0, 60000, 5, 60010, 5, 60020, 5, 60030, 5, 8, 12, 16},
			{60000, 10, 60000, 10, 60000, 10, 8, 12, 8, 12, 8, 12},
			{1 << 31, 1 << 31, 1<<32 - 1, 1<<32 - 1, 1 << 30, 1 << 30, 1, 2, 3, 4, 5, 6},
		} {
			seed := binary.LittleEndian.AppendUint32(nil, uint32(n))
			for _, a := range args {
				seed = binary.LittleEndian.AppendUint32(seed, a)
			}
			f.Add(seed, "\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00a\x00b\x00")
		}
		_ = params
	})
	f.Fuzz(func(t *testing.T, script []byte, data string) {
		h := newHost()
		vm, err := m.NewVM(h, engine.Limits{MemoryBytes: 1 << 20, Deadline: 200 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		defer vm.Close()
		vm.Contexts[1] = h
		memory := abi.Memory(vm)
		copy(memory[1024:60000], script)
		copy(memory[60000:65536], data)
		if err := vm.Tick(h, 1); err != nil && vm.Fault() == nil {
			t.Fatalf("%v, and no fault", err)
		}
		if h.request.Len() > 10000 || h.request.Bytes() > 8<<20 || h.body.Len() > 128<<20 {
			t.Fatalf("kept: %d headers of %d bytes, %d of body", h.request.Len(), h.request.Bytes(), h.body.Len())
		}
	})
}

// TestBounds_Map and its like have a guest add for ever.
func TestBounds_Map(t *testing.T) {
	t.Parallel()
	h := newHost()
	for range 9000 {
		h.request.Add("x", "y")
	}
	s, _, _ := run(t, h, hostCase{fn: "proxy_add_header_map_value", data: "ab", args: []int64{0, 256, 1, 257, 1}})
	if s != abi.InternalFailure {
		t.Errorf("too many fields: %v", s)
	}
	h.request = new(header.Map)
	h.request.Add("x", strings.Repeat("y", 4<<20))
	if s, _, _ = run(t, h, hostCase{fn: "proxy_replace_header_map_value", data: "ab", args: []int64{0, 256, 1, 257, 1}}); s != abi.InternalFailure {
		t.Errorf("too many bytes: %v", s)
	}
}

func TestBounds_Body(t *testing.T) {
	t.Parallel()
	h := newHost()
	h.body.Append(make([]byte, 64<<20))
	s, _, _ := run(t, h, hostCase{fn: "proxy_set_buffer_bytes", data: "a", args: []int64{0, 1 << 30, 0, 256, 1}})
	if s != abi.InternalFailure {
		t.Errorf("%v", s)
	}
	h.body.Reset()
}

func TestBounds_Pairs(t *testing.T) {
	t.Parallel()
	h := newHost()
	for name, c := range map[string]struct {
		size int64
		want abi.Status
	}{
		"1 GiB outside of memory": {1 << 30, abi.InvalidMemoryAccess},
		"cut short":               {20, abi.BadArgument},
	} {
		s, _, _ := run(t, h, hostCase{
			fn: "proxy_set_header_map_pairs", data: "\x00\x04\x00\x00\xff\xff\xff\x3f\xff\xff\xff\x3f", args: []int64{0, 256, c.size},
		})
		if s != c.want {
			t.Errorf("%s: %v, want %v", name, s, c.want)
		}
	}
	if v, ok := h.request.Get("x-a"); !ok || v != "1" {
		t.Error("the map was changed")
	}
}
