// Package configtest holds the test that every field of an accepted message is accounted for.
package configtest

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"sidecar/internal/config"
)

// Elsewhere names message types whose own table is in another package, or that are read as a whole
// without looking at single fields: "envoy.config.core.v3.Address".
type Elsewhere []protoreflect.FullName

// plain are the messages that are values, not configuration: config reads them as a whole.
var plain = Elsewhere{
	"xds.core.v3.ContextParams",
	"envoy.config.core.v3.DataSource",
	"envoy.type.v3.Percent",
	"envoy.type.v3.FractionalPercent",
	"envoy.type.v3.DoubleRange",
	"envoy.type.v3.Int32Range",
	"envoy.type.v3.Int64Range",
}

// Covers fails for each field of the tables' messages that isn't in exactly one list, for each name
// in a table that isn't a field, for a no-op without a reason, and for a used field whose own
// message type has neither a table here nor a mention in elsewhere. A mention that nothing needs
// fails too.
func Covers(t *testing.T, elsewhere Elsewhere, tables ...config.Table) {
	t.Helper()
	for _, problem := range problems(elsewhere, tables) {
		t.Error(problem)
	}
}

func problems(elsewhere Elsewhere, tables []config.Table) []string {
	var out []string
	known := map[protoreflect.FullName]bool{}
	for _, table := range tables {
		name := table.Message().FullName()
		if known[name] {
			out = append(out, string(name)+": has two tables")
		}
		known[name] = true
	}
	needed, tolerated := map[protoreflect.FullName]bool{}, map[protoreflect.FullName]bool{}
	for _, table := range tables {
		md := table.Message()
		for _, name := range table.Names() {
			if md.Fields().ByName(protoreflect.Name(name)) == nil {
				out = append(out, string(md.FullName())+" has no field "+name)
			}
		}
		for i := range md.Fields().Len() {
			fd := md.Fields().Get(i)
			fates := table.Fate(string(fd.Name()))
			if len(fates) != 1 {
				out = append(out, string(fd.FullName())+" must be in one list, is in: "+strings.Join(fates, ", "))
			}
			inner := messageOf(fd)
			if inner != nil && !NeedsTable(inner) {
				tolerated[inner.FullName()] = true // some say it to be clear
			}
			if inner == nil || !NeedsTable(inner) || !slices.Contains(fates, "used") {
				continue
			}
			needed[inner.FullName()] = true
			if !known[inner.FullName()] && !slices.Contains(elsewhere, inner.FullName()) {
				out = append(out, string(fd.FullName())+" is used, and nothing accounts for the fields of "+
					string(inner.FullName()))
			}
		}
		for field, reason := range table.Reasons() {
			if reason == "" {
				out = append(out, string(md.FullName())+"."+field+" is a no-op without a reason")
			}
		}
	}
	for _, name := range elsewhere {
		if known[name] || (!needed[name] && !tolerated[name]) {
			out = append(out, string(name)+" needs no mention in elsewhere")
		}
	}
	return out
}

func messageOf(fd protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if fd.IsMap() {
		return fd.MapValue().Message()
	}
	return fd.Message()
}

// NeedsTable tells whether a message has fields that somebody must account for: it is neither empty
// nor a value that is read as a whole.
func NeedsTable(md protoreflect.MessageDescriptor) bool {
	return md.Fields().Len() > 0 && !strings.HasPrefix(string(md.FullName()), "google.protobuf.") &&
		!slices.Contains(plain, md.FullName())
}
