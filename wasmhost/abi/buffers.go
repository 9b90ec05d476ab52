package abi

import "strings"

func lower(s string) string { return strings.ToLower(s) }

// buffer finds a buffer. NotFound: there is none in this phase.
func (c call) buffer(b BufferType) (Body, Status) {
	vm := c.vm
	switch {
	case b >= numBuffers:
		return Body{}, BadArgument
	case b == VMConfiguration:
		return Body{Static: vm.VMConfig}, OK
	case b == PluginConfiguration:
		if vm.PluginConfig == nil {
			return Body{}, NotFound
		}
		return Body{Static: vm.PluginConfig}, OK
	case b == CallResponseBody:
		if !vm.call.present {
			return Body{}, NotFound
		}
		return Body{Static: vm.call.Body}, OK
	case b == CallData:
		if vm.callData == nil {
			return Body{}, NotFound
		}
		return Body{Static: vm.callData}, OK
	case b == GRPCReceiveBuffer:
		return Body{Static: vm.received.message}, OK
	case vm.effective == nil:
		return Body{}, OK
	}
	return vm.effective.Buffer(b)
}

func getBuffer(c call) (Status, error) {
	body, s := c.buffer(BufferType(c.a.U32(0)))
	if s != OK {
		return s, nil
	}
	data := body.Bytes()
	start, length := uint64(c.a.U32(1)), uint64(c.a.U32(2))
	if start >= uint64(len(data)) {
		return c.result(3, nil)
	}
	return c.result(3, data[start:min(uint64(len(data)), start+length)])
}

func getBufferStatus(c call) (Status, error) {
	body, s := c.buffer(BufferType(c.a.U32(0)))
	if s != OK {
		return s, nil
	}
	if !c.setWord(1, uint32(len(body.Bytes()))) || !c.setWord(2, 0) {
		return InvalidMemoryAccess, nil
	}
	return OK, nil
}

// setBuffer knows three forms, as Envoy: from 0 it replaces the first length bytes, from the end or
// beyond it appends; in between is BadArgument.
func setBuffer(c call) (Status, error) {
	body, s := c.buffer(BufferType(c.a.U32(0)))
	if s != OK {
		return s, nil
	}
	data, ok := c.bytes(3)
	if !ok {
		return InvalidMemoryAccess, nil
	}
	if body.Data == nil {
		return BadArgument, nil
	}
	start, length, size := int(c.a.U32(1)), int(c.a.U32(2)), body.Data.Len()
	if size+len(data) > maxBody {
		c.vm.warnOnce("set_buffer_bytes: a body has 64 MiB, which is the limit")
		return InternalFailure, nil
	}
	switch {
	case start == 0 && length == 0:
		body.Data.Prepend(data)
	case start == 0 && length >= size:
		body.Data.Reset()
		body.Data.Append(data)
	case start == 0:
		body.Data.Consume(length)
		body.Data.Prepend(data)
	case start >= size:
		body.Data.Append(data)
	default:
		return BadArgument, nil
	}
	return OK, nil
}
