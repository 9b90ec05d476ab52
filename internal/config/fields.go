package config

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Fields says what becomes of each field of message M when it is compiled. The lists hold field
// names as in the .proto file, divided by blanks. A field belongs into exactly one of them, the
// members of a oneof each for their own. See the package comment for an example.
//
// A table is a package-level variable that nobody writes to.
type Fields[M proto.Message] struct {
	// Used fields have their effect; so has, one by one, what is inside them.
	Used string
	// OffOnly fields switch something on that we lack: accepted while they hold false, 0 or an
	// empty text (bare or in a wrapper), refused otherwise.
	OffOnly string
	// Refused fields must not be set.
	Refused string
	// NoOp fields are accepted and change nothing; each with the reason why that is right.
	NoOp map[string]string
}

// Check reports each field that msg has set and that isn't used. A field that no list names is
// refused: a newer version of the protobuf package must not bring silently ignored fields.
func (f Fields[M]) Check(p *Path, msg M, errs *Errors) {
	m := msg.ProtoReflect()
	if !m.IsValid() {
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := string(fd.Name())
		if hasWord(f.Used, name) {
			return true
		}
		if _, ok := f.NoOp[name]; ok {
			return true
		}
		if hasWord(f.OffOnly, name) {
			if !isOff(fd, v) {
				errs.Add(p.Field(name), "is not supported, and can only be switched off")
			}
			return true
		}
		errs.Add(p.Field(name), "is not supported")
		return true
	})
}

// Table is a [Fields] of any message, for tests.
type Table interface {
	// Message gives the descriptor of M.
	Message() protoreflect.MessageDescriptor
	// Fate tells which lists name a field: "used", "off only", "refused", "no-op".
	Fate(field string) []string
	// Names gives every field name that the table holds.
	Names() []string
	// Reasons gives the no-ops, each with its reason.
	Reasons() map[string]string
}

// Message implements [Table].
func (f Fields[M]) Message() protoreflect.MessageDescriptor {
	var m M
	return m.ProtoReflect().Descriptor()
}

// Fate implements [Table].
func (f Fields[M]) Fate(field string) []string {
	var fates []string
	for _, list := range []struct{ fate, words string }{
		{"used", f.Used}, {"off only", f.OffOnly}, {"refused", f.Refused},
	} {
		if hasWord(list.words, field) {
			fates = append(fates, list.fate)
		}
	}
	if _, ok := f.NoOp[field]; ok {
		fates = append(fates, "no-op")
	}
	return fates
}

// Names implements [Table].
func (f Fields[M]) Names() []string {
	names := slices.Concat(strings.Fields(f.Used), strings.Fields(f.OffOnly), strings.Fields(f.Refused))
	for name := range f.NoOp {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Reasons implements [Table].
func (f Fields[M]) Reasons() map[string]string { return f.NoOp }

// hasWord finds a word in a list divided by blanks. Splitting the list at each Check would cost
// more than the check itself, and keeping it split would need a constructor at each table.
func hasWord(list, word string) bool {
	for at := 0; ; {
		i := strings.Index(list[at:], word)
		if i < 0 {
			return false
		}
		start, end := at+i, at+i+len(word)
		if (start == 0 || isBlank(list[start-1])) && (end == len(list) || isBlank(list[end])) {
			return true
		}
		at = end
	}
}

// isBlank: the word lists are written in back quotes when long, so lines and tabs divide too.
func isBlank(c byte) bool { return c == ' ' || c == '\n' || c == '\t' }

func isOff(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
	if fd.IsList() || fd.IsMap() {
		return false
	}
	if fd.Message() == nil {
		return isZero(fd, v)
	}
	if !isWrapper(fd.Message().FullName()) {
		return false
	}
	inner := fd.Message().Fields().ByName("value")
	return isZero(inner, v.Message().Get(inner))
}

func isZero(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
	if fd.Kind() == protoreflect.BytesKind {
		return len(v.Bytes()) == 0
	}
	if fd.Kind() == protoreflect.EnumKind {
		return v.Enum() == 0
	}
	return v.Interface() == fd.Default().Interface()
}
