// Package header holds the header map that every codec fills and every filter reads.
//
// A map is an ordered list of fields in one byte arena. Names are lower-case; pseudo-headers (":path",
// ":status") are fields like any other. Strings that a map returns point into its arena: they hold
// until the map is Reset, even when fields are changed or removed meanwhile. A map belongs to one
// stream and is used by whoever runs that stream; it has no lock.
package header

import (
	"strings"
	"unsafe"
)

type field struct {
	name, value string
	id          ID
}

// Map is an ordered multimap of header fields. The zero value is an empty map.
type Map struct {
	fields []field
	arena  []byte
	// index[id] is one more than the position of the first field with that ID, 0 when there is none.
	index [numIDs]uint16
	bytes int
	// rawNames keeps the names as they came, parallel to fields, when the codec was asked to preserve
	// their case; nil otherwise.
	rawNames []string
	keepRaw  bool
}

// arenaKeep bounds what a pooled map keeps between streams.
const arenaKeep = 16 << 10

// Reset empties the map for another stream; strings it returned are void from here on.
func (m *Map) Reset() {
	if poison {
		for i := range m.arena {
			m.arena[i] = 0xDB
		}
	}
	clear(m.fields)
	m.fields = m.fields[:0]
	clear(m.rawNames)
	m.rawNames = m.rawNames[:0]
	m.keepRaw = false
	if cap(m.arena) > arenaKeep {
		m.arena = nil
	}
	m.arena = m.arena[:0]
	m.index = [numIDs]uint16{}
	m.bytes = 0
}

// Len returns the number of fields, pseudo-headers included.
func (m *Map) Len() int { return len(m.fields) }

// Bytes returns the sum of the lengths of all names and values (Envoy's HeaderMap::byteSize).
func (m *Map) Bytes() int { return m.bytes }

// At returns field i.
func (m *Map) At(i int) (name, value string) { f := &m.fields[i]; return f.name, f.value }

// IDAt returns the ID of field i.
func (m *Map) IDAt(i int) ID { return m.fields[i].id }

// KeepRawNames makes the map remember names as they were added by AddRaw (header_key_format
// preserve_case). It holds until Reset.
func (m *Map) KeepRawNames() { m.keepRaw = true }

// RawAt returns the name of field i as it came on the wire, or its lower-case name if not known.
func (m *Map) RawAt(i int) string {
	if i < len(m.rawNames) && m.rawNames[i] != "" {
		return m.rawNames[i]
	}
	return m.fields[i].name
}

func (m *Map) store(s string) string {
	if s == "" {
		return ""
	}
	// A grown arena leaves the old one to those who hold strings of it.
	if len(m.arena)+len(s) > cap(m.arena) {
		m.arena = make([]byte, 0, max(512, 2*cap(m.arena), len(s)))
	}
	n := len(m.arena)
	m.arena = append(m.arena, s...)
	return unsafe.String(&m.arena[n], len(s))
}

func (m *Map) storeLower(s []byte) string {
	v := m.store(unsafe.String(unsafe.SliceData(s), len(s)))
	b := m.arena[len(m.arena)-len(s):]
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return v
}

func (m *Map) push(id ID, name, value string) {
	if pseudo(name) {
		if at := m.pseudoEnd(); at < len(m.fields) {
			m.insert(at, field{name: name, value: value, id: id})
			return
		}
	}
	if id != None && m.index[id] == 0 {
		m.index[id] = uint16(len(m.fields) + 1)
	}
	m.bytes += len(name) + len(value)
	m.fields = append(m.fields, field{name: name, value: value, id: id})
}

func pseudo(name string) bool { return name != "" && name[0] == ':' }

// pseudoEnd returns how many pseudo-headers the map begins with.
func (m *Map) pseudoEnd() int {
	n := 0
	for n < len(m.fields) && pseudo(m.fields[n].name) {
		n++
	}
	return n
}

// insert puts a field at a place, as Envoy puts pseudo-headers before all others whenever they are
// added (HeaderMapImpl::HeaderList).
func (m *Map) insert(at int, f field) {
	for i := range m.index {
		if int(m.index[i]) > at {
			m.index[i]++
		}
	}
	if f.id != None && (m.index[f.id] == 0 || int(m.index[f.id]) > at) {
		m.index[f.id] = uint16(at + 1)
	}
	m.bytes += len(f.name) + len(f.value)
	m.fields = append(m.fields, field{})
	copy(m.fields[at+1:], m.fields[at:])
	m.fields[at] = f
	if len(m.rawNames) > at {
		m.rawNames = append(m.rawNames, "")
		copy(m.rawNames[at+1:], m.rawNames[at:])
		m.rawNames[at] = ""
	}
}

// Add appends a field; both strings are copied. A name that Envoy keeps once (an inline header) and
// that is present already has the value joined to it with a comma. name must be lower-case.
func (m *Map) Add(name, value string) {
	id := Lookup(name)
	if id != None {
		m.AddID(id, value)
		return
	}
	m.push(None, m.store(name), m.store(value))
}

// AddID is Add for a well-known name.
func (m *Map) AddID(id ID, value string) {
	if names[id].inline && m.index[id] != 0 {
		m.join(id, value)
		return
	}
	m.push(id, names[id].name, m.store(value))
}

// AddStatic appends a field without copying: the strings must outlive the map, as constants and
// strings of the configuration do.
func (m *Map) AddStatic(name, value string) {
	id := Lookup(name)
	if id != None && names[id].inline && m.index[id] != 0 {
		m.join(id, value)
		return
	}
	m.push(id, name, value)
}

// AddRaw appends a field as a codec read it: the name is lower-cased on the way in, both are copied.
// It returns the field's ID.
func (m *Map) AddRaw(name, value []byte) ID {
	lower := m.storeLower(name)
	id := Lookup(lower)
	v := unsafe.String(unsafe.SliceData(value), len(value))
	if id != None {
		m.arena = m.arena[:len(m.arena)-len(name)]
		if names[id].inline && m.index[id] != 0 {
			m.join(id, v)
			return id
		}
		lower = names[id].name
	}
	if m.keepRaw {
		for len(m.rawNames) < len(m.fields) {
			m.rawNames = append(m.rawNames, "")
		}
		m.rawNames = append(m.rawNames, m.store(unsafe.String(unsafe.SliceData(name), len(name))))
	}
	m.push(id, lower, m.store(v))
	return id
}

// AddIDBytes is AddID with the value in a byte slice.
func (m *Map) AddIDBytes(id ID, value []byte) {
	m.AddID(id, unsafe.String(unsafe.SliceData(value), len(value)))
}

// RawNameOf returns what SetRawName or AddRaw noted for the first field of a well-known name; "" if
// nothing.
func (m *Map) RawNameOf(id ID) string {
	if i := int(m.index[id]); i != 0 && i <= len(m.rawNames) {
		return m.rawNames[i-1]
	}
	return ""
}

// SetRawName notes how the first field of a well-known name was called on the wire, if the map keeps
// such names: a Host header is stored as :authority.
func (m *Map) SetRawName(id ID, name []byte) {
	if !m.keepRaw || m.index[id] == 0 {
		return
	}
	for len(m.rawNames) < len(m.fields) {
		m.rawNames = append(m.rawNames, "")
	}
	m.rawNames[m.index[id]-1] = m.store(unsafe.String(unsafe.SliceData(name), len(name)))
}

func (m *Map) join(id ID, value string) {
	f := &m.fields[m.index[id]-1]
	m.bytes += len(value) + 1
	if len(m.arena)+len(f.value)+len(value)+1 > cap(m.arena) {
		m.arena = make([]byte, 0, max(512, 2*cap(m.arena), len(f.value)+len(value)+1))
	}
	n := len(m.arena)
	m.arena = append(append(append(m.arena, f.value...), ','), value...)
	f.value = unsafe.String(&m.arena[n], len(m.arena)-n)
}

// Get returns the first value of a lower-case name.
func (m *Map) Get(name string) (string, bool) {
	if id := Lookup(name); id != None {
		return m.GetID(id)
	}
	for i := range m.fields {
		if m.fields[i].id == None && m.fields[i].name == name {
			return m.fields[i].value, true
		}
	}
	return "", false
}

// GetID returns the first value of a well-known name.
func (m *Map) GetID(id ID) (string, bool) {
	if i := m.index[id]; i != 0 {
		return m.fields[i-1].value, true
	}
	return "", false
}

// Value is GetID without the second result: "" when there is no such field.
func (m *Map) Value(id ID) string {
	if i := m.index[id]; i != 0 {
		return m.fields[i-1].value
	}
	return ""
}

// Has tells whether a well-known name is present.
func (m *Map) Has(id ID) bool { return m.index[id] != 0 }

// Joined returns all values of a name joined with commas, as matchers see repeated headers. It
// allocates only when there are several.
func (m *Map) Joined(name string) (string, bool) {
	var first string
	n := 0
	var b strings.Builder
	for i := range m.fields {
		if m.fields[i].name != name {
			continue
		}
		switch n++; n {
		case 1:
			first = m.fields[i].value
		case 2:
			b.WriteString(first)
			fallthrough
		default:
			b.WriteByte(',')
			b.WriteString(m.fields[i].value)
		}
	}
	if n > 1 {
		return b.String(), true
	}
	return first, n == 1
}

// Set gives name this one value: the first field of that name is changed where it stands and others
// of it go; without one it is appended. Both strings are copied.
func (m *Map) Set(name, value string) { m.set(Lookup(name), name, value, true) }

// SetID is Set for a well-known name.
func (m *Map) SetID(id ID, value string) { m.set(id, names[id].name, value, true) }

// SetStatic is SetID without copying value, which must outlive the map.
func (m *Map) SetStatic(id ID, value string) { m.set(id, names[id].name, value, false) }

func (m *Map) set(id ID, name, value string, own bool) {
	i := m.find(id, name)
	if own {
		value = m.store(value)
	}
	if i < 0 {
		if id == None {
			name = m.store(name)
		}
		m.push(id, name, value)
		return
	}
	m.bytes += len(value) - len(m.fields[i].value)
	m.fields[i].value = value
	if id == None || !names[id].inline {
		m.removeFrom(i+1, id, name)
	}
}

// SetBytes is SetID with the value in a byte slice.
func (m *Map) SetBytes(id ID, value []byte) {
	// Stored first: value is then known not to outlive the call, so that a caller's array stays on its
	// stack.
	m.set(id, names[id].name, m.store(unsafe.String(unsafe.SliceData(value), len(value))), false)
}

func (m *Map) find(id ID, name string) int {
	if id != None {
		return int(m.index[id]) - 1
	}
	for i := range m.fields {
		if m.fields[i].id == None && m.fields[i].name == name {
			return i
		}
	}
	return -1
}

// Remove takes all fields of a lower-case name away and tells how many there were.
func (m *Map) Remove(name string) int {
	id := Lookup(name)
	if i := m.find(id, name); i >= 0 {
		return m.removeFrom(i, id, name)
	}
	return 0
}

// RemoveID is Remove for a well-known name.
func (m *Map) RemoveID(id ID) int {
	if m.index[id] == 0 {
		return 0
	}
	return m.removeFrom(int(m.index[id])-1, id, names[id].name)
}

// RemoveIf takes away every field for which drop returns true.
func (m *Map) RemoveIf(drop func(id ID, name, value string) bool) int {
	return m.removeWhere(0, func(f *field) bool { return drop(f.id, f.name, f.value) })
}

func (m *Map) removeFrom(start int, id ID, name string) int {
	out := start
	raw := len(m.rawNames) > 0
	for i := start; i < len(m.fields); i++ {
		f := &m.fields[i]
		if f.id == id && (id != None || f.name == name) {
			m.bytes -= len(f.name) + len(f.value)
			continue
		}
		m.keep(out, i, raw)
		out++
	}
	return m.cut(out)
}

func (m *Map) removeWhere(start int, drop func(*field) bool) int {
	out := start
	raw := len(m.rawNames) > 0
	for i := start; i < len(m.fields); i++ {
		if f := &m.fields[i]; drop(f) {
			m.bytes -= len(f.name) + len(f.value)
			continue
		}
		m.keep(out, i, raw)
		out++
	}
	return m.cut(out)
}

func (m *Map) keep(to, from int, raw bool) {
	if to == from {
		return
	}
	m.fields[to] = m.fields[from]
	if !raw {
		return
	}
	s := ""
	if from < len(m.rawNames) {
		s = m.rawNames[from]
	}
	for len(m.rawNames) <= to {
		m.rawNames = append(m.rawNames, "")
	}
	m.rawNames[to] = s
}

func (m *Map) cut(n int) int {
	gone := len(m.fields) - n
	if gone == 0 {
		return 0
	}
	clear(m.fields[n:])
	m.fields = m.fields[:n]
	if len(m.rawNames) > n {
		m.rawNames = m.rawNames[:n]
	}
	m.index = [numIDs]uint16{}
	for i := len(m.fields) - 1; i >= 0; i-- { //nolint:modernize // no copy of a field for each
		if id := m.fields[i].id; id != None {
			m.index[id] = uint16(i + 1)
		}
	}
	return gone
}

// CopyFrom replaces the contents by a copy of src, which shares nothing with it.
func (m *Map) CopyFrom(src *Map) {
	m.Reset()
	for i := range src.fields {
		f := &src.fields[i]
		name := f.name
		if f.id == None {
			name = m.store(name)
		}
		m.push(f.id, name, m.store(f.value))
	}
	if len(src.rawNames) > 0 {
		m.keepRaw = true
		for _, s := range src.rawNames {
			m.rawNames = append(m.rawNames, m.store(s))
		}
	}
}
