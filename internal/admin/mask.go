package admin

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
)

// mask is a parsed FieldMask: what to keep of a message. An empty one keeps all.
type mask map[string]mask

func parseMask(s string) mask {
	m := mask{}
	for path := range strings.SplitSeq(s, ",") {
		at := m
		for step := range strings.SplitSeq(path, ".") {
			next := at[step]
			if next == nil {
				next = mask{}
				at[step] = next
			}
			at = next
		}
	}
	return m
}

// fits tells whether every step names a field. What is inside an Any isn't known before.
func (k mask) fits(d protoreflect.MessageDescriptor) bool {
	if d.FullName() == "google.protobuf.Any" {
		return true
	}
	for step, inner := range k {
		fd := d.Fields().ByName(protoreflect.Name(step))
		switch {
		case fd == nil:
			return false
		case len(inner) == 0:
		case fd.Message() == nil || fd.IsMap() || !inner.fits(fd.Message()):
			return false
		}
	}
	return true
}

// apply takes away, in place, what the mask doesn't name.
func (k mask) apply(m protoreflect.Message) {
	if len(k) == 0 {
		return
	}
	if a, isAny := m.Interface().(*anypb.Any); isAny {
		k.applyAny(a)
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		inner, keep := k[string(fd.Name())]
		switch {
		case !keep:
			m.Clear(fd)
		case len(inner) == 0 || fd.Message() == nil || fd.IsMap():
		case fd.IsList():
			for i := range v.List().Len() {
				inner.apply(v.List().Get(i).Message())
			}
		default:
			inner.apply(v.Message())
		}
		return true
	})
}

func (k mask) applyAny(a *anypb.Any) {
	t, err := protoregistry.GlobalTypes.FindMessageByURL(a.GetTypeUrl())
	if err != nil {
		return
	}
	inner := t.New()
	if err := proto.Unmarshal(a.GetValue(), inner.Interface()); err != nil {
		return
	}
	k.apply(inner)
	if b, err := proto.Marshal(inner.Interface()); err == nil {
		a.Value = b
	}
}
