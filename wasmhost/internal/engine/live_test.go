package engine

import (
	"errors"
	"testing"
)

// Not parallel, and in a package of its own name only to run before the parallel tests resume.
func TestLive(t *testing.T) {
	before := Live()
	e, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	wasm, err := FromText(`(module (memory (export "memory") 1))`)
	if err != nil {
		t.Fatal(err)
	}
	m, err := e.Compile(wasm)
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Link(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []*Instance
	for range 20 {
		in, err := p.New(Limits{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, in)
	}
	want := before
	want.Engines++
	want.Modules++
	want.Pres++
	want.Instances += 20
	if got := Live(); got != want {
		t.Errorf("open: %+v, want %+v", got, want)
	}
	for range 2 { // Each Close is idempotent.
		for _, in := range all {
			in.Close()
		}
		p.Close()
		m.Close()
		e.Close()
	}
	if got := Live(); got != before {
		t.Errorf("after closing: %+v, want %+v", got, before)
	}
	if _, err := all[0].Call(0); !errors.Is(err, ErrClosed) {
		t.Errorf("call of a closed instance: %v", err)
	}
}
