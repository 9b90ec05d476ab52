package abi

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
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
	case "verify_signature":
		return foreignVerify
	case "sign":
		return foreignSign
	case "set_envoy_filter_state":
		return foreignSetState
	case "declare_property":
		return foreignDeclare
	case "expr_create":
		return exprCreate
	case "expr_evaluate":
		return exprEvaluate
	case "expr_delete":
		return exprDelete
	case "sidecar_get_header_map_values":
		return foreignHeaderValues
	case "sidecar_delete_shared_data":
		return foreignDeleteShared
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

// Declared is what declare_property said of a property before it is set.
type Declared struct {
	ReadOnly bool
	Text     bool // expressions see a string, not bytes
}

// maxDeclared bounds the declarations of one VM; Envoy has no bound.
const maxDeclared = 1024

// connectionSpan is the life span of what outlives a stream.
const connectionSpan = 2

// foreignDeclare: a second declaration of a name is BadArgument.
// DIVERGES(wasm-property-span): a property with the life span of the connection is refused, since
// streams of one connection run at the same time here.
func foreignDeclare(c call, argument []byte) ([]byte, Status) {
	var name string
	var d Declared
	var span uint64
	err := eachField(argument, func(n protowire.Number, number uint64, data []byte) {
		switch n {
		case 1:
			name = string(data)
		case 2:
			d.ReadOnly = number != 0
		case 3:
			d.Text = number == 1
		case 5:
			span = number
		default:
		}
	})
	_, again := c.vm.declared[name]
	switch {
	case err != nil || again || len(c.vm.declared) >= maxDeclared || len(name) > maxName:
		return nil, BadArgument
	case span == connectionSpan:
		c.vm.warnOnce("declare_property: the life span of a connection is not supported")
		return nil, BadArgument
	}
	c.vm.own()
	if c.vm.declared == nil {
		c.vm.declared = map[string]Declared{}
	}
	c.vm.declared[name] = d
	return nil, OK
}

func foreignSetState(c call, argument []byte) ([]byte, Status) {
	var name string
	var value []byte
	var span uint64
	err := eachField(argument, func(n protowire.Number, number uint64, data []byte) {
		switch n {
		case 1:
			name = string(data)
		case 2:
			value = data
		case 3:
			span = number
		default:
		}
	})
	switch {
	case err != nil:
		return nil, BadArgument
	case c.vm.effective == nil:
		return nil, NotFound
	case span == connectionSpan:
		c.vm.warnOnce("set_envoy_filter_state: the life span of a connection is not supported")
		return nil, BadArgument
	}
	return nil, c.vm.effective.SetFilterState(name, value)
}

// foreignHeaderValues is our own: all values of a header, which the ABI's getter gives the first of. The
// argument is the map's number in four bytes and the name, the result a list in the form of pairs.
func foreignHeaderValues(c call, argument []byte) ([]byte, Status) {
	if len(argument) < 4 {
		return nil, BadArgument
	}
	m, s := c.readMap(MapType(binary.LittleEndian.Uint32(argument)))
	if m == nil {
		if s == OK {
			s = BadArgument
		}
		return nil, s
	}
	name := lower(string(argument[4:]))
	var out [][2]string
	for i := range m.Len() {
		if n, v := m.At(i); n == name {
			out = append(out, [2]string{v})
		}
	}
	if out == nil {
		return nil, NotFound
	}
	return AppendPairs(nil, out), OK
}

// foreignDeleteShared is our own: it deletes a key of the shared data. The argument is a CAS in four
// bytes, 0 for any, and the key.
func foreignDeleteShared(c call, argument []byte) ([]byte, Status) {
	if len(argument) < 4 {
		return nil, BadArgument
	}
	return nil, c.vm.Host.Shared().remove(c.vm.Host.VMID(), string(argument[4:]), binary.LittleEndian.Uint32(argument))
}
