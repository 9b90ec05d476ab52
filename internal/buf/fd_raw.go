//go:build linux && !race

package buf

import (
	"syscall"
	"unsafe"
)

// Calls on sockets that do not block are made without telling the scheduler. It would take them for
// blocking ones after 20 us, as long as sending on a loopback takes, and start another thread for the
// goroutines that wait: with one processor (--concurrency 1) that is two switches of threads for each
// such call.

// ReadFD makes one read of a descriptor that does not block. An error is not 0.
func ReadFD(fd int, p []byte) (int, syscall.Errno) {
	if len(p) == 0 {
		return 0, 0
	}
	n, _, e := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return result(n, e)
}

// PeekFD makes one read of a socket, which does not wait and leaves there what it returns. An error is
// not 0.
func PeekFD(fd int, p []byte) (int, syscall.Errno) {
	n, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)), syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	return result(n, e)
}

// WriteFD makes one write to a descriptor that does not block. An error is not 0.
func WriteFD(fd int, p []byte) (int, syscall.Errno) {
	if len(p) == 0 {
		return 0, 0
	}
	n, _, e := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return result(n, e)
}

func result(n uintptr, e syscall.Errno) (int, syscall.Errno) {
	if e != 0 {
		return -1, e
	}
	return int(n), 0
}

// vector is how many pieces one write takes: 32 frames of HTTP/2 with a head each.
type vector [64]syscall.Iovec

//nolint:gochecknoglobals // free list
var vectors = Pool[vector]{New: func() *vector { return new(vector) }}

// WriteTo makes one write of as much as there is to a descriptor that does not block, and drops
// nothing. An error is not 0.
func (c *Chain) WriteTo(fd int) (int, syscall.Errno) {
	if c.head == nil || c.head.next == nil {
		return WriteFD(fd, c.First())
	}
	// Not on the stack: it would make that of every connection's goroutine grow.
	v, n := vectors.Get(), 0
	for p := c.head; p != nil && n < len(v); p = p.next {
		v[n].Base = &p.block.B[p.start]
		v[n].SetLen(p.end - p.start)
		n++
	}
	r, _, e := syscall.RawSyscall(syscall.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(v)), uintptr(n))
	clear(v[:n])
	vectors.Put(v)
	return result(r, e)
}
