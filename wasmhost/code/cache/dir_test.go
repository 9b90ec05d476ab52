package cache

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, path string, limit int64) *Dir {
	t.Helper()
	d, err := Open(path, limit, "t1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestModules(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a", "b")
	d := open(t, path, 1<<20)
	code := []byte("module")
	g := sha256.Sum256(code)
	if _, ok := d.Module(g); ok || d.HasModule(g) {
		t.Error("found before it was put")
	}
	if err := d.PutModule(g, code); err != nil {
		t.Fatal(err)
	}
	if got, ok := d.Module(g); !ok || !bytes.Equal(got, code) || !d.HasModule(g) {
		t.Errorf("got %q, %v", got, ok)
	}
	// Another process sees it too.
	if _, ok := open(t, path, 1<<20).Module(g); !ok {
		t.Error("not found by another")
	}
	// A module that isn't what its name says is gone.
	if err := os.WriteFile(filepath.Join(path, moduleName(g)), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := d.Module(g); ok || d.HasModule(g) {
		t.Error("a changed module was taken")
	}
}

func TestReferences(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir()+"/c", 1<<20)
	want := Reference{Code: "aa", Manifest: "sha256:bb"}
	if err := d.PutReference("oci://host/image:tag", want); err != nil {
		t.Fatal(err)
	}
	if got, ok := d.Reference("oci://host/image:tag"); !ok || got != want {
		t.Errorf("got %v, %v", got, ok)
	}
	if _, ok := d.Reference("oci://host/image:other"); ok {
		t.Error("found what was not put")
	}
}

func TestCompiled(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/c"
	d := open(t, path, 1<<20)
	g := sha256.Sum256([]byte("x"))
	f, err := d.Create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("native"); err != nil {
		t.Fatal(err)
	}
	if err := d.CommitCompiled(f, g); err != nil {
		t.Fatal(err)
	}
	got, ok := d.Compiled(g)
	if !ok {
		t.Fatal("not found")
	}
	_ = got.Close()
	other, err := Open(path, 1<<20, "t2")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, ok := other.Compiled(g); ok {
		t.Error("found by another compiler")
	}
	d.DropCompiled(g)
	if _, ok := d.Compiled(g); ok {
		t.Error("found after it was dropped")
	}
}

// TestForeignWriters holds that nothing is taken that someone else could have written.
func TestForeignWriters(t *testing.T) {
	t.Parallel()
	g := sha256.Sum256([]byte("x"))
	for _, tc := range []struct {
		name  string
		spoil func(t *testing.T, dir, file string) error
	}{
		{"directory open to the group", func(_ *testing.T, dir, _ string) error { return os.Chmod(dir, 0o770) }},
		{"directory readable by all", func(_ *testing.T, dir, _ string) error { return os.Chmod(dir, 0o755) }},
		{"file writable by all", func(_ *testing.T, _, file string) error { return os.Chmod(file, 0o606) }},
		{"a second name", func(_ *testing.T, _, file string) error { return os.Link(file, file+"2") }},
		{"a symbolic link", func(_ *testing.T, _, file string) error {
			if err := os.Rename(file, file+"2"); err != nil {
				return err
			}
			return os.Symlink(file+"2", file)
		}},
		{"a pipe's place", func(_ *testing.T, _, file string) error {
			if err := os.Remove(file); err != nil {
				return err
			}
			return os.Mkdir(file, 0o700)
		}},
		{"another owner", func(t *testing.T, _, file string) error {
			if os.Geteuid() != 0 {
				t.Skip("only root can give files away")
			}
			return os.Chown(file, 12345, -1)
		}},
		{"another owner of the directory", func(t *testing.T, dir, _ string) error {
			if os.Geteuid() != 0 {
				t.Skip("only root can give files away")
			}
			return os.Chown(dir, 12345, -1)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := t.TempDir() + "/c"
			d := open(t, path, 1<<20)
			f, err := d.Create()
			if err != nil {
				t.Fatal(err)
			}
			if err := d.CommitCompiled(f, g); err != nil {
				t.Fatal(err)
			}
			if err := tc.spoil(t, path, filepath.Join(path, d.compiledName(g))); err != nil {
				t.Fatal(err)
			}
			if _, ok := d.Compiled(g); ok {
				t.Error("it was taken")
			}
		})
	}
}

func TestRefusesOthersDirectory(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := os.Chmod(path, 0o777); err != nil { //nolint:gosec // what is refused
		t.Fatal(err)
	}
	if _, err := Open(path, 1, ""); err == nil || !strings.Contains(err.Error(), "mode 0777") {
		t.Errorf("error %v", err)
	}
}

func TestSizeIsBounded(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/c"
	d := open(t, path, 250)
	put := func(i byte) Digest {
		code := bytes.Repeat([]byte{i}, 100)
		g := sha256.Sum256(code)
		if err := d.PutModule(g, code); err != nil {
			t.Fatal(err)
		}
		return g
	}
	age := func(g Digest, by time.Duration) {
		at := time.Now().Add(-by)
		if err := os.Chtimes(filepath.Join(path, moduleName(g)), at, at); err != nil {
			t.Fatal(err)
		}
	}
	a, b := put(1), put(2)
	age(a, time.Minute)
	age(b, time.Hour)
	if _, ok := d.Module(b); !ok { // Used now.
		t.Fatal("not found")
	}
	c := put(3)
	if d.HasModule(a) || !d.HasModule(b) || !d.HasModule(c) {
		t.Errorf("left: %v %v %v, want the two that were used last", d.HasModule(a), d.HasModule(b), d.HasModule(c))
	}
	// What is larger than all the cache may be, it has alone.
	code := bytes.Repeat([]byte{9}, 1000)
	if err := d.PutModule(sha256.Sum256(code), code); err != nil {
		t.Fatal(err)
	}
	if d.HasModule(b) || d.HasModule(c) || !d.HasModule(sha256.Sum256(code)) {
		t.Error("the large one is not alone")
	}
}

// TestUnfinishedFiles holds that what a writer left behind goes, and what one writes now stays.
func TestUnfinishedFiles(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/c"
	d := open(t, path, 1<<20)
	old, err := d.Create()
	if err != nil {
		t.Fatal(err)
	}
	_ = old.Close()
	at := time.Now().Add(-2 * partAge)
	if err := os.Chtimes(old.Name(), at, at); err != nil {
		t.Fatal(err)
	}
	young, err := d.Create()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard(young)
	if err := d.PutReference("k", Reference{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old.Name()); err == nil {
		t.Error("the old one is still there")
	}
	if _, err := os.Stat(young.Name()); err != nil {
		t.Error(err)
	}
}
