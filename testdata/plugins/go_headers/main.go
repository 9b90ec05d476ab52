//go:build wasip1

// Command go_headers adds the header x-from: go to requests. It uses the ABI without an SDK: what Go's
// own toolchain needs of a host (goroutines, garbage collection, WASI) is what it is for.
package main

import (
	"runtime"
	"unsafe"
)

func main() {}

//go:wasmimport env proxy_add_header_map_value
func addHeader(kind uint32, key unsafe.Pointer, keyLen uint32, value unsafe.Pointer, valueLen uint32) uint32

//go:wasmimport env proxy_log
func log(level uint32, message unsafe.Pointer, size uint32) uint32

// kept holds what the host allocated until it is read: the collector knows nothing of the host.
var kept = map[unsafe.Pointer][]byte{}

//go:wasmexport proxy_abi_version_0_2_1
func abiVersion() {}

//go:wasmexport proxy_on_memory_allocate
func allocate(size uint32) unsafe.Pointer {
	b := make([]byte, size)
	p := unsafe.Pointer(unsafe.SliceData(b))
	kept[p] = b
	return p
}

//go:wasmexport proxy_on_vm_start
func vmStart(_, _ uint32) uint32 {
	done := make(chan string)
	go func() { done <- "started by a goroutine" }()
	text(2, <-done)
	return 1
}

//go:wasmexport proxy_on_request_headers
func requestHeaders(_, count, _ uint32) uint32 {
	for range count {
		_ = make([]byte, 1024)
	}
	runtime.GC()
	key, value := []byte("x-from"), []byte("go")
	addHeader(0, unsafe.Pointer(&key[0]), uint32(len(key)), unsafe.Pointer(&value[0]), uint32(len(value)))
	return 0
}

func text(level uint32, s string) {
	b := []byte(s)
	log(level, unsafe.Pointer(&b[0]), uint32(len(b)))
}
