package main

import (
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// enableCoreDump does what Envoy does for --enable-core-dump, and makes a Go crash end in a signal
// that dumps core.
func enableCoreDump() error {
	debug.SetTraceback("crash")
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl: %w", err)
	}
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &limit); err == nil {
		return nil
	}
	// Without the right to raise the hard limit, go as far as it allows.
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return fmt.Errorf("getrlimit: %w", err)
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return fmt.Errorf("setrlimit: %w", err)
	}
	return nil
}
