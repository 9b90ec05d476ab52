package buf

import (
	"syscall"
	"unsafe"
)

// vector is how many pieces one write takes: 32 frames of HTTP/2 with a head each.
type vector [64]syscall.Iovec

//nolint:gochecknoglobals // free list
var vectors = Pool[vector]{New: func() *vector { return new(vector) }}

// WriteTo makes one write of as much as there is to the file descriptor, and drops nothing. The error
// is a syscall.Errno.
func (c *Chain) WriteTo(fd int) (int, error) {
	if c.head == nil || c.head.next == nil {
		return syscall.Write(fd, c.First())
	}
	// Not on the stack: it would make that of every connection's goroutine grow.
	v, n := vectors.Get(), 0
	for p := c.head; p != nil && n < len(v); p = p.next {
		v[n].Base = &p.block.B[p.start]
		v[n].SetLen(p.end - p.start)
		n++
	}
	r, _, e := syscall.Syscall(syscall.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(v)), uintptr(n))
	clear(v[:n])
	vectors.Put(v)
	if e != 0 {
		return -1, e
	}
	return int(r), nil
}
