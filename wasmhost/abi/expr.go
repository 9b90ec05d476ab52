package abi

import (
	"encoding/binary"
	"strings"

	"sidecar/wasmhost/cel"
)

// maxExpressions bounds what one VM may have compiled; Envoy has no bound.
const maxExpressions = 1024

// expressions are the CEL programs of one VM by their tokens.
type expressions struct {
	programs map[uint32]*cel.Program
	next     uint32
	bytes    int // of source, ever
}

func exprCreate(c call, argument []byte) ([]byte, Status) {
	c.vm.own()
	x := &c.vm.expressions
	if len(x.programs) >= maxExpressions {
		c.vm.warnOnce("expr_create: the plugin has 1024 expressions, which is the limit")
		return nil, InternalFailure
	}
	if x.bytes+len(argument) > maxExpressionBytes {
		c.vm.warnOnce("expr_create: the plugin's expressions have 1 MiB, which is the limit")
		return nil, InternalFailure
	}
	p, err := cel.Compile(strings.Clone(string(argument)))
	if err != nil {
		c.vm.warnOnce("expr_create: " + err.Error())
		return nil, BadArgument
	}
	if x.programs == nil {
		x.programs = map[uint32]*cel.Program{}
	}
	token := x.next
	x.next++
	x.programs[token] = p
	x.bytes += len(argument)
	return binary.LittleEndian.AppendUint32(nil, token), OK
}

func exprEvaluate(c call, argument []byte) ([]byte, Status) {
	if len(argument) != 4 {
		return nil, BadArgument
	}
	p := c.vm.expressions.programs[binary.LittleEndian.Uint32(argument)]
	if p == nil {
		return nil, NotFound
	}
	if c.vm.current == nil {
		return nil, InternalFailure
	}
	v, err := p.Eval(c.vm.current)
	if err != nil {
		return nil, InternalFailure
	}
	return AppendValue(nil, v)
}

func exprDelete(c call, argument []byte) ([]byte, Status) {
	if len(argument) != 4 {
		return nil, BadArgument
	}
	c.vm.own()
	delete(c.vm.expressions.programs, binary.LittleEndian.Uint32(argument))
	return nil, OK
}
