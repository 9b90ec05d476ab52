package config

import (
	"strconv"
	"strings"
)

// Path is the place of a field inside a message: a list of steps that share their beginnings, so
// that building one costs an allocation of a few words and no text. The nil Path is the message
// itself. A Path never changes and may be kept.
type Path struct {
	parent *Path
	name   string // field name or map key
	index  int    // element of a list if step is stepIndex
	step   step
}

type step uint8

const (
	stepField step = iota
	stepIndex
	stepKey
)

// Field starts a path at a field of the message itself.
func Field(name string) *Path { return (*Path)(nil).Field(name) }

// Field goes down into a field, by its name in the .proto file; "route.cluster" takes two steps.
func (p *Path) Field(name string) *Path { return &Path{parent: p, name: name} }

// Index goes down into an element of a repeated field.
func (p *Path) Index(i int) *Path { return &Path{parent: p, index: i, step: stepIndex} }

// Key goes down into a value of a map field.
func (p *Path) Key(key string) *Path { return &Path{parent: p, name: key, step: stepKey} }

// String renders the path as users read it: a.b[2].c["key"].d. The nil Path is empty.
func (p *Path) String() string {
	if p == nil {
		return ""
	}
	var b strings.Builder
	p.write(&b)
	return b.String()
}

func (p *Path) write(b *strings.Builder) {
	if p.parent != nil {
		p.parent.write(b)
	}
	switch p.step {
	case stepIndex:
		b.WriteByte('[')
		b.WriteString(strconv.Itoa(p.index))
		b.WriteByte(']')
	case stepKey:
		b.WriteByte('[')
		b.WriteString(strconv.Quote(p.name))
		b.WriteByte(']')
	case stepField:
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(p.name)
	}
}

// joinPaths puts one rendered path behind another.
func joinPaths(front, back string) string {
	switch {
	case front == "":
		return back
	case back == "":
		return front
	case back[0] == '[':
		return front + back
	}
	return front + "." + back
}
