package config

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// CheckUnknown looks for fields that the types linked here don't know, in msg and in all that is
// packed in it as far as the types are linked: what came over the wire is checked once, where it
// comes in. Unknown fields are an error, or warnings, as told.
func CheckUnknown(msg proto.Message, unknown Unknown) (warnings []error, err error) {
	if unknown == IgnoreUnknown {
		return nil, nil
	}
	var errs Errors
	c := unknownChecker{errs: &errs}
	c.message(nil, msg.ProtoReflect(), 0)
	if unknown == RejectUnknown || errs.Len() == 0 {
		return nil, errs.Err()
	}
	for _, e := range Flatten(errs.Err()) {
		warnings = append(warnings, e)
	}
	return warnings, nil
}

type unknownChecker struct{ errs *Errors }

func (c *unknownChecker) message(p *Path, m protoreflect.Message, depth int) {
	if depth > maxDepth {
		c.errs.Addf(p, "nested deeper than %d levels", maxDepth)
		return
	}
	for raw := m.GetUnknown(); len(raw) > 0; {
		number, _, n := protowire.ConsumeField(raw)
		if n <= 0 {
			break
		}
		raw = raw[n:]
		c.errs.Addf(p, "unknown field number %d of %s", number, m.Descriptor().FullName())
	}
	if a, ok := m.Interface().(*anypb.Any); ok {
		c.packed(p, a, depth)
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := p.Field(string(fd.Name()))
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() == nil {
				return true
			}
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				c.message(at.Key(k.String()), v.Message(), depth+1)
				return true
			})
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				c.message(at.Index(i), v.List().Get(i).Message(), depth+1)
			}
		default:
			c.message(at, v.Message(), depth+1)
		}
		return true
	})
}

// packed looks into an Any. What can't be opened is left to whoever needs it, with one exception:
// the fields of a TypedStruct have no numbers that would show up as unknown.
func (c *unknownChecker) packed(p *Path, a *anypb.Any, depth int) {
	if a.GetTypeUrl() == "" {
		return
	}
	msg, err := open(a, RejectUnknown)
	if msg == nil {
		if !errors.Is(err, errUnknownType) {
			c.errs.Wrap(p, err)
		}
		return
	}
	c.errs.Wrap(p, err)
	c.message(p, msg.ProtoReflect(), depth+1)
}
