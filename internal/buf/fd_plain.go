//go:build !linux || race

package buf

import "syscall"

// ReadFD makes one read of a descriptor that does not block. The error is a syscall.Errno.
func ReadFD(fd int, p []byte) (int, error) { return syscall.Read(fd, p) }

// WriteFD makes one write to a descriptor that does not block. The error is a syscall.Errno.
func WriteFD(fd int, p []byte) (int, error) { return syscall.Write(fd, p) }

// WriteTo makes one write to a descriptor that does not block, and drops nothing. The error is a
// syscall.Errno.
func (c *Chain) WriteTo(fd int) (int, error) { return WriteFD(fd, c.First()) }
