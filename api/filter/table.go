package filter

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"sidecar/api/stats"
)

// Context is what compiling a filter's configuration may use. It opens nothing and starts nothing.
type Context struct {
	// Path is the field path of the configuration, for errors.
	Path string
	// Name is the filter's name in its chain.
	Name string
	// StatPrefix is the prefix of the connection manager, "http.NAME." in stat names.
	StatPrefix string
	// Scope is where the filter's stats go (Envoy: the listener's or the server's scope).
	Scope *stats.Scope
	Log   *slog.Logger
	// Direction is the listener's traffic direction.
	Direction int32
}

// HTTPEntry is an HTTP filter that the binary knows.
type HTTPEntry struct {
	// Name is Envoy's canonical name, used where a filter is named without a typed config.
	Name string
	// Config is an empty message of the filter's configuration type.
	Config proto.Message
	// Compile turns the configuration into a factory: a Factory, or a TerminalFactory.
	Compile func(m proto.Message, c Context) (any, error)
	// Route, if not nil, is the type that typed_per_filter_config takes; CompileRoute compiles it.
	Route        proto.Message
	CompileRoute func(m proto.Message, c Context) (any, error)
}

// Table lists what the binary knows, by the type URL of the configuration and by name. It is built
// once by the composition root.
type Table struct {
	byName map[string]*HTTPEntry
	byType map[string]*HTTPEntry
	// byRoute is by the type that typed_per_filter_config takes.
	byRoute map[string]*HTTPEntry
}

// NewTable makes a table of entries; a name or type given twice is a mistake of the programmer and
// panics.
func NewTable(entries ...HTTPEntry) *Table {
	t := &Table{byName: map[string]*HTTPEntry{}, byType: map[string]*HTTPEntry{}, byRoute: map[string]*HTTPEntry{}}
	for i := range entries {
		e := &entries[i]
		typ := string(e.Config.ProtoReflect().Descriptor().FullName())
		if t.byName[e.Name] != nil || t.byType[typ] != nil {
			panic(fmt.Sprintf("filter table: %s (%s) is there twice", e.Name, typ))
		}
		t.byName[e.Name], t.byType[typ] = e, e
		if e.Route != nil {
			t.byRoute[string(e.Route.ProtoReflect().Descriptor().FullName())] = e
		}
	}
	return t
}

// ByType finds an entry by the full name of its configuration message.
func (t *Table) ByType(fullName string) *HTTPEntry { return t.byType[fullName] }

// ByRouteType finds an entry by the full name of the message for typed_per_filter_config.
func (t *Table) ByRouteType(fullName string) *HTTPEntry { return t.byRoute[fullName] }

// ByName finds an entry by its canonical name.
func (t *Table) ByName(name string) *HTTPEntry { return t.byName[name] }

// Names lists the canonical names with the full names of their configuration messages, sorted.
func (t *Table) Names() [][2]string {
	var out [][2]string
	for name, e := range t.byName {
		out = append(out, [2]string{name, string(e.Config.ProtoReflect().Descriptor().FullName())})
	}
	slices.SortFunc(out, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return out
}

// RegisterHTTP makes an entry from functions that take the concrete message types.
func RegisterHTTP[P proto.Message](name string, config P,
	compile func(m P, c Context) (any, error),
) HTTPEntry {
	return HTTPEntry{
		Name:   name,
		Config: config,
		Compile: func(m proto.Message, c Context) (any, error) {
			p, ok := m.(P)
			if !ok {
				return nil, fmt.Errorf("%s: configuration is a %T", c.Path, m)
			}
			return compile(p, c)
		},
	}
}
