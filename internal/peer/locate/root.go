package locate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Environment variables that name a program directly, before anything is looked for.
const (
	SidecarVariable = "SIDECAR_BINARY"
	EnvoyVariable   = "SIDECAR_PEER_ENVOY"
)

// Root returns the folder of go.mod, at or above the working directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod at or above the working directory")
		}
		dir = parent
	}
}

// Sidecar returns the project's own binary: SIDECAR_BINARY, else bin/sidecar.
func Sidecar(root string) (string, error) {
	path := os.Getenv(SidecarVariable)
	if path == "" {
		path = filepath.Join(root, "bin", "sidecar")
	}
	if err := executable(path); err != nil {
		return "", fmt.Errorf("sidecar: %w (run make build)", err)
	}
	return filepath.Abs(path)
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("%s: not an executable file", path)
	}
	return nil
}
