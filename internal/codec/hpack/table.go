package hpack

import "sidecar/api/header"

// entryOverhead is what an entry counts beside its strings (RFC 7541 section 4.1).
const entryOverhead = 32

// defaultTable is the size of both tables before any setting (RFC 9113 section 6.5.2).
const defaultTable = 4096

// entry is one field of the dynamic table. Its name and value lie side by side in the arena.
type entry struct {
	at          uint32 // in the stream of all bytes that ever entered the arena, modulo 2^32
	name, value uint32 // lengths
	hash        uint32 // the encoder's
	id          header.ID
}

func (e *entry) size() uint32 { return e.name + e.value + entryOverhead }

// table is the dynamic table: a ring of entries over a byte queue. The queue's bytes are contiguous:
// it moves to the front of its buffer when it comes to the end, which happens at most once for each
// buffer's worth of bytes.
type table struct {
	size, max uint32
	count     uint32
	inserted  uint32 // entries ever, modulo 2^32; the newest is at inserted-1
	entries   []entry
	arena     []byte
	start     uint32 // of the live bytes in arena
	base      uint32 // position in the stream of arena[0]
}

// get returns the entry with a dynamic index, 1 being the newest; nil if there is none.
func (t *table) get(i uint32) *entry {
	if i == 0 || i > t.count {
		return nil
	}
	return &t.entries[(t.inserted-i)&uint32(len(t.entries)-1)]
}

func (t *table) strings(e *entry) (name, value []byte) {
	from := e.at - t.base
	end := from + e.name
	return t.arena[from:end:end], t.arena[end : end+e.value : end+e.value]
}

// resize sets the table's size, evicting what is too much.
func (t *table) resize(n uint32) {
	t.max = n
	t.evict(0)
	if t.count == 0 {
		t.arena, t.entries = nil, nil
		t.start = 0
	}
}

// evict makes room for an entry of n bytes.
func (t *table) evict(n uint32) {
	for t.count > 0 && t.size+n > t.max {
		e := t.get(t.count)
		t.size -= e.size()
		t.start += e.name + e.value
		t.count--
	}
}

// insert adds a field. Neither string may lie in the arena. One that is larger than the table empties
// it (RFC 7541 section 4.4); false says that it did not enter.
func insert[N, V ~string | ~[]byte](t *table, id header.ID, name N, value V, hash uint32) bool {
	n := uint64(len(name)) + uint64(len(value))
	if n+entryOverhead > uint64(t.max) {
		t.clear()
		return false
	}
	t.evict(uint32(n) + entryOverhead)
	t.room(int(n))
	e := entry{
		at: t.base + uint32(len(t.arena)), name: uint32(len(name)), value: uint32(len(value)),
		hash: hash, id: id,
	}
	t.arena = append(append(t.arena, name...), value...)
	t.entries[t.inserted&uint32(len(t.entries)-1)] = e
	t.inserted++
	t.count++
	t.size += e.size()
	return true
}

func (t *table) clear() {
	t.size, t.count = 0, 0
	t.base += uint32(len(t.arena))
	t.arena, t.start = t.arena[:0], 0
}

const (
	minArena   = 256
	minEntries = 8
)

// room makes place for one entry of n bytes behind the live ones.
func (t *table) room(n int) {
	if len(t.arena)+n > cap(t.arena) {
		live := t.arena[t.start:]
		// A buffer that is kept is at least twice what lives in it: moves are paid for by what was
		// inserted since the last.
		to := t.arena[:0]
		if 2*(len(live)+n) > cap(t.arena) {
			to = make([]byte, 0, max(minArena, 3*(len(live)+n)))
		}
		t.arena = append(to, live...)
		t.base += t.start
		t.start = 0
	}
	if int(t.count) == len(t.entries) {
		grown := make([]entry, max(minEntries, 2*len(t.entries)))
		for i := uint32(1); i <= t.count; i++ {
			grown[(t.inserted-i)&uint32(len(grown)-1)] = *t.get(i)
		}
		t.entries = grown
	}
}
