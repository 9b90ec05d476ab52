// Package buf holds byte buffers and object pools of the data path.
package buf

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// Pool recycles objects of one type. It is a typed sync.Pool; the zero value is not ready, New must
// be set.
type Pool[T any] struct {
	p   sync.Pool
	New func() *T
}

// Get returns an object, a recycled one if there is one.
func (p *Pool[T]) Get() *T {
	if v, ok := p.p.Get().(*T); ok {
		return v
	}
	return p.New()
}

// Put gives v back; the caller holds no reference to it any more.
func (p *Pool[T]) Put(v *T) { p.p.Put(v) }

// The sizes of pooled blocks: a request, a large read, bulk.
const (
	Small = 4 << 10
	Read  = 16 << 10
	Bulk  = 64 << 10
)

// MinShare is the least that is worth a reference to a block instead of a copy. What waits keeps the
// whole block from its pool, so it also bounds how much memory a few waiting bytes can hold.
const MinShare = 4 << 10

// Block is a pooled array of one of the three sizes. It goes back to its pool when everybody who
// holds it has called Put; bytes that others may look at do not change while it is shared.
type Block struct {
	B    []byte
	refs atomic.Int32
}

//nolint:gochecknoglobals // process-wide free lists; they hold memory, never state
var blocks = [3]Pool[Block]{
	{New: func() *Block { return &Block{B: make([]byte, Small)} }},
	{New: func() *Block { return &Block{B: make([]byte, Read)} }},
	{New: func() *Block { return &Block{B: make([]byte, Bulk)} }},
}

func class(n int) int {
	switch {
	case n <= Small:
		return 0
	case n <= Read:
		return 1
	case n <= Bulk:
		return 2
	default:
		return -1
	}
}

// GetBlock returns a block of at least n bytes that the caller holds; more than Bulk is allocated and
// not pooled.
func GetBlock(n int) *Block {
	var b *Block
	if c := class(n); c >= 0 {
		b = blocks[c].Get()
	} else {
		b = &Block{B: make([]byte, n)}
	}
	b.refs.Store(1)
	return b
}

// Share lets somebody else hold the block too, who calls Put for it. It returns b.
func (b *Block) Share() *Block {
	b.refs.Add(1)
	return b
}

// Put ends the caller's hold of the block; with the last one it goes back to its pool and its bytes
// may change at once.
func (b *Block) Put() {
	switch n := b.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("buf: a block was put back twice")
	}
	switch len(b.B) {
	case Small, Read, Bulk:
		blocks[class(len(b.B))].Put(b)
	}
}

// Holds tells whether p, which is not empty, is a part of the block.
func (b *Block) Holds(p []byte) bool {
	first := uintptr(unsafe.Pointer(unsafe.SliceData(b.B)))
	at := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	return at >= first && at+uintptr(len(p)) <= first+uintptr(len(b.B))
}

// offset is where p begins in the block, which holds it.
func (b *Block) offset(p []byte) int {
	return int(uintptr(unsafe.Pointer(unsafe.SliceData(p))) - uintptr(unsafe.Pointer(unsafe.SliceData(b.B))))
}

// Buffer is a queue of bytes in one piece. The zero value is empty and ready; it takes pooled memory
// as it grows and gives it back when it is Reset or drained. It has no lock.
type Buffer struct {
	block  *Block
	start  int
	end    int
	shared bool // others hold the block: nothing but the contents may be written to
}

// Len returns the number of bytes held.
func (b *Buffer) Len() int { return b.end - b.start }

// Bytes returns what is held; it is valid until the next call that changes the buffer, and may be
// written to in place.
func (b *Buffer) Bytes() []byte {
	if b.block == nil {
		return nil
	}
	return b.block.B[b.start:b.end]
}

// Append copies p to the end.
func (b *Buffer) Append(p []byte) {
	if len(p) == 0 {
		return
	}
	copy(b.grow(len(p)), p)
	b.end += len(p)
}

// AppendShared appends p, which is a part of block if that is not nil, without copying it where that
// pays. The bytes become the buffer's, to be written to in place as well.
func (b *Buffer) AppendShared(block *Block, p []byte) {
	if block == nil || len(p) < MinShare || b.Len() > 0 {
		b.Append(p)
		return
	}
	b.Reset()
	b.block, b.shared = block.Share(), true
	b.start = block.offset(p)
	b.end = b.start + len(p)
}

// AppendString copies s to the end.
func (b *Buffer) AppendString(s string) {
	if s == "" {
		return
	}
	copy(b.grow(len(s)), s)
	b.end += len(s)
}

// Tail returns free space of at least n bytes behind the contents; Extend makes what was written
// there part of them. An encoder appends into it in place.
func (b *Buffer) Tail(n int) []byte { return b.grow(n) }

// Extend adds the first n bytes of the last Tail to the contents.
func (b *Buffer) Extend(n int) { b.end += n }

// grow makes room for n bytes behind end and returns all free space there.
func (b *Buffer) grow(n int) []byte {
	if b.block == nil {
		b.block = GetBlock(n)
		b.start, b.end = 0, 0
		return b.block.B
	}
	if b.end+n <= len(b.block.B) && !b.shared {
		return b.block.B[b.end:]
	}
	size := b.Len()
	if b.start > 0 && !b.shared && size+n <= len(b.block.B) && b.start >= size {
		copy(b.block.B, b.block.B[b.start:b.end])
		b.start, b.end = 0, size
		return b.block.B[b.end:]
	}
	next := GetBlock(max(size+n, min(2*len(b.block.B), size+n+Bulk)))
	copy(next.B, b.block.B[b.start:b.end])
	b.block.Put()
	*b = Buffer{block: next, end: size}
	return b.block.B[b.end:]
}

// Prepend copies p in front.
func (b *Buffer) Prepend(p []byte) {
	if len(p) == 0 {
		return
	}
	if b.block != nil && b.start >= len(p) && !b.shared {
		b.start -= len(p)
		copy(b.block.B[b.start:], p)
		return
	}
	size := b.Len()
	next := GetBlock(size + len(p))
	copy(next.B, p)
	copy(next.B[len(p):], b.Bytes())
	if b.block != nil {
		b.block.Put()
	}
	*b = Buffer{block: next, end: size + len(p)}
}

// Consume drops the first n bytes; an emptied buffer gives its memory back.
func (b *Buffer) Consume(n int) {
	b.start += n
	if b.start >= b.end {
		b.Reset()
	}
}

// Truncate keeps the first n bytes.
func (b *Buffer) Truncate(n int) {
	if n < b.Len() {
		b.end = b.start + n
	}
	if b.start == b.end {
		b.Reset()
	}
}

// Reset empties the buffer and gives its memory back.
func (b *Buffer) Reset() {
	if b.block != nil {
		b.block.Put()
	}
	*b = Buffer{}
}

// Swap exchanges the contents of two buffers.
func (b *Buffer) Swap(o *Buffer) { *b, *o = *o, *b }
