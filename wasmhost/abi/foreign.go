package abi

import (
	"bytes"
	"compress/zlib"
	"io"
)

// maxInflated bounds what uncompress may make of its argument.
const maxInflated = 16 << 20

// foreignFunc is a function that guests call by name. Its argument shares the guest's memory.
type foreignFunc func(c call, argument []byte) ([]byte, Status)

func foreign(name string) foreignFunc {
	switch name {
	case "clear_route_cache":
		return foreignClearRouteCache
	case "compress":
		return foreignCompress
	case "uncompress":
		return foreignUncompress
	default:
		return nil
	}
}

// callForeignFunction hands out the result, or drops it when the guest gives no place for it.
func callForeignFunction(c call) (Status, error) {
	name, ok1 := c.text(0)
	argument, ok2 := c.bytes(2)
	if !ok1 || !ok2 {
		return InvalidMemoryAccess, nil
	}
	f := foreign(name)
	if f == nil {
		c.vm.warnOnce("there is no foreign function " + name)
		return NotFound, nil
	}
	data, s := f(c, argument)
	if s != OK || c.a.U32(4) == 0 || c.a.U32(5) == 0 {
		return s, nil
	}
	return c.result(4, data)
}

func foreignClearRouteCache(c call, _ []byte) ([]byte, Status) {
	if c.vm.effective != nil {
		c.vm.effective.ClearRouteCache()
	}
	return nil, OK
}

func foreignCompress(_ call, argument []byte) ([]byte, Status) {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	if _, err := w.Write(argument); err != nil {
		return nil, SerializationFailure
	}
	if err := w.Close(); err != nil {
		return nil, SerializationFailure
	}
	return b.Bytes(), OK
}

func foreignUncompress(_ call, argument []byte) ([]byte, Status) {
	r, err := zlib.NewReader(bytes.NewReader(argument))
	if err != nil {
		return nil, SerializationFailure
	}
	data, err := io.ReadAll(io.LimitReader(r, maxInflated+1))
	if err != nil || len(data) > maxInflated {
		return nil, SerializationFailure
	}
	return data, OK
}
