package header

import "unsafe"

// AddBytes is Add with the value in a byte slice.
func (m *Map) AddBytes(name string, value []byte) {
	m.Add(name, unsafe.String(unsafe.SliceData(value), len(value)))
}

// SetConcat is SetID with the value in two pieces, which may be of this map.
func (m *Map) SetConcat(id ID, a, b string) {
	n := len(a) + len(b)
	if n == 0 {
		m.SetStatic(id, "")
		return
	}
	// As in store, a grown arena leaves the old one to those who hold strings of it.
	if len(m.arena)+n > cap(m.arena) {
		m.arena = make([]byte, 0, max(512, 2*cap(m.arena), n))
	}
	from := len(m.arena)
	m.arena = append(append(m.arena, a...), b...)
	m.SetStatic(id, unsafe.String(&m.arena[from], n))
}
