package attribute

import (
	"encoding/binary"
	"math"
	"time"

	"sidecar/wasmhost/abi"
)

type kind uint8

const (
	object kind = iota
	textKind
	intKind
	doubleKind
	boolKind
	durationKind
	timeKind
	messageKind
)

// Value is an attribute. It allocates nothing for the plain kinds, which are most of what plugins ask.
type Value struct {
	kind kind
	text string
	bits uint64
	any  any
}

func textValue(s string) Value { return Value{kind: textKind, text: s} }

func intValue(n int64) Value { return Value{kind: intKind, bits: uint64(n)} }

func boolValue(v bool) Value {
	if v {
		return Value{kind: boolKind, bits: 1}
	}
	return Value{kind: boolKind}
}

func durationValue(d time.Duration) Value { return Value{kind: durationKind, bits: uint64(d)} }

func timeValue(t time.Time) Value { return Value{kind: timeKind, any: t} }

// messageValue is an encoded protobuf message.
func messageValue(b []byte) Value { return Value{kind: messageKind, any: b} }

// objectValue is a value of unknown type, such as metadata and the filter state have.
func objectValue(v any) Value { return Value{any: v} }

// Append serialises the value as guests read it.
func (v Value) Append(b []byte) ([]byte, abi.Status) {
	switch v.kind {
	case textKind:
		return append(b, v.text...), abi.OK
	case intKind, doubleKind, durationKind:
		return binary.LittleEndian.AppendUint64(b, v.bits), abi.OK
	case boolKind:
		return append(b, byte(v.bits)), abi.OK
	case timeKind, messageKind, object:
	}
	return abi.AppendValue(b, v.any)
}

// Any is the value for an expression.
func (v Value) Any() any {
	switch v.kind {
	case textKind:
		return v.text
	case intKind:
		return int64(v.bits)
	case doubleKind:
		return math.Float64frombits(v.bits)
	case boolKind:
		return v.bits != 0
	case durationKind:
		return time.Duration(v.bits)
	case timeKind, messageKind, object:
	}
	return v.any
}
