//go:build !linux

package server

import "runtime/debug"

// releaseMemory gives back the garbage of the configuration.
func releaseMemory() { debug.FreeOSMemory() }
