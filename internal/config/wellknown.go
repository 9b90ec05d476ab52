package config

import (
	"encoding/json"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
)

type decodeFunc func(d *decoder, p *Path, n *node, m protoreflect.Message, depth int)

// wellKnown gives the decoder of a message that has a form of its own in JSON, nil for all others.
func wellKnown(name protoreflect.FullName) decodeFunc {
	switch name {
	case "google.protobuf.Any":
		return (*decoder).packedAny
	case "google.protobuf.Duration", "google.protobuf.Timestamp", "google.protobuf.FieldMask":
		return (*decoder).textual
	case "google.protobuf.Struct":
		return (*decoder).structMessage
	case "google.protobuf.Value":
		return (*decoder).valueMessage
	case "google.protobuf.ListValue":
		return (*decoder).listMessage
	}
	if isWrapper(name) {
		return (*decoder).wrapper
	}
	return nil
}

func isWrapper(name protoreflect.FullName) bool {
	switch name {
	case "google.protobuf.BoolValue", "google.protobuf.StringValue", "google.protobuf.BytesValue",
		"google.protobuf.Int32Value", "google.protobuf.Int64Value", "google.protobuf.UInt32Value",
		"google.protobuf.UInt64Value", "google.protobuf.FloatValue", "google.protobuf.DoubleValue":
		return true
	}
	return false
}

func (d *decoder) wrapper(p *Path, n *node, m protoreflect.Message, _ int) {
	fd := m.Descriptor().Fields().ByNumber(1)
	if v, ok := d.scalar(p, n, fd); ok {
		m.Set(fd, v)
	}
}

// textual reads a Duration ("1.5s"), a Timestamp or a FieldMask. The library knows their grammar
// and ranges.
func (d *decoder) textual(p *Path, n *node, m protoreflect.Message, _ int) {
	example := map[protoreflect.Name]string{
		"Duration": `a string like "1.5s"`, "Timestamp": `a string like "2006-01-02T15:04:05Z"`,
		"FieldMask": `a string like "a,b.c"`,
	}[m.Descriptor().Name()]
	if n.kind != kindText {
		d.fail(p, n.line, "must be %s, not %s", example, n.describe())
		return
	}
	quoted, err := json.Marshal(n.text)
	if err == nil {
		err = protojson.Unmarshal(quoted, m.Interface())
	}
	if err != nil {
		d.fail(p, n.line, "must be %s, not %s", example, n.describe())
	}
}

func (d *decoder) structMessage(p *Path, n *node, m protoreflect.Message, depth int) {
	if n.kind != kindObject {
		d.fail(p, n.line, "must be an object, not %s", n.describe())
		return
	}
	msg, ok := m.Interface().(*structpb.Struct)
	if !ok {
		d.fail(p, n.line, "is a Struct of an unexpected Go type %T", m.Interface())
		return
	}
	msg.Fields = d.structFields(p, n, depth)
}

func (d *decoder) structFields(p *Path, n *node, depth int) map[string]*structpb.Value {
	fields := make(map[string]*structpb.Value, len(n.entries))
	for i := range n.entries {
		fields[n.entries[i].name] = d.value(p.Field(n.entries[i].name), n.entries[i].value, depth+1)
	}
	return fields
}

func (d *decoder) listMessage(p *Path, n *node, m protoreflect.Message, depth int) {
	if n.kind != kindList {
		d.fail(p, n.line, "must be a list, not %s", n.describe())
		return
	}
	if msg, ok := m.Interface().(*structpb.ListValue); ok {
		msg.Values = d.value(p, n, depth).GetListValue().GetValues()
	}
}

func (d *decoder) valueMessage(p *Path, n *node, m protoreflect.Message, depth int) {
	if msg, ok := m.Interface().(*structpb.Value); ok {
		msg.Kind = d.value(p, n, depth).GetKind()
	}
}

// value never gives nil, so that a Struct with an error in it is still a Struct.
func (d *decoder) value(p *Path, n *node, depth int) *structpb.Value {
	if depth > maxDepth {
		d.fail(p, n.line, "nested deeper than %d levels", maxDepth)
		return structpb.NewNullValue()
	}
	switch n.kind {
	case kindBool:
		return structpb.NewBoolValue(n.truth)
	case kindNumber:
		f, ok := parseFloat(n.text, 64)
		if !ok {
			d.fail(p, n.line, "is too big a number: %s", n.text)
		}
		return structpb.NewNumberValue(f)
	case kindText:
		if _, err := text(n); err != nil {
			d.fail(p, n.line, "%w", err)
			return structpb.NewNullValue()
		}
		return structpb.NewStringValue(n.text)
	case kindList:
		list := &structpb.ListValue{Values: make([]*structpb.Value, len(n.items))}
		for i, item := range n.items {
			list.Values[i] = d.value(p.Index(i), item, depth+1)
		}
		return structpb.NewListValue(list)
	case kindObject:
		return structpb.NewStructValue(&structpb.Struct{Fields: d.structFields(p, n, depth)})
	case kindNull:
	}
	return structpb.NewNullValue()
}
