package transport

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"sidecar/internal/task"
)

// A file that is written in place changes several times. It is read when it has been left alone for
// quiet, or when it has kept changing for patience.
//
// DIVERGES(xds-file-writes): Envoy reads a file only when it is moved into place; a file written in
// place is noticed here too. Moving stays the safe way: a slow writer can be read half way.
const (
	quiet    = 20 * time.Millisecond
	patience = 500 * time.Millisecond
)

// maxFileBytes bounds a config file.
const maxFileBytes = 256 << 20

// Files tells when files are replaced. All its watches share one goroutine and one inotify
// instance.
type Files struct {
	// Set by NewFiles, never changed.
	log     *slog.Logger
	watcher *fsnotify.Watcher
	ended   chan struct{}

	mu    sync.Mutex // guards below
	dirs  map[string]int
	files map[*File]struct{}
}

// File is one watched file.
type File struct {
	// Set by Watch, never changed.
	owner     *Files
	path, dir string
	loaded    func([]byte, error)

	// Owned by the goroutine of Files.
	seen  identity
	since time.Time // of the first change not read yet
	due   time.Time // when it will be read; zero when nothing has changed
}

// identity changes when a file is replaced, directly or by a symlink on the way to it.
type identity struct {
	dev, ino uint64
	size     int64
	mtime    time.Time
}

// NewFiles starts a watch without files.
func NewFiles(log *slog.Logger) (*Files, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching files: %w", err)
	}
	f := &Files{
		log: log, watcher: w, ended: make(chan struct{}),
		dirs: map[string]int{}, files: map[*File]struct{}{},
	}
	task.Go("xds: files", func() {
		defer close(f.ended)
		f.run()
	}, func(p *task.Panic) { log.Error("xds: watching files stopped", "panic", p.Error()) })
	return f, nil
}

// Close ends all watches; no callback runs after it.
func (f *Files) Close() {
	f.watcher.Close() //nolint:errcheck // nothing can be done about it
	<-f.ended
}

// Watch calls loaded with the content of the file: now, and each time that the file, or what its
// symlinks lead to, is replaced. dir is the directory in which replacements show. loaded runs on
// the goroutine of Files, except for the first call, which is made before Watch returns.
func (f *Files) Watch(path, dir string, loaded func([]byte, error)) (*File, error) {
	file := &File{owner: f, path: path, dir: dir, loaded: loaded}
	f.mu.Lock()
	if f.dirs[dir] == 0 {
		if err := f.watcher.Add(dir); err != nil {
			f.mu.Unlock()
			return nil, fmt.Errorf("watching %s: %w", dir, err)
		}
	}
	f.dirs[dir]++
	f.mu.Unlock()
	// Watched first, read then: a change between the two is seen.
	file.read()
	f.mu.Lock()
	f.files[file] = struct{}{}
	f.mu.Unlock()
	return file, nil
}

// Close ends the watch. A callback under way may still finish.
func (file *File) Close() {
	f := file.owner
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.files[file]; !ok {
		return
	}
	delete(f.files, file)
	if f.dirs[file.dir]--; f.dirs[file.dir] == 0 {
		delete(f.dirs, file.dir)
		f.watcher.Remove(file.dir) //nolint:errcheck // the directory may be gone
	}
}

func (f *Files) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case ev, ok := <-f.watcher.Events:
			if !ok {
				return
			}
			if ev.Op != fsnotify.Chmod {
				f.changed(filepath.Dir(ev.Name), filepath.Base(ev.Name), time.Now())
			}
		case err, ok := <-f.watcher.Errors:
			if !ok {
				return
			}
			// Events were lost: look at everything.
			f.log.Warn("xds: watching files", "error", err)
			f.changed("", "", time.Now())
		case <-timer.C:
		}
		timer.Reset(f.readDue(time.Now()))
	}
}

// changed notes what an event in a directory means to the files that are watched there.
func (f *Files) changed(dir, base string, now time.Time) {
	for _, file := range f.list() {
		if dir != "" && dir != file.dir {
			continue
		}
		itself := base == filepath.Base(file.path) && dir == filepath.Dir(file.path)
		if !itself && identify(file.path) == file.seen {
			continue
		}
		if file.due.IsZero() {
			file.since = now
		}
		file.due = now.Add(quiet)
		if limit := file.since.Add(patience); file.due.After(limit) {
			file.due = limit
		}
	}
}

// readDue reads the files that are due and returns how long until the next is.
func (f *Files) readDue(now time.Time) time.Duration {
	wait := time.Hour
	for _, file := range f.list() {
		if file.due.IsZero() {
			continue
		}
		if d := file.due.Sub(now); d > 0 {
			wait = min(wait, d)
			continue
		}
		file.due = time.Time{}
		file.read()
	}
	return wait
}

func (f *Files) list() []*File {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]*File, 0, len(f.files))
	for file := range f.files {
		out = append(out, file)
	}
	return out
}

func (file *File) read() {
	file.seen = identify(file.path)
	if file.seen.size > maxFileBytes {
		file.loaded(nil, fmt.Errorf("%s: larger than %d bytes", file.path, maxFileBytes))
		return
	}
	file.loaded(os.ReadFile(file.path))
}

func identify(path string) identity {
	st, err := os.Stat(path)
	if err != nil {
		return identity{}
	}
	id := identity{size: st.Size(), mtime: st.ModTime()}
	id.dev, id.ino = inode(st)
	return id
}

func inode(st fs.FileInfo) (dev, ino uint64) {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Dev), s.Ino //nolint:unconvert // the type differs between systems
	}
	return 0, 0
}
