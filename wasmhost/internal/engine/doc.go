// Package engine owns every wasmtime C object of the process: engine, module, instance_pre and store
// with its instance. It is the only package that imports "C", and the wasmtime-go module is imported
// for one thing, the pinned static library that its cgo flags link.
//
// Objects are closed explicitly and in this order: instances, their Pre, the Module, the Engine.
// Nothing has a finalizer (one that runs while a raw pointer is in use frees it under the user's
// feet); Live tells tests what is still open.
//
// An Instance is used by one goroutine at a time, any one; the caller sees to that. A guest call
// runs on the calling goroutine and blocks it, with its thread, until the guest returns, traps or
// passes its deadline. Neither a guest call nor a host call allocates on the Go heap.
//
// Limitations: one memory, exported as "memory"; parameters and results of called functions are i32
// or i64, at most MaxArgs; bulk memory operations and host calls are not interrupted by a deadline.
package engine

// The static library comes with this module; the package's Go API is not used.
import _ "github.com/bytecodealliance/wasmtime-go/v39"
