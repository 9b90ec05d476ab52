//go:build wasip1

// Command main is the plugin of ../README.md, written to the ABI.
package main

import (
	"encoding/binary"
	"strconv"
	"unsafe"
)

func main() {}

//go:wasmimport env proxy_log
func proxyLog(level uint32, message unsafe.Pointer, size uint32) uint32

//go:wasmimport env proxy_get_buffer_bytes
func proxyGetBuffer(kind, start, size uint32, data, length unsafe.Pointer) uint32

//go:wasmimport env proxy_get_header_map_pairs
func proxyGetPairs(kind uint32, data, length unsafe.Pointer) uint32

//go:wasmimport env proxy_get_header_map_value
func proxyGetHeader(kind uint32, key unsafe.Pointer, keyLen uint32, data, length unsafe.Pointer) uint32

//go:wasmimport env proxy_add_header_map_value
func proxyAddHeader(kind uint32, key unsafe.Pointer, keyLen uint32, value unsafe.Pointer, valueLen uint32) uint32

//go:wasmimport env proxy_replace_header_map_value
func proxyReplaceHeader(kind uint32, key unsafe.Pointer, keyLen uint32, value unsafe.Pointer, valueLen uint32) uint32

//go:wasmimport env proxy_remove_header_map_value
func proxyRemoveHeader(kind uint32, key unsafe.Pointer, keyLen uint32) uint32

//go:wasmimport env proxy_send_local_response
func proxySendResponse(status uint32, details unsafe.Pointer, detailsLen uint32, body unsafe.Pointer, bodyLen uint32,
	headers unsafe.Pointer, headersLen uint32, grpc int32) uint32

const (
	requestHeaders  = 0
	responseHeaders = 2
	pluginConfig    = 7
	info            = 2
)

// kept holds what the host has allocated until it is read: the collector knows nothing of the host.
var (
	kept = map[uint32][]byte{}
	tag  = "none"
)

//go:wasmexport proxy_abi_version_0_2_1
func abiVersion() {}

//go:wasmexport proxy_on_memory_allocate
func allocate(size uint32) unsafe.Pointer {
	b := make([]byte, max(size, 1))
	p := unsafe.Pointer(unsafe.SliceData(b))
	kept[uint32(uintptr(p))] = b
	return p
}

// taken is what the host has written to memory that allocate gave it.
func taken(p, n uint32) []byte {
	b := kept[p]
	delete(kept, p)
	return b[:n]
}

func bytes(s string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(s)), uint32(len(s))
}

//go:wasmexport proxy_on_configure
func configure(_, size uint32) uint32 {
	if size > 0 {
		var p, n uint32
		if proxyGetBuffer(pluginConfig, 0, size, unsafe.Pointer(&p), unsafe.Pointer(&n)) == 0 {
			tag = string(taken(p, n))
		}
	}
	return 1
}

//go:wasmexport proxy_on_request_headers
func onRequestHeaders(_, _, _ uint32) uint32 {
	var p, n uint32
	key, keyLen := bytes(":path")
	if proxyGetHeader(requestHeaders, key, keyLen, unsafe.Pointer(&p), unsafe.Pointer(&n)) == 0 && string(taken(p, n)) == "/hello" {
		reply()
		return 1
	}
	if proxyGetPairs(requestHeaders, unsafe.Pointer(&p), unsafe.Pointer(&n)) != 0 {
		return 0
	}
	count := binary.LittleEndian.Uint32(taken(p, n))
	add(requestHeaders, "x-header-count", strconv.Itoa(int(count)))
	key, keyLen = bytes("x-tag")
	value, valueLen := bytes(tag)
	proxyReplaceHeader(requestHeaders, key, keyLen, value, valueLen)
	key, keyLen = bytes("x-secret")
	proxyRemoveHeader(requestHeaders, key, keyLen)
	return 0
}

//go:wasmexport proxy_on_response_headers
func onResponseHeaders(_, _, _ uint32) uint32 {
	add(responseHeaders, "x-plugin", tag)
	return 0
}

//go:wasmexport proxy_on_log
func onLog(_ uint32) {
	p, n := bytes("done")
	proxyLog(info, p, n)
}

func add(kind uint32, name, text string) {
	key, keyLen := bytes(name)
	value, valueLen := bytes(text)
	proxyAddHeader(kind, key, keyLen, value, valueLen)
}

func reply() {
	headers := binary.LittleEndian.AppendUint32(nil, 1)
	headers = binary.LittleEndian.AppendUint32(headers, uint32(len("x-tag")))
	headers = binary.LittleEndian.AppendUint32(headers, uint32(len(tag)))
	headers = append(append(headers, "x-tag\x00"...), tag...)
	headers = append(headers, 0)
	h, hn := bytes(string(headers))
	b, bn := bytes("hello\n")
	proxySendResponse(200, nil, 0, b, bn, h, hn, -1)
}
