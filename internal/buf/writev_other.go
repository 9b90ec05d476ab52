//go:build !linux

package buf

import "syscall"

// WriteTo makes one write of the first piece to the file descriptor, and drops nothing. The error is a
// syscall.Errno.
func (c *Chain) WriteTo(fd int) (int, error) { return syscall.Write(fd, c.First()) }
