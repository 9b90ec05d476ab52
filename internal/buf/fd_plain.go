//go:build !linux || race

package buf

import "syscall"

// ReadFD makes one read of a descriptor that does not block. The error is a syscall.Errno.
func ReadFD(fd int, p []byte) (int, error) { return syscall.Read(fd, p) }

// PeekFD makes one read of a socket, which does not wait and leaves there what it returns. The error is
// a syscall.Errno.
func PeekFD(fd int, p []byte) (int, error) {
	n, _, err := syscall.Recvfrom(fd, p, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return n, err
}

// WriteFD makes one write to a descriptor that does not block. The error is a syscall.Errno.
func WriteFD(fd int, p []byte) (int, error) { return syscall.Write(fd, p) }

// WriteTo makes one write to a descriptor that does not block, and drops nothing. The error is a
// syscall.Errno.
func (c *Chain) WriteTo(fd int) (int, error) { return WriteFD(fd, c.First()) }
