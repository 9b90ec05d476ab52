package config

import (
	"errors"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Validate checks the constraints that the .proto file puts on the fields of msg and of the
// messages inside it (not of what is packed in an Any), and reports each that doesn't hold, at its
// place.
func Validate(p *Path, msg proto.Message, errs *Errors) {
	v, ok := msg.(interface{ ValidateAll() error })
	if !ok || !msg.ProtoReflect().IsValid() {
		return
	}
	if err := v.ValidateAll(); err != nil {
		constraint(p, msg.ProtoReflect().Descriptor(), err, errs)
	}
}

// fieldViolation is what the generated ValidateAll methods return for each field.
type fieldViolation interface {
	error
	Field() string
	Reason() string
	Cause() error
}

// constraint translates Go's names of fields back into those of the message md.
func constraint(p *Path, md protoreflect.MessageDescriptor, err error, errs *Errors) {
	if all, ok := err.(interface{ AllErrors() []error }); ok {
		for _, one := range all.AllErrors() {
			constraint(p, md, one, errs)
		}
		return
	}
	var v fieldViolation
	if !errors.As(err, &v) {
		errs.Addf(p, "%w", err)
		return
	}
	name, index, indexed := strings.Cut(v.Field(), "[")
	at, inner := p.Field(name), protoreflect.MessageDescriptor(nil)
	if fd := goField(md, name); fd != nil {
		at, inner = p.Field(string(fd.Name())), fd.Message()
		if indexed && fd.IsMap() {
			at, inner = at.Key(strings.TrimSuffix(index, "]")), fd.MapValue().Message()
		} else if indexed {
			at = &Path{parent: at, name: "", index: atoi(strings.TrimSuffix(index, "]")), step: stepIndex}
		}
	} else if oneof := goOneof(md, name); oneof != nil {
		at = p.Field(string(oneof.Name()))
	}
	if v.Cause() != nil && inner != nil {
		constraint(at, inner, v.Cause(), errs)
		return
	}
	if v.Cause() != nil {
		errs.Addf(at, "%s: %w", v.Reason(), v.Cause())
		return
	}
	errs.Add(at, v.Reason())
}

func atoi(s string) int {
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	return n
}

func goField(md protoreflect.MessageDescriptor, goName string) protoreflect.FieldDescriptor {
	if md == nil {
		return nil
	}
	for i := range md.Fields().Len() {
		if fd := md.Fields().Get(i); goCamelCase(string(fd.Name())) == goName {
			return fd
		}
	}
	return nil
}

func goOneof(md protoreflect.MessageDescriptor, goName string) protoreflect.OneofDescriptor {
	if md == nil {
		return nil
	}
	for i := range md.Oneofs().Len() {
		if o := md.Oneofs().Get(i); goCamelCase(string(o.Name())) == goName {
			return o
		}
	}
	return nil
}

// goCamelCase is protoc-gen-go's rule: an underscore before a lower-case letter goes away and makes
// the letter a capital; other underscores stay, a leading one becomes X.
func goCamelCase(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		nextLower := i+1 < len(s) && s[i+1] >= 'a' && s[i+1] <= 'z'
		lower := c >= 'a' && c <= 'z'
		switch {
		case c == '_' && i == 0:
			b.WriteByte('X')
		case c == '_' && nextLower:
		case lower && (i == 0 || s[i-1] == '_' || s[i-1] >= '0' && s[i-1] <= '9'):
			b.WriteByte(c - 'a' + 'A')
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
