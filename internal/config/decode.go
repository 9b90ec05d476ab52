package config

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// decoder fills a message from a tree by the rules of the protobuf JSON mapping, with what Envoy's
// parser takes beyond them (it runs in "legacy" mode): enum names in any case, "true" and "false"
// for booleans, a single value or a null for a list or an element of one. It goes on after an
// error.
type decoder struct {
	unknown Unknown
	file    string
	errs    *Errors
	warn    func(*Error)
	// lenient counts what was taken beyond the JSON mapping; the differential fuzz test asks.
	lenient int
}

func (d *decoder) fail(p *Path, line int, format string, args ...any) {
	d.errs.add(&Error{File: d.file, Line: line, Path: p.String(), Err: fmt.Errorf(format, args...)})
}

// unknownThing reports a field or an enum value that the descriptors don't have.
func (d *decoder) unknownThing(p *Path, line int, format string, args ...any) {
	switch d.unknown {
	case RejectUnknown:
		d.fail(p, line, format, args...)
	case WarnUnknown:
		d.warn(&Error{File: d.file, Line: line, Path: p.String(), Err: fmt.Errorf(format, args...)})
	case IgnoreUnknown:
	}
}

func (d *decoder) message(p *Path, n *node, m protoreflect.Message, depth int) {
	if depth > maxDepth {
		d.fail(p, n.line, "nested deeper than %d levels", maxDepth)
		return
	}
	if decode := wellKnown(m.Descriptor().FullName()); decode != nil {
		decode(d, p, n, m, depth)
		return
	}
	if n.kind != kindObject {
		d.fail(p, n.line, "must be an object (%s), not %s", m.Descriptor().FullName(), n.describe())
		return
	}
	for i := range n.entries {
		d.entry(p, &n.entries[i], m, depth)
	}
}

func (d *decoder) entry(p *Path, e *entry, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	fd := fields.ByName(protoreflect.Name(e.name))
	if fd == nil {
		fd = fields.ByJSONName(e.name)
	}
	if fd == nil {
		d.unknownThing(p.Field(e.name), e.line, "unknown field of %s%s", m.Descriptor().FullName(),
			suggest(e.name, fields))
		return
	}
	p = p.Field(string(fd.Name()))
	if isSensitive(fd) {
		e.value.hide()
	}
	if e.value.kind == kindNull && !takesNull(fd) {
		return
	}
	if oneof := fd.ContainingOneof(); oneof != nil {
		if set := m.WhichOneof(oneof); set != nil && set != fd {
			d.fail(p, e.line, "must not be set together with %s (one of %s)", set.Name(), oneof.Name())
			return
		}
	}
	if m.Has(fd) {
		// By its two names: the later one wins, as in Envoy.
		d.lenient++
		m.Clear(fd)
	}
	switch {
	case fd.IsMap():
		d.mapField(p, e.value, m, fd, depth)
	case fd.IsList():
		d.list(p, e.value, m, fd, depth)
	case fd.Message() != nil:
		d.message(p, e.value, m.Mutable(fd).Message(), depth+1)
	default:
		if v, ok := d.scalar(p, e.value, fd); ok {
			m.Set(fd, v)
		}
	}
}

// takesNull tells where null is a value and not the absence of one.
func takesNull(fd protoreflect.FieldDescriptor) bool {
	if fd.IsList() || fd.IsMap() {
		return false
	}
	if fd.Kind() == protoreflect.EnumKind {
		return fd.Enum().FullName() == "google.protobuf.NullValue"
	}
	return fd.Message() != nil && fd.Message().FullName() == "google.protobuf.Value"
}

func (d *decoder) list(p *Path, n *node, m protoreflect.Message, fd protoreflect.FieldDescriptor, depth int) {
	items := n.items
	if n.kind != kindList {
		d.lenient++
		items = []*node{n}
	}
	list := m.Mutable(fd).List()
	for i, item := range items {
		at := p.Index(i)
		switch {
		case item.kind == kindNull && (fd.Message() == nil || fd.Message().FullName() != "google.protobuf.Value"):
			d.lenient++
			list.Append(list.NewElement())
		case fd.Message() != nil:
			el := list.NewElement()
			d.message(at, item, el.Message(), depth+1)
			list.Append(el)
		default:
			if v, ok := d.scalar(at, item, fd); ok {
				list.Append(v)
			}
		}
	}
}

func (d *decoder) mapField(p *Path, n *node, m protoreflect.Message, fd protoreflect.FieldDescriptor, depth int) {
	if n.kind != kindObject {
		d.fail(p, n.line, "must be an object (a map), not %s", n.describe())
		return
	}
	entries := m.Mutable(fd).Map()
	for i := range n.entries {
		e := &n.entries[i]
		at := p.Key(e.name)
		key, ok := d.mapKey(at, e, fd.MapKey())
		if !ok {
			continue
		}
		if fd.MapValue().Message() != nil {
			v := entries.NewValue()
			d.message(at, e.value, v.Message(), depth+1)
			entries.Set(key, v)
		} else if v, ok := d.scalar(at, e.value, fd.MapValue()); ok {
			entries.Set(key, v)
		}
	}
}

func (d *decoder) mapKey(p *Path, e *entry, fd protoreflect.FieldDescriptor) (protoreflect.MapKey, bool) {
	n := &node{kind: kindText, text: e.name, line: e.line}
	v, ok := d.scalar(p, n, fd)
	if !ok {
		return protoreflect.MapKey{}, false
	}
	return v.MapKey(), true
}

// packedAny fills an Any from an object with "@type". A type that isn't linked is an error, but its
// URL is kept, so that a compiler that goes on can tell what was meant.
func (d *decoder) packedAny(p *Path, n *node, m protoreflect.Message, depth int) {
	if n.kind != kindObject {
		d.fail(p, n.line, "must be an object with @type, not %s", n.describe())
		return
	}
	if len(n.entries) == 0 {
		return
	}
	at := n.get("@type")
	if at == nil || at.kind != kindText || at.text == "" {
		d.fail(p, n.line, `needs the name of its message in "@type"`)
		return
	}
	fields := m.Descriptor().Fields()
	m.Set(fields.ByNumber(1), protoreflect.ValueOfString(at.text))
	mt, err := protoregistry.GlobalTypes.FindMessageByURL(at.text)
	if err != nil {
		d.fail(p, at.line, "%w %q", errUnknownType, at.text)
		return
	}
	inner := mt.New()
	if wellKnown(inner.Descriptor().FullName()) != nil {
		d.packedWellKnown(p, n, inner, depth)
	} else {
		for i := range n.entries {
			if n.entries[i].name != "@type" {
				d.entry(p, &n.entries[i], inner, depth+1)
			}
		}
	}
	data, err := proto.MarshalOptions{Deterministic: true, AllowPartial: true}.Marshal(inner.Interface())
	if err != nil {
		d.fail(p, n.line, "%w", err)
		return
	}
	m.Set(fields.ByNumber(2), protoreflect.ValueOfBytes(data))
}

// packedWellKnown fills a message that has a form of its own in JSON: inside an Any it stands in
// "value".
func (d *decoder) packedWellKnown(p *Path, n *node, inner protoreflect.Message, depth int) {
	value := n.get("value")
	for i := range n.entries {
		if e := &n.entries[i]; e.name != "@type" && e.name != "value" {
			d.unknownThing(p.Field(e.name), e.line, "unknown field of %s", inner.Descriptor().FullName())
		}
	}
	if value == nil {
		d.fail(p, n.line, `a %s stands in "value"`, inner.Descriptor().FullName())
		return
	}
	d.message(p.Field("value"), value, inner, depth+1)
}
