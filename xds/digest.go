package xds

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"sidecar/internal/config/source"
)

// maxAnyDepth bounds the Anys inside Anys that are looked into; what is deeper counts by its bytes.
const maxAnyDepth = 32

// unordered names repeated fields whose order means nothing, and which real management servers fill
// in the order of a hash map.
func unordered(name protoreflect.FullName) bool {
	switch name {
	case "envoy.config.route.v3.RouteMatch.query_parameters",
		"envoy.config.route.v3.RouteMatch.headers":
		return true // all of them must match
	}
	return false
}

// Digest hashes what a message means: fields by number, maps by sorted key, and nested Anys of
// known types by their content. Two messages with equal digests may replace one another without
// effect. It also returns a description of the first unknown field, empty if there is none.
func Digest(m proto.Message) (d source.Digest, unknown string) {
	w := digester{hash: sha256.New()}
	w.message(m.ProtoReflect(), 0)
	return w.sum(), w.unknown
}

// digester writes an unambiguous form of a message into a hash. Each field is its number, then the
// value: a message ends with a zero, all else that varies in length begins with it.
type digester struct {
	hash    hash.Hash
	buf     []byte
	unknown string
}

const flushBytes = 4096

func (w *digester) uint(n uint64) {
	w.buf = binary.AppendUvarint(w.buf, n)
	w.flush(flushBytes)
}

func (w *digester) bytes(b []byte) {
	w.uint(uint64(len(b)))
	w.buf = append(w.buf, b...)
	w.flush(flushBytes)
}

func (w *digester) str(s string) {
	w.uint(uint64(len(s)))
	w.buf = append(w.buf, s...)
	w.flush(flushBytes)
}

func (w *digester) flush(above int) {
	if len(w.buf) >= above {
		w.hash.Write(w.buf) //nolint:errcheck // a hash never fails
		w.buf = w.buf[:0]
	}
}

func (w *digester) sum() (d source.Digest) {
	w.flush(0)
	copy(d[:], w.hash.Sum(nil))
	return d
}

type fieldValue struct {
	field protoreflect.FieldDescriptor
	value protoreflect.Value
}

func (w *digester) message(m protoreflect.Message, depth int) {
	desc := m.Descriptor()
	if desc.FullName() == "google.protobuf.Any" {
		w.any(m, depth)
		return
	}
	fields := make([]fieldValue, 0, 8)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		fields = append(fields, fieldValue{f, v})
		return true
	})
	slices.SortFunc(fields, func(a, b fieldValue) int {
		return cmp.Compare(a.field.Number(), b.field.Number())
	})
	for _, f := range fields {
		w.uint(uint64(f.field.Number()))
		switch {
		case f.field.IsMap():
			w.mapping(f.field, f.value.Map(), depth)
		case f.field.IsList():
			w.list(f.field, f.value.List(), depth)
		default:
			w.value(f.field, f.value, depth)
		}
	}
	if raw := m.GetUnknown(); len(raw) > 0 {
		if w.unknown == "" {
			w.unknown = unknownField(desc, raw)
		}
		w.uint(math.MaxUint64)
		w.bytes(raw)
	}
	w.uint(0)
}

func (w *digester) any(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	url := m.Get(fields.ByNumber(1)).String()
	raw := m.Get(fields.ByNumber(2)).Bytes()
	w.str(url)
	if depth < maxAnyDepth {
		if t, err := protoregistry.GlobalTypes.FindMessageByURL(url); err == nil {
			inner := t.New()
			if proto.Unmarshal(raw, inner.Interface()) == nil {
				w.uint(1)
				w.message(inner, depth+1)
				return
			}
		}
	}
	w.uint(0)
	w.bytes(raw)
}

func (w *digester) list(f protoreflect.FieldDescriptor, l protoreflect.List, depth int) {
	w.uint(uint64(l.Len()))
	if !unordered(f.FullName()) {
		for i := range l.Len() {
			w.value(f, l.Get(i), depth)
		}
		return
	}
	sums := make([]source.Digest, l.Len())
	for i := range sums {
		sums[i] = w.apart(func(e *digester) { e.value(f, l.Get(i), depth) })
	}
	slices.SortFunc(sums, func(a, b source.Digest) int { return bytes.Compare(a[:], b[:]) })
	for i := range sums {
		w.bytes(sums[i][:])
	}
}

// apart digests on its own what is to be sorted.
func (w *digester) apart(f func(*digester)) source.Digest {
	e := digester{hash: sha256.New(), unknown: w.unknown}
	f(&e)
	w.unknown = e.unknown
	return e.sum()
}

func (w *digester) mapping(f protoreflect.FieldDescriptor, m protoreflect.Map, depth int) {
	keys := make([]protoreflect.MapKey, 0, m.Len())
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k)
		return true
	})
	slices.SortFunc(keys, func(a, b protoreflect.MapKey) int {
		switch f.MapKey().Kind() {
		case protoreflect.StringKind:
			return cmp.Compare(a.String(), b.String())
		case protoreflect.BoolKind:
			return cmp.Compare(toUint(a.Bool()), toUint(b.Bool()))
		case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind,
			protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
			return cmp.Compare(a.Int(), b.Int())
		default:
			return cmp.Compare(a.Uint(), b.Uint())
		}
	})
	w.uint(uint64(len(keys)))
	for _, k := range keys {
		w.value(f.MapKey(), k.Value(), depth)
		w.value(f.MapValue(), m.Get(k), depth)
	}
}

func (w *digester) value(f protoreflect.FieldDescriptor, v protoreflect.Value, depth int) {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		w.message(v.Message(), depth)
	case protoreflect.StringKind:
		w.str(v.String())
	case protoreflect.BytesKind:
		w.bytes(v.Bytes())
	case protoreflect.BoolKind:
		w.uint(toUint(v.Bool()))
	case protoreflect.EnumKind:
		w.uint(uint64(v.Enum()))
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		w.uint(math.Float64bits(v.Float()))
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind,
		protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		w.uint(v.Uint())
	default:
		w.uint(uint64(v.Int()))
	}
}

func toUint(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// unknownField words the complaint as Envoy does.
func unknownField(desc protoreflect.MessageDescriptor, raw []byte) string {
	tag, _ := binary.Uvarint(raw)
	return fmt.Sprintf("Protobuf message (type %s with unknown field set {%d}) has unknown fields",
		desc.FullName(), tag>>3)
}
