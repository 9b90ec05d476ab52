//go:build !linux || race

package buf

import (
	"errors"
	"syscall"
)

// ReadFD makes one read of a descriptor that does not block. An error is not 0.
func ReadFD(fd int, p []byte) (int, syscall.Errno) {
	n, err := syscall.Read(fd, p)
	return n, number(err)
}

// PeekFD makes one read of a socket, which does not wait and leaves there what it returns. An error is
// not 0.
func PeekFD(fd int, p []byte) (int, syscall.Errno) {
	n, _, err := syscall.Recvfrom(fd, p, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return n, number(err)
}

// WriteFD makes one write to a descriptor that does not block. An error is not 0.
func WriteFD(fd int, p []byte) (int, syscall.Errno) {
	n, err := syscall.Write(fd, p)
	return n, number(err)
}

// WriteTo makes one write to a descriptor that does not block, and drops nothing. An error is not 0.
func (c *Chain) WriteTo(fd int) (int, syscall.Errno) { return WriteFD(fd, c.First()) }

func number(err error) syscall.Errno {
	var e syscall.Errno
	if err != nil && !errors.As(err, &e) {
		return syscall.EIO
	}
	return e
}
