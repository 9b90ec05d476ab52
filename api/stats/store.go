package stats

import (
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Tag is a label of a stat: in Prometheus, and for sinks that know tags. Envoy cuts tags out of the
// dotted name; a scope's own tags are added to those and take the place of one of the same name.
type Tag struct{ Name, Value string }

// Store holds every stat of the process. All its methods may be called from any goroutine; none is
// for the data path, which holds pointers to its stats.
type Store struct {
	mu      sync.Mutex // guards the tree of scopes, their families and singles, layouts and hooks
	root    node
	hooks   []func()
	vectors []*Vector
	// layouts caches what reflection finds out about a type bound by Bind.
	layouts map[reflect.Type]*layout
}

// New returns an empty store.
func New() *Store {
	return &Store{root: node{refs: 1}, layouts: map[reflect.Type]*layout{}}
}

// node is the part of a scope that scopes of the same name share. Its fields are few and its lists
// intrusive: a mesh has one for each of thousands of clusters.
type node struct {
	// Set at creation, never changed.
	parent *node
	name   string
	tags   *[]Tag // nil for most: three words saved in each of thousands of scopes

	// Guarded by Store.mu.
	refs     int
	children map[string]*node
	families family
	singles  *singles
}

// singles are the stats of a scope that were asked for by name.
type singles struct {
	byName map[singleKey]*single
	head   *single
}

type singleKey struct {
	kind Kind
	name string
}

type single struct {
	name string
	kind Kind
	unit Unit
	ptr  any // *Counter, *Gauge, *Histogram or *Text
	next *single
}

// Scope is a handle on a dotted prefix. It is closed once, by whoever asked for it.
type Scope struct {
	store  *Store
	node   *node
	closed atomic.Bool
}

// Scope returns a scope under the root. A dot at the end of the prefix is implied. The string is
// kept, so that one which lives anyway (a cluster's name) costs nothing.
func (s *Store) Scope(prefix string, tags ...Tag) *Scope { return s.scope(&s.root, prefix, tags) }

// Root returns the scope without a prefix. Closing it does nothing.
func (s *Store) Root() *Scope {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.root.refs++
	return &Scope{store: s, node: &s.root}
}

// Sub returns the scope "<this>.<name>", with tags of its own if there are any. It goes away when
// it is closed, or with the last handle on this one: close it only if it shall go before that.
func (c *Scope) Sub(name string, tags ...Tag) *Scope { return c.store.scope(c.node, name, tags) }

// Store returns the store that the scope belongs to.
func (c *Scope) Store() *Store { return c.store }

// Name returns the full dotted prefix, without a dot at its end.
func (c *Scope) Name() string { return string(c.node.appendName(nil)) }

// Close gives the handle back; with the last one on its name all that is under the scope leaves the
// listing. Stats that were got from it stay valid, unlisted. A second Close does nothing.
func (c *Scope) Close() {
	if c.closed.Swap(true) {
		return
	}
	s, n := c.store, c.node
	s.mu.Lock()
	defer s.mu.Unlock()
	n.refs--
	if n.refs > 0 || n.parent == nil {
		return
	}
	// The check is for a scope whose parent was removed, and made anew, before it was closed.
	if n.parent.children[n.name] == n {
		delete(n.parent.children, n.name)
	}
}

func (s *Store) scope(parent *node, name string, tags []Tag) *Scope {
	name = sanitize(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := parent.children[name]
	if n == nil {
		n = &node{parent: parent, name: name}
		if len(tags) > 0 {
			own := slices.Clone(tags)
			n.tags = &own
		}
		if parent.children == nil {
			parent.children = map[string]*node{}
		}
		parent.children[name] = n
	}
	n.refs++
	return &Scope{store: s, node: n}
}

// sanitizer replaces what Envoy replaces in stat names (Utility::sanitizeStatsName).
var sanitizer = strings.NewReplacer("://", "_", ":/", "_", ":", "_", "\x00", "_")

func sanitize(name string) string {
	name = strings.TrimPrefix(strings.TrimSuffix(name, "."), ".")
	if strings.IndexByte(name, ':') < 0 && strings.IndexByte(name, 0) < 0 {
		return name
	}
	return sanitizer.Replace(name)
}

// appendName appends the dotted prefix of n, without a dot at its end.
func (n *node) appendName(b []byte) []byte {
	if n.parent == nil {
		return b
	}
	b = n.parent.appendName(b)
	if len(b) > 0 {
		b = append(b, '.')
	}
	return append(b, n.name...)
}

// appendTags appends the tags of n and of the scopes around it.
func (n *node) appendTags(tags []Tag) []Tag {
	for ; n != nil; n = n.parent {
		if n.tags != nil {
			tags = append(tags, *n.tags...)
		}
	}
	return tags
}

// Counter returns the counter "<scope>.<name>", made at the first call.
func (c *Scope) Counter(name string) *Counter {
	return stat[Counter](c, KindCounter, name, Unspecified)
}

// Gauge returns the gauge "<scope>.<name>", made at the first call.
func (c *Scope) Gauge(name string) *Gauge { return stat[Gauge](c, KindGauge, name, Unspecified) }

// Histogram returns the histogram "<scope>.<name>", made at the first call.
func (c *Scope) Histogram(name string, unit Unit) *Histogram {
	return stat[Histogram](c, KindHistogram, name, unit)
}

// Text returns the text readout "<scope>.<name>", made at the first call.
func (c *Scope) Text(name string) *Text { return stat[Text](c, KindText, name, Unspecified) }

// stat finds or makes a single stat. One that a bound family holds already is that family's.
func stat[T any](c *Scope, kind Kind, name string, unit Unit) *T {
	name = sanitize(name)
	s, n := c.store, c.node
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := n.families; f != nil; f = f.following() {
		if fl, ok := f.layout().byName[name]; ok && fl.kind == kind {
			if p, ok := field(f.value(true), fl).(*T); ok {
				return p
			}
		}
	}
	if n.singles == nil {
		n.singles = &singles{byName: map[singleKey]*single{}}
	}
	key := singleKey{kind, name}
	if e := n.singles.byName[key]; e != nil {
		if p, ok := e.ptr.(*T); ok {
			return p
		}
	}
	p := new(T)
	e := &single{name: name, kind: kind, unit: unit, ptr: p, next: n.singles.head}
	n.singles.byName[key] = e
	n.singles.head = e
	return p
}

// BeforeRead adds a hook that runs before each Each, without a lock held: it sets gauges
// which are worked out on demand (uptime, memory).
func (s *Store) BeforeRead(hook func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hooks = append(s.hooks, hook)
}
