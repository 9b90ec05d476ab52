package config

// Two texts, one walk: YAML and JSON are both parsed into this tree, which keeps what a decoder
// into Go values would lose: the line of each value, and the literal text of a number.

type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindText
	kindList
	kindObject
)

func (k kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "a list", "an object"}[k]
}

type node struct {
	kind    kind
	truth   bool   // kindBool
	text    string // kindText; kindNumber: the literal, which is a JSON number
	line    int
	items   []*node // kindList
	entries []entry // kindObject, in the order of the text, keys unique
	// hidden is set where the field is sensitive: errors do not show the value.
	hidden bool
}

type entry struct {
	name  string
	line  int
	value *node
}

// objectBuilder fills an object. A name that occurs again replaces the value, as in Envoy, and is
// noted, as it is never meant.
type objectBuilder struct {
	node  *node
	index map[string]int // made once a search through the entries would be slower
}

const searchLimit = 16

func (b *objectBuilder) find(name string) int {
	if b.index != nil {
		if i, ok := b.index[name]; ok {
			return i
		}
		return -1
	}
	for i := range b.node.entries {
		if b.node.entries[i].name == name {
			return i
		}
	}
	return -1
}

// set adds an entry and tells whether its name was there before.
func (b *objectBuilder) set(e entry) (again bool) {
	if i := b.find(e.name); i >= 0 {
		b.node.entries[i] = e
		return true
	}
	b.node.entries = append(b.node.entries, e)
	switch n := len(b.node.entries); {
	case b.index != nil:
		b.index[e.name] = n - 1
	case n == searchLimit:
		b.index = make(map[string]int, 2*searchLimit)
		for i := range b.node.entries {
			b.index[b.node.entries[i].name] = i
		}
	}
	return false
}

func (n *node) get(name string) *node {
	for i := range n.entries {
		if n.entries[i].name == name {
			return n.entries[i].value
		}
	}
	return nil
}

// maxDepth bounds the nesting of lists, objects and packed messages; Envoy's JSON parser stops
// there too.
const maxDepth = 100

// hide keeps what is in n out of errors.
func (n *node) hide() {
	n.hidden = true
	for _, item := range n.items {
		item.hide()
	}
	for i := range n.entries {
		n.entries[i].value.hide()
	}
}
