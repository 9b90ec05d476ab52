package accesslog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"sidecar/api/stats"
)

// maxFiles bounds how many files configurations may have opened since the start: files stay open,
// as in Envoy, so that a listener that comes back appends to the same one.
const maxFiles = 1024

// SinkOptions are what log files are written with.
type SinkOptions struct {
	// FlushInterval is --file-flush-interval-msec; 0: 10 s.
	FlushInterval time.Duration
	// FlushMinBytes is --file-flush-min-size-kb, in bytes; 0: 64 KB.
	FlushMinBytes int
	// Store gets the filesystem.* stats.
	Store *stats.Store
	Log   *slog.Logger
	// Stdout and Stderr are for the stream loggers; nil: the process's own.
	Stdout, Stderr io.Writer
	// Dry opens no file: for --mode validate.
	Dry bool
}

// Sinks holds the open log files of the process, one for each path.
type Sinks struct {
	// Set by NewSinks, never changed.
	options SinkOptions
	stats   *fileStats

	mu     sync.Mutex // guards below
	byPath map[string]*sink
	closed bool
	// lastFailure limits the reports of files that can't be written.
	lastFailure time.Time
}

// NewSinks returns the holder of the log files.
func NewSinks(o SinkOptions) *Sinks {
	if o.FlushInterval <= 0 {
		o.FlushInterval = 10 * time.Second
	}
	if o.FlushMinBytes <= 0 {
		o.FlushMinBytes = 64 << 10
	}
	// Never above the bound, or a full buffer would not be written before its time.
	o.FlushMinBytes = min(o.FlushMinBytes, maxPending/2)
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	return &Sinks{
		options: o,
		stats:   stats.Bind[fileStats](o.Store.Scope("filesystem")),
		byPath:  map[string]*sink{},
	}
}

// The paths of the stream loggers; Envoy's own are of the same effect.
const (
	stdoutPath = "/dev/stdout"
	stderrPath = "/dev/stderr"
)

// open returns the sink of a path, opening the file at the first call.
func (s *Sinks) open(path string) (*sink, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.byPath[path]; k != nil {
		return k, nil
	}
	switch {
	case s.closed:
		return nil, errors.New("log files are closed already")
	case len(s.byPath) >= maxFiles:
		return nil, fmt.Errorf("too many log files: %d are open", maxFiles)
	}
	k := &sink{
		interval: s.options.FlushInterval, min: s.options.FlushMinBytes,
		stats: s.stats, failed: s.writeFailed,
	}
	switch {
	case path == stdoutPath:
		k.w = keepOpen{s.options.Stdout}
	case path == stderrPath:
		k.w = keepOpen{s.options.Stderr}
	case s.options.Dry:
		k.w = io.Discard
	default:
		f, err := openFile(path)
		if err != nil {
			return nil, fmt.Errorf("unable to open file '%s': %w", path, errors.Unwrap(err))
		}
		k.path, k.w = path, f
	}
	s.byPath[path] = k
	return k, nil
}

// keepOpen hides Close: standard streams are not ours to close.
type keepOpen struct{ io.Writer }

// writeFailed reports a file that can't be written, at most once a minute.
func (s *Sinks) writeFailed(path string, err error) {
	s.mu.Lock()
	now := time.Now()
	quiet := now.Sub(s.lastFailure) < time.Minute
	if !quiet {
		s.lastFailure = now
	}
	s.mu.Unlock()
	if !quiet {
		s.options.Log.Warn("access log lines were lost", "path", path, "error", err)
	}
}

func (s *Sinks) all() []*sink {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*sink, 0, len(s.byPath))
	for _, k := range s.byPath {
		out = append(out, k)
	}
	return out
}

// Reopen opens every file anew under its name, after another program moved it away (SIGUSR1, POST
// /reopen_logs). It blocks on file operations. Files that can't be opened stay as they are; the
// error names them.
func (s *Sinks) Reopen() error {
	var errs []error
	for _, k := range s.all() {
		errs = append(errs, k.reopen())
	}
	return errors.Join(errs...)
}

// Flush writes out what is pending everywhere, or gives up when ctx ends.
func (s *Sinks) Flush(ctx context.Context) {
	for _, k := range s.all() {
		k.flush(ctx)
	}
}

// Close flushes and closes the files, at the end of the process. Lines that come later are lost.
func (s *Sinks) Close(ctx context.Context) {
	s.Flush(ctx)
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	for _, k := range s.all() {
		k.stop()
		k.writing.Lock()
		// The descriptor goes back to the system either way.
		_ = closeFile(k.w)
		k.w = io.Discard
		k.writing.Unlock()
	}
}
