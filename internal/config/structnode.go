package config

import (
	"math"
	"slices"
	"strconv"

	"google.golang.org/protobuf/types/known/structpb"
)

// structNode turns a Struct back into the tree that it would have been parsed from, to be decoded
// as the message that a TypedStruct stands for.
func structNode(s *structpb.Struct, depth int) *node {
	n := &node{kind: kindObject}
	names := make([]string, 0, len(s.GetFields()))
	for name := range s.GetFields() {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		n.entries = append(n.entries, entry{name: name, value: valueNode(s.GetFields()[name], depth+1)})
	}
	return n
}

func valueNode(v *structpb.Value, depth int) *node {
	if depth > maxDepth {
		// The decoder stops at this depth too, and says so.
		return &node{}
	}
	switch k := v.GetKind().(type) {
	case *structpb.Value_BoolValue:
		return &node{kind: kindBool, truth: k.BoolValue}
	case *structpb.Value_StringValue:
		return &node{kind: kindText, text: k.StringValue}
	case *structpb.Value_NumberValue:
		return numberNode(k.NumberValue)
	case *structpb.Value_ListValue:
		n := &node{kind: kindList}
		for _, item := range k.ListValue.GetValues() {
			n.items = append(n.items, valueNode(item, depth+1))
		}
		return n
	case *structpb.Value_StructValue:
		return structNode(k.StructValue, depth)
	}
	return &node{}
}

func numberNode(f float64) *node {
	switch {
	case math.IsNaN(f):
		return &node{kind: kindText, text: "NaN"}
	case math.IsInf(f, 1):
		return &node{kind: kindText, text: "Infinity"}
	case math.IsInf(f, -1):
		return &node{kind: kindText, text: "-Infinity"}
	}
	return &node{kind: kindNumber, text: strconv.FormatFloat(f, 'f', -1, 64)}
}
