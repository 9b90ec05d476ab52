package wasmcli

import (
	"bytes"
	"errors"
	"fmt"
)

// section is one section of a module.
type section struct {
	Name  string
	Bytes int
	// Count is how many entries it has, for those that are lists.
	Count int
}

// layout is what a module's bytes say before anything is compiled.
type layout struct {
	Sections []section
	Memories []limits
	Tables   []limits
	// Producers are the languages and tools that made the module, as the section of that name says.
	Producers []string
	// Start tells of a start section, which runs before any export.
	Start bool
}

// limits are those of a memory in pages of 64 KiB, or of a table in elements. Max is 0 for none.
type limits struct{ Min, Max uint64 }

//nolint:gochecknoglobals // immutable table
var sectionNames = [...]string{
	"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element",
	"code", "data", "data count", "tag",
}

const (
	customSection = 0
	tableSection  = 4
	memorySection = 5
	startSection  = 8
)

var (
	errMagic     = errors.New("not a Wasm module: it doesn't begin with \\0asm")
	errComponent = errors.New("a Wasm component, not a core module: build the plugin for wasm32-wasip1, not wasip2")
	errCut       = errors.New("the module is cut short")
)

// readLayout walks the sections of a binary module. It checks only what it needs; the compiler does the
// rest.
func readLayout(code []byte) (*layout, error) {
	if !bytes.HasPrefix(code, []byte("\x00asm")) {
		return nil, notWasm(code)
	}
	if len(code) < 8 {
		return nil, errCut
	}
	if code[6] != 0 {
		return nil, errComponent
	}
	if !bytes.Equal(code[4:8], []byte{1, 0, 0, 0}) {
		return nil, fmt.Errorf("unknown version %x of the Wasm format", code[4:8])
	}
	out := &layout{}
	r := &reader{b: code[8:]}
	for len(r.b) > 0 {
		id := r.byte()
		body := &reader{b: r.take(int(r.number()))}
		if r.bad {
			return out, errCut
		}
		out.add(id, body)
	}
	return out, nil
}

// notWasm tells what the bytes are, if they are something that people mistake for a module.
func notWasm(code []byte) error {
	switch {
	case bytes.HasPrefix(code, []byte{0x1f, 0x8b}):
		return errors.New("not a Wasm module but gzip data")
	case bytes.HasPrefix(bytes.TrimSpace(code), []byte("(module")):
		return errors.New("not a binary module but Wasm text: translate it with wat2wasm")
	case len(code) > 262 && string(code[257:262]) == "ustar":
		return errors.New("not a Wasm module but a tar archive")
	}
	return errMagic
}

func (l *layout) add(id byte, body *reader) {
	s := section{Name: fmt.Sprintf("section %d", id), Bytes: len(body.b)}
	if int(id) < len(sectionNames) {
		s.Name = sectionNames[id]
	}
	switch id {
	case customSection:
		s.Name = fmt.Sprintf("custom %q", clean(body.name()))
		if s.Name == `custom "producers"` {
			l.producers(body)
		}
	case startSection:
		l.Start = true
	default:
		s.Count = int(body.number())
	}
	switch id {
	case memorySection:
		l.Memories = body.limits(s.Count, false)
	case tableSection:
		l.Tables = body.limits(s.Count, true)
	}
	l.Sections = append(l.Sections, s)
}

// maxListed bounds lists that are read out of a module.
const maxListed = 64

// producers reads fields like language, each a list of names with versions.
func (l *layout) producers(r *reader) {
	for range min(r.number(), maxListed) {
		field := r.name()
		for range min(r.number(), maxListed) {
			name, version := r.name(), r.name()
			if r.bad {
				return
			}
			text := field + " " + name
			if version != "" {
				text += " " + version
			}
			l.Producers = append(l.Producers, clean(text))
		}
	}
}

// clean keeps a module's text from steering a terminal.
func clean(s string) string {
	if len(s) > 200 {
		s = s[:200]
	}
	return string(bytes.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return '?'
		}
		return r
	}, []byte(s)))
}

// reader reads the encodings of the format. After an error bad is set and all that is read is zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

// number reads a LEB128 of up to 64 bits.
func (r *reader) number() uint64 {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		c := r.byte()
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
	r.bad = true
	return 0
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) name() string { return string(r.take(int(r.number()))) }

// limits reads those of memories, or of tables, which have a type in front.
func (r *reader) limits(count int, table bool) []limits {
	var out []limits
	for range min(count, maxListed) {
		if table {
			r.byte()
		}
		flags := r.byte()
		l := limits{Min: r.number()}
		if flags&1 != 0 {
			l.Max = r.number()
		}
		if r.bad {
			break
		}
		out = append(out, l)
	}
	return out
}
