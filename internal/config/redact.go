package config

import (
	"strings"

	"github.com/cncf/xds/go/udpa/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
)

const redacted = "[redacted]"

// maxRedactDepth bounds the nesting that is followed; what lies deeper is left out.
const maxRedactDepth = 100

// Redact replaces, in place, the texts and bytes of every field that is marked sensitive by
// udpa.annotations.sensitive, as Envoy's dumps do: private keys, passwords, ticket keys and the like.
func Redact(m proto.Message) { redact(m.ProtoReflect(), false, 0) }

// redact replaces, in place, the texts and bytes of every field that is marked sensitive, and all
// that is inside one; numbers there go. It looks into Anys; one that can't be read may hold a
// secret and is emptied.
func redact(m protoreflect.Message, sensitive bool, depth int) {
	if depth > maxRedactDepth {
		proto.Reset(m.Interface())
		return
	}
	if a, isAny := m.Interface().(*anypb.Any); isAny {
		redactAny(a, sensitive, depth)
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		inside := sensitive || isSensitive(fd)
		switch {
		case fd.IsMap():
			redactMap(m, fd, v.Map(), inside, depth)
		case fd.IsList():
			redactList(m, fd, v.List(), inside, depth)
		case fd.Message() != nil:
			redact(v.Message(), inside, depth+1)
		case inside:
			redactScalar(m, fd)
		}
		return true
	})
}

func isSensitive(fd protoreflect.FieldDescriptor) bool {
	marked, _ := proto.GetExtension(fd.Options(), annotations.E_Sensitive).(bool)
	return marked
}

func redactScalar(m protoreflect.Message, fd protoreflect.FieldDescriptor) {
	switch fd.Kind() { //nolint:exhaustive // the others are numbers
	case protoreflect.StringKind:
		m.Set(fd, protoreflect.ValueOfString(redacted))
	case protoreflect.BytesKind:
		m.Set(fd, protoreflect.ValueOfBytes([]byte(redacted)))
	default:
		m.Clear(fd)
	}
}

func redactList(m protoreflect.Message, fd protoreflect.FieldDescriptor, l protoreflect.List, sensitive bool, depth int) {
	if fd.Message() == nil {
		if !sensitive {
			return
		}
		switch fd.Kind() { //nolint:exhaustive // the others are numbers
		case protoreflect.StringKind:
			for i := range l.Len() {
				l.Set(i, protoreflect.ValueOfString(redacted))
			}
		case protoreflect.BytesKind:
			for i := range l.Len() {
				l.Set(i, protoreflect.ValueOfBytes([]byte(redacted)))
			}
		default:
			m.Clear(fd)
		}
		return
	}
	for i := range l.Len() {
		redact(l.Get(i).Message(), sensitive, depth+1)
	}
}

func redactMap(m protoreflect.Message, fd protoreflect.FieldDescriptor, mp protoreflect.Map, sensitive bool, depth int) {
	if fd.MapValue().Message() == nil {
		if sensitive {
			m.Clear(fd)
			return
		}
		redactSecrets(fd, mp)
		return
	}
	mp.Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
		redact(v.Message(), sensitive, depth+1)
		return true
	})
}

// secretKeys end the names of values in maps of text that are secrets, which no annotation tells: Istio
// gives plugins' pull secrets among their environment variables.
const secretKeys = "_PULL_SECRET"

func redactSecrets(fd protoreflect.FieldDescriptor, mp protoreflect.Map) {
	if fd.MapKey().Kind() != protoreflect.StringKind || fd.MapValue().Kind() != protoreflect.StringKind {
		return
	}
	mp.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		if strings.HasSuffix(k.String(), secretKeys) {
			mp.Set(k, protoreflect.ValueOfString(redacted))
		}
		return true
	})
}

func redactAny(a *anypb.Any, sensitive bool, depth int) {
	t, err := protoregistry.GlobalTypes.FindMessageByURL(a.GetTypeUrl())
	if err != nil {
		a.Value = nil
		return
	}
	inner := t.New()
	if err := proto.Unmarshal(a.GetValue(), inner.Interface()); err != nil {
		a.Value = nil
		return
	}
	redact(inner, sensitive, depth+1)
	if a.Value, err = proto.Marshal(inner.Interface()); err != nil {
		a.Value = nil
	}
}
