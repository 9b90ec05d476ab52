package log

import (
	"os"
	"sync"
)

// File is a log file that can be opened again under its name after another program moved it away
// (SIGUSR1).
type File struct {
	name string

	mu sync.Mutex
	f  *os.File
}

// OpenFile opens or makes a file to append to.
func OpenFile(name string) (*File, error) {
	f := &File{name: name}
	return f, f.Reopen()
}

// Reopen opens the file anew; on an error the old one stays in use.
func (f *File) Reopen() error {
	const mode = 0o640 // the group of whoever started us reads logs
	opened, err := os.OpenFile(f.name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	f.mu.Lock()
	old := f.f
	f.f = opened
	f.mu.Unlock()
	if old != nil {
		return old.Close()
	}
	return nil
}

// Write implements io.Writer.
func (f *File) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.f.Write(b)
}

// Close closes the file; writes then fail.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.f.Close()
}
