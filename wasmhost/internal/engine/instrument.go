package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// globalExport is the name under which Instrument exports the nth mutable global.
func globalExport(n int) string { return "\x00sidecar.global." + strconv.Itoa(n) }

// Instrument rewrites a binary module so that snapshots can be taken of its instances.
//
// Each mutable global gets an export of a reserved name. The size of the memory as the module sees it
// becomes a global too, and growing it a function that is added: an instance that has grown goes back to
// the size of the snapshot, although its real memory can't shrink, and the next growth finds what is there.
//
// A module that changes its tables or drops segments has state that a snapshot can't hold; it is refused.
// The module has not been validated: whatever is no module is an error.
func Instrument(wasm []byte) ([]byte, error) {
	if len(wasm) < 8 || string(wasm[:8]) != "\x00asm\x01\x00\x00\x00" {
		return nil, errors.New("module: no binary WebAssembly module")
	}
	m := instrumenter{out: append([]byte(nil), wasm[:8]...)}
	r := reader{b: wasm[8:]}
	for len(r.b) > 0 && r.err == nil {
		id := r.byte()
		body := r.bytes(r.size())
		if r.err == nil {
			m.section(id, body)
		}
		if m.err != nil {
			return nil, fmt.Errorf("isolation per stream: %w", m.err)
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	m.exports(nil)
	return m.out, m.err
}

type instrumenter struct {
	out       []byte
	err       error
	types     uint32
	functions uint32   // with the imported ones
	imported  uint32   // globals
	globals   uint32   // with the imported ones
	mutable   []uint32 // indices of globals
	pages     uint64   // of the memory at first
	memory    bool
	grows     bool // the function that grows was added
	globalled bool
	exported  bool
}

func (m *instrumenter) put(id byte, body []byte) {
	m.out = append(m.out, id)
	m.out = binary.AppendUvarint(m.out, uint64(len(body)))
	m.out = append(m.out, body...)
}

// The sections that matter, by their ids.
const (
	typeSection     = 1
	importSection   = 2
	functionSection = 3
	memorySection   = 5
	globalSection   = 6
	exportSection   = 7
	codeSection     = 10
	tagSection      = 13 // between those of the memory and the globals
)

func (m *instrumenter) section(id byte, body []byte) {
	if id >= exportSection && id != tagSection {
		m.global(nil)
	}
	if id > exportSection && id != tagSection {
		m.exports(nil)
	}
	switch id {
	case typeSection:
		body = m.growType(body)
	case importSection:
		m.err = m.imports(body)
	case functionSection:
		body = m.growFunction(body)
	case memorySection:
		m.memories(body)
	case globalSection:
		m.global(body)
		return
	case exportSection:
		m.exports(body)
		return
	case codeSection:
		body = m.code(body)
	}
	m.put(id, body)
}

// more is a section with one entry more.
func more(r reader, n int, entry ...byte) []byte {
	return append(append(binary.AppendUvarint(nil, uint64(n+1)), r.b...), entry...)
}

// growType adds the type of the function that grows: i32 to i32.
func (m *instrumenter) growType(body []byte) []byte {
	r := reader{b: body}
	n := r.size()
	rest := r
	for range n {
		if r.byte() != 0x60 {
			m.err = errors.Join(r.err, errors.New("the module has types that are no functions"))
			return nil
		}
		for range 2 {
			for range r.size() {
				r.valueType()
			}
		}
		if r.err != nil {
			m.err = r.err
			return nil
		}
	}
	m.types = uint32(n)
	return more(rest, n, 0x60, 1, 0x7f, 1, 0x7f)
}

func (m *instrumenter) growFunction(body []byte) []byte {
	r := reader{b: body}
	n := r.size()
	if m.err = r.err; n == 0 {
		return body
	}
	m.functions += uint32(n)
	m.grows = true
	return more(r, n, binary.AppendUvarint(nil, uint64(m.types))...)
}

func (m *instrumenter) memories(body []byte) {
	r := reader{b: body}
	if r.size() == 0 {
		return
	}
	flags := r.byte()
	m.pages = r.uleb()
	m.memory = true
	if m.err = r.err; flags > 1 {
		m.err = errors.New("the module's memory is shared, or of 64 bits")
	}
}

// global writes the section of globals with the size of the memory, once; body is nil if there is none.
func (m *instrumenter) global(body []byte) {
	if m.globalled {
		return
	}
	m.globalled = true
	m.globals = m.imported
	r := reader{b: body}
	n := 0
	if body != nil {
		if m.err = m.scanGlobals(body); m.err != nil {
			return
		}
		n = r.size()
		m.globals += uint32(n)
	}
	if !m.memory || !m.grows {
		m.grows = false
		if body != nil {
			m.put(globalSection, body)
		}
		return
	}
	m.mutable = append(m.mutable, m.globals)
	entry := appendSigned([]byte{0x7f, 1, 0x41}, int64(int32(uint32(m.pages))))
	m.put(globalSection, more(r, n, append(entry, opEnd)...))
}

func appendSigned(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if (v == 0 && c&0x40 == 0) || (v == -1 && c&0x40 != 0) {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func (m *instrumenter) imports(body []byte) error {
	r := reader{b: body}
	for range r.size() {
		r.bytes(r.size())
		r.bytes(r.size())
		switch kind := r.byte(); kind {
		case 0:
			r.uleb()
			m.functions++
		case 1:
			r.valueType()
			r.limits()
		case 2:
			r.limits()
		case 3:
			r.valueType()
			r.byte()
			m.imported++
		default:
			r.uleb()
			r.uleb()
		}
		if r.err != nil {
			return r.err
		}
	}
	return r.err
}

func (m *instrumenter) scanGlobals(body []byte) error {
	r := reader{b: body}
	for i := range r.size() {
		kind := r.valueType()
		if r.byte() == 1 {
			m.mutable = append(m.mutable, m.imported+uint32(i))
			if kind < 0x7b { // i32, i64, f32, f64 and v128 are the five largest
				return errors.New("the module has a mutable global that is a reference")
			}
		}
		for op := r.op(); op != opEnd && r.err == nil; op = r.op() {
		}
		if r.err != nil {
			return r.err
		}
	}
	return r.err
}

// exports writes the export section with what is added, once; body is nil if the module has none.
func (m *instrumenter) exports(body []byte) {
	if m.exported {
		return
	}
	m.exported = true
	r := reader{b: body}
	n := 0
	if body != nil {
		n = r.size()
	}
	if n+len(m.mutable) == 0 && body == nil {
		return
	}
	out := binary.AppendUvarint(nil, uint64(n+len(m.mutable)))
	out = append(out, r.b...)
	for i, g := range m.mutable {
		name := globalExport(i)
		out = binary.AppendUvarint(out, uint64(len(name)))
		out = append(append(out, name...), 3)
		out = binary.AppendUvarint(out, uint64(g))
	}
	m.put(exportSection, out)
	m.err = errors.Join(m.err, r.err)
}

// code checks each function, has it ask for the memory's size and grow it in the new way, and adds the
// function that grows.
func (m *instrumenter) code(body []byte) []byte {
	r := reader{b: body}
	n := r.size()
	if !m.grows {
		m.functions = 0
	}
	out := make([]byte, 0, len(body)+len(body)/64+128)
	total := n
	if m.grows {
		total++
	}
	out = binary.AppendUvarint(out, uint64(total))
	var f []byte
	for range n {
		in := reader{b: r.bytes(r.size())}
		if m.err = r.err; m.err != nil {
			return nil
		}
		if f, m.err = m.function(f[:0], in); m.err != nil {
			return nil
		}
		out = append(binary.AppendUvarint(out, uint64(len(f))), f...)
	}
	if m.grows {
		f = m.growCode(f[:0])
		out = append(binary.AppendUvarint(out, uint64(len(f))), f...)
	}
	m.err = r.err
	return out
}

func (m *instrumenter) function(out []byte, r reader) ([]byte, error) {
	all := r.b
	for range r.size() { // locals
		r.uleb()
		r.valueType()
		if r.err != nil {
			return nil, r.err
		}
	}
	out = append(out, all[:len(all)-len(r.b)]...)
	for len(r.b) > 0 && r.err == nil {
		before := r.b
		switch op := r.op(); {
		case m.grows && op == opMemorySize:
			out = binary.AppendUvarint(append(out, 0x23), uint64(m.globals)) // global.get
		case m.grows && op == opMemoryGrow:
			out = binary.AppendUvarint(append(out, 0x10), uint64(m.functions)) // call
		default:
			out = append(out, before[:len(before)-len(r.b)]...)
		}
	}
	return out, r.err
}

// growCode is memory.grow for the size that the module sees: -1 if that would be more than 65,536 pages,
// or if the real memory, which is grown where it doesn't suffice, can't be.
func (m *instrumenter) growCode(b []byte) []byte {
	size := binary.AppendUvarint(nil, uint64(m.globals))
	b = append(b, 1, 2, 0x7f, 0x23) // Two locals: the new size, the old one.
	b = append(b, size...)
	return append(append(append(b,
		0x21, 2,
		0x20, 2, 0x20, 0, 0x6a, 0x22, 1, 0x20, 2, 0x49, 0x04, 0x40, 0x41, 0x7f, 0x0f, 0x0b,
		0x20, 1, 0x41, 0x80, 0x80, 0x04, 0x4b, 0x04, 0x40, 0x41, 0x7f, 0x0f, 0x0b,
		0x20, 1, opMemorySize, 0, 0x4b, 0x04, 0x40,
		0x20, 1, opMemorySize, 0, 0x6b, opMemoryGrow, 0, 0x41, 0x7f, 0x46, 0x04, 0x40, 0x41, 0x7f, 0x0f, 0x0b,
		0x0b,
		0x20, 1, 0x24), size...),
		0x20, 2, opEnd)
}

// reader reads a module. After an error it gives zeros.
type reader struct {
	b   []byte
	err error
}

var errCut = errors.New("the module is cut short")

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail(errCut)
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b) {
		r.fail(errCut)
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) uleb() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail(errCut)
		return 0
	}
	r.b = r.b[n:]
	return v
}

// size is a count or a length, which can't be more than what is left.
func (r *reader) size() int {
	v := r.uleb()
	if v > uint64(len(r.b)) {
		r.fail(errCut)
		return 0
	}
	return int(v)
}

func (r *reader) skipLEB() {
	for r.byte()&0x80 != 0 && r.err == nil {
	}
}

// valueType gives the first byte of a type; references to a heap type have more.
func (r *reader) valueType() byte {
	c := r.byte()
	if c == 0x63 || c == 0x64 {
		r.skipLEB()
	}
	return c
}

func (r *reader) limits() {
	flags := r.byte()
	r.uleb()
	if flags&1 != 0 {
		r.uleb()
	}
}

func (r *reader) memarg() {
	if r.uleb()&0x40 != 0 {
		r.uleb()
	}
	r.uleb()
}

const (
	opEnd        = 0x0b
	opMemorySize = 0x3f
	opMemoryGrow = 0x40
)

var (
	errTables   = errors.New("the module changes its tables")
	errSegments = errors.New("the module drops segments")
)

// op reads one instruction with its immediates and gives its opcode.
func (r *reader) op() byte {
	c := r.byte()
	switch {
	case c == 0x02 || c == 0x03 || c == 0x04 || c == 0x06 || c == 0xd0: // blocks, ref.null
		r.skipLEB()
	case c == 0x11 || c == 0x13: // call_indirect
		r.uleb()
		r.uleb()
	case c == 0x0e: // br_table
		for range r.size() + 1 {
			r.uleb()
		}
	case c == 0x1c: // select with types
		for range r.size() {
			r.valueType()
		}
	case c == 0x26:
		r.fail(errTables)
	case c == 0x07 || c == 0x08 || c == 0x09 || c == 0x0c || c == 0x0d || c == 0x10 || c == 0x12 || c == 0x14 ||
		c == 0x15 || c == 0x18 || (c >= 0x20 && c <= 0x25) || c == 0x3f || c == 0x40 || c == 0xd2 || c == 0xd5 || c == 0xd6:
		r.uleb()
	case c >= 0x28 && c <= 0x3e:
		r.memarg()
	case c == 0x41 || c == 0x42: // constants
		r.skipLEB()
	case c == 0x43:
		r.bytes(4)
	case c == 0x44:
		r.bytes(8)
	case c == 0xfc:
		r.miscOp()
	case c == 0xfd:
		r.vectorOp()
	case c == 0x1f || c == 0xfb || c == 0xfe:
		r.fail(fmt.Errorf("instruction %#x is not supported", c))
	}
	return c
}

func (r *reader) miscOp() {
	switch n := r.uleb(); n {
	case 0, 1, 2, 3, 4, 5, 6, 7: // saturating truncations
	case 8, 10: // memory.init, memory.copy
		r.uleb()
		r.uleb()
	case 11, 16: // memory.fill, table.size
		r.uleb()
	case 9, 13:
		r.fail(errSegments)
	case 12, 14, 15, 17:
		r.fail(errTables)
	default:
		r.fail(fmt.Errorf("instruction 0xfc %d is not supported", n))
	}
}

func (r *reader) vectorOp() {
	switch n := r.uleb(); {
	case n <= 11 || n == 0x5c || n == 0x5d:
		r.memarg()
	case n == 12 || n == 13: // v128.const, shuffle
		r.bytes(16)
	case n >= 0x15 && n <= 0x22: // lanes
		r.byte()
	case n >= 0x54 && n <= 0x5b:
		r.memarg()
		r.byte()
	}
}

// instrumented counts the globals that Instrument has exported.
func instrumented(m *Module) int {
	n := 0
	for _, e := range m.Exports {
		if strings.HasPrefix(e.Name, "\x00sidecar.global.") {
			n++
		}
	}
	return n
}
