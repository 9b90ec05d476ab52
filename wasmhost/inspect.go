package wasmhost

import (
	"time"

	"sidecar/wasmhost/abi"
	"sidecar/wasmhost/wasi"
)

// Inspection is what can be said of a module without running it.
type Inspection struct {
	Version          abi.Version
	Imports, Exports []abi.Symbol
	CompileTime      time.Duration
	CompiledBytes    int
	// Refused is why a plugin of this code would not start; nil if nothing speaks against it so far.
	Refused error
}

// Inspect compiles and links a module. It blocks for as long as that takes. The error is that of code
// that doesn't compile.
func (h *Host) Inspect(code []byte) (*Inspection, error) {
	start := time.Now()
	m, err := h.engine.Compile(code)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	out := &Inspection{CompileTime: time.Since(start)}
	if saved, err := m.Save(); err == nil {
		out.CompiledBytes = len(saved)
	}
	further := wasi.Functions(func(string) bool { return true })
	out.Version, out.Imports, out.Exports = abi.Inspect(m, further...)
	linked, err := abi.Link(m, nil, further...)
	if err != nil {
		out.Refused = err
		return out, nil
	}
	linked.Close()
	return out, nil
}

// MaxCodeBytes is the largest module that is taken.
const MaxCodeBytes = maxCodeBytes
