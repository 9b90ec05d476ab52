// Package cache keeps modules and what was compiled from them in a directory on disk.
//
// Compiled code is native code: who can write it can do all that the process can. So the directory
// belongs to the user that the process runs as and to nobody else, which is looked at each time that a
// file is opened, beside the file itself. A digest stored beside compiled code would prove nothing;
// modules, however, are verified by the digest that is their name.
//
// Several processes may share a directory: files appear whole, by rename, and are never changed.
// Limitations: unix only; a file system that lies about owners defeats the checks.
package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Digest is the SHA-256 of a module.
type Digest = [sha256.Size]byte

// Dir is the directory. Safe for concurrent use.
type Dir struct {
	// Set by Open, never changed.
	root *os.Root
	max  int64
	tag  string // of compiled code

	mu sync.Mutex // serializes what prunes
}

// The endings of the files' names.
const (
	moduleSuffix    = ".wasm"
	compiledSuffix  = ".native"
	referenceSuffix = ".ref"
	partSuffix      = ".part"
)

// maxReferenceBytes bounds the file of a reference.
const maxReferenceBytes = 4 << 10

// partAge is how old an unfinished file is that its writer has surely given up.
const partAge = time.Hour

// Open makes the directory if it isn't there, for this user only, and refuses one that others may write
// to or look into. maxBytes bounds all that is in it. tag names the compiler: compiled code of another
// one is not found.
func Open(path string, maxBytes int64, tag string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{root: root, max: maxBytes, tag: tag}
	if err := d.check(); err != nil {
		_ = root.Close()
		return nil, err
	}
	// A file system that is read-only is found out now, not when the first module comes.
	f, err := d.Create()
	if err != nil {
		_ = root.Close()
		return nil, err
	}
	d.Discard(f)
	return d, nil
}

// Close lets go of the directory; its files stay.
func (d *Dir) Close() error { return d.root.Close() }

// check looks at the directory that is open, whatever its name leads to by now.
func (d *Dir) check() error {
	info, err := d.root.Stat(".")
	if err != nil {
		return err
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return errors.New("the file system tells no owners")
	case int(s.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d, not to the process's, %d", d.root.Name(), s.Uid, os.Geteuid())
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s has mode %04o: others than its owner must have no access", d.root.Name(), info.Mode().Perm())
	}
	return nil
}

// open opens a file that only this user can have written.
func (d *Dir) open(name string) (*os.File, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := own(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

func own(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || int(s.Uid) != os.Geteuid():
		return errors.New("it belongs to another user")
	case !info.Mode().IsRegular():
		return errors.New("it is no regular file")
	case info.Mode().Perm()&0o022 != 0:
		return errors.New("others may write to it")
	case s.Nlink != 1:
		return errors.New("it has another name too")
	}
	return nil
}

// used notes the use of a file, for the order in which files go.
func (d *Dir) used(name string) {
	now := time.Now()
	_ = d.root.Chtimes(name, now, now) // Only the order of removal depends on it.
}

func moduleName(g Digest) string { return hex.EncodeToString(g[:]) + moduleSuffix }

func (d *Dir) compiledName(g Digest) string {
	return hex.EncodeToString(g[:]) + "." + d.tag + compiledSuffix
}

// referenceName hides what a reference is: it may be long, or hold what file names can't.
func referenceName(key string) string {
	g := sha256.Sum256([]byte(key))
	return hex.EncodeToString(g[:]) + referenceSuffix
}

// Module reads a module and verifies it. One that isn't what its name says is removed.
func (d *Dir) Module(g Digest) ([]byte, bool) {
	f, err := d.open(moduleName(g))
	if err != nil {
		return nil, false
	}
	defer f.Close()
	code, err := io.ReadAll(f)
	if err != nil {
		return nil, false
	}
	if sha256.Sum256(code) != g {
		_ = d.root.Remove(moduleName(g))
		return nil, false
	}
	d.used(moduleName(g))
	return code, true
}

// HasModule tells whether Module would probably find it.
func (d *Dir) HasModule(g Digest) bool {
	f, err := d.open(moduleName(g))
	if err != nil {
		return false
	}
	_ = f.Close()
	return true
}

// Modules is how many modules there are.
func (d *Dir) Modules() int {
	n := 0
	for _, e := range d.list() {
		if strings.HasSuffix(e.Name(), moduleSuffix) {
			n++
		}
	}
	return n
}

func (d *Dir) list() []fs.FileInfo {
	dir, err := d.root.Open(".")
	if err != nil {
		return nil
	}
	defer dir.Close()
	infos, err := dir.Readdir(-1)
	if err != nil {
		return nil
	}
	return infos
}

// PutModule keeps a module.
func (d *Dir) PutModule(g Digest, code []byte) error { return d.put(moduleName(g), code) }

// Compiled opens compiled code. The caller closes the file; what was mapped from it stays.
func (d *Dir) Compiled(g Digest) (*os.File, bool) {
	f, err := d.open(d.compiledName(g))
	if err != nil {
		return nil, false
	}
	d.used(d.compiledName(g))
	return f, true
}

// DropCompiled removes compiled code that turned out to be unusable.
func (d *Dir) DropCompiled(g Digest) { _ = d.root.Remove(d.compiledName(g)) }

// Reference is what a name of a module, such as that of an image, stood for when it was fetched.
type Reference struct {
	// Code is the digest of the module in hex, Manifest that of the image's manifest, if it is one.
	Code     string `json:"code"`
	Manifest string `json:"manifest,omitempty"`
}

// Reference finds what a key stands for.
func (d *Dir) Reference(key string) (Reference, bool) {
	var r Reference
	f, err := d.open(referenceName(key))
	if err != nil {
		return r, false
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxReferenceBytes))
	if err != nil || json.Unmarshal(data, &r) != nil {
		return Reference{}, false
	}
	d.used(referenceName(key))
	return r, true
}

// PutReference keeps what a key stands for.
func (d *Dir) PutReference(key string, r Reference) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return d.put(referenceName(key), data)
}

func (d *Dir) put(name string, data []byte) error {
	f, err := d.Create()
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		d.Discard(f)
		return err
	}
	return d.commit(f, name)
}

// Create makes a file that Commit or Discard ends.
func (d *Dir) Create() (*os.File, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	for i := range 100 {
		name := strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36) + "-" + strconv.Itoa(i) + partSuffix
		f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
	return nil, fs.ErrExist
}

// Discard removes a file that Create made.
func (d *Dir) Discard(f *os.File) {
	_ = d.root.Remove(base(f))
	_ = f.Close()
}

// base is the name inside the directory.
func base(f *os.File) string { return f.Name()[strings.LastIndexByte(f.Name(), '/')+1:] }

// CommitCompiled takes a file that Create made, and that a compiler has filled, into the cache.
func (d *Dir) CommitCompiled(f *os.File, g Digest) error { return d.commit(f, d.compiledName(g)) }

// commit gives a file its name once all of it is on disk: after a crash there is all of it or nothing,
// which matters for code that is run as it is.
func (d *Dir) commit(f *os.File, name string) error {
	err := f.Sync()
	if err == nil {
		err = d.root.Rename(base(f), name)
	}
	if err != nil {
		d.Discard(f)
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	d.prune(name)
	return nil
}

type entry struct {
	name string
	size int64
	used time.Time
}

// prune removes what was used the longest time ago, until what is left fits.
func (d *Dir) prune(keep string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []entry
	var total int64
	for _, info := range d.list() {
		if strings.HasSuffix(info.Name(), partSuffix) {
			if time.Since(info.ModTime()) > partAge {
				_ = d.root.Remove(info.Name())
			}
			continue
		}
		total += info.Size()
		list = append(list, entry{info.Name(), info.Size(), info.ModTime()})
	}
	slices.SortFunc(list, func(a, b entry) int { return a.used.Compare(b.used) })
	for _, e := range list {
		if total <= d.max {
			return
		}
		if e.name != keep && d.root.Remove(e.name) == nil {
			total -= e.size
		}
	}
}
