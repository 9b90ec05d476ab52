package engine_test

import (
	"testing"
	"time"

	"sidecar/wasmhost/internal/engine"
)

func BenchmarkGuestCall(b *testing.B) {
	in := instance(b, link(b, newEngine(b), testModule), engine.Limits{MemoryBytes: 1 << 20, Deadline: time.Second})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := in.Call(fnAdd, 1, 2); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHostCall(b *testing.B) {
	in := instance(b, link(b, newEngine(b), testModule), engine.Limits{Deadline: time.Second})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := in.Call(fnHost, 1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkInstance(b *testing.B) {
	p := link(b, newEngine(b), testModule)
	for b.Loop() {
		in, err := p.New(engine.Limits{MemoryBytes: 1 << 20}, nil)
		if err != nil {
			b.Fatal(err)
		}
		in.Close()
	}
}
