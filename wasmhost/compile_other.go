//go:build !linux

package wasmhost

import (
	"os"
	"os/exec"
	"time"
)

func limitChild(*exec.Cmd) {}

func limitSelf(time.Duration) error { return nil }

func yield(bool) {}

// memoryFile is a file that has lost its name.
func memoryFile(name string) (*os.File, error) {
	f, err := os.CreateTemp("", name)
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}
