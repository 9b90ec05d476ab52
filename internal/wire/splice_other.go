//go:build !linux

package wire

import (
	"errors"

	"sidecar/internal/buf"
)

// ErrNoSplice says that the kernel can't splice these two; nothing was moved.
var ErrNoSplice = errors.New("splice is not supported here")

// SpliceTo is not there on this system.
func (c *Conn) SpliceTo(*Conn, func(n int)) error { return ErrNoSplice }

// Bulk is the size of the blocks that fill up before a transfer counts as bulk.
const Bulk = buf.Bulk
