package accesslog

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"sidecar/api/stats"
	"sidecar/api/stream"
	"sidecar/internal/format"
	"sidecar/internal/task"
)

// DIVERGES(access-log-bound): Envoy's buffer grows without bound while a file can't be written.
//
// maxPending bounds what waits to be written to one sink. With lines of 250 bytes that is 40 ms of
// 100,000 requests a second.
const maxPending = 1 << 20

// keepIdle is what a sink may hold on to when it is hardly used: after a burst, memory is given
// back.
const keepIdle = 8 << 10

// fileStats are Envoy's filesystem.* stats, with a counter of dropped lines that Envoy, whose
// buffer has no bound, doesn't have.
type fileStats struct {
	FlushedByTimer stats.Counter `stat:"flushed_by_timer"`
	ReopenFailed   stats.Counter `stat:"reopen_failed"`
	WriteBuffered  stats.Counter `stat:"write_buffered"`
	WriteCompleted stats.Counter `stat:"write_completed"`
	WriteFailed    stats.Counter `stat:"write_failed"`
	WriteDropped   stats.Counter `stat:"write_dropped"`
	TotalBuffered  stats.Gauge   `stat:"write_total_buffered"`
}

// sink is one file that any number of loggers share.
type sink struct {
	// Set at creation, never changed.
	path     string // empty for stdout and stderr
	interval time.Duration
	min      int
	stats    *fileStats
	failed   func(path string, err error)

	mu      sync.Mutex // guards below; held for a line, never for a write
	pending []byte
	spare   []byte
	running bool
	timer   *time.Timer // armed while less than min is pending

	// writing is held by whoever writes to w or replaces it.
	writing sync.Mutex
	w       io.Writer
}

// line formats one line into the buffer. It is called on data goroutines.
func (s *sink) line(f format.Output, in *stream.Info) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.pending)
	if n >= maxPending {
		s.drop()
		return
	}
	s.pending = f.Append(s.pending, in)
	if len(s.pending) > maxPending {
		s.pending = s.pending[:n]
		s.drop()
		return
	}
	s.stats.WriteBuffered.Inc()
	s.stats.TotalBuffered.Add(int64(len(s.pending) - n))
	switch {
	case s.running:
	case len(s.pending) >= s.min:
		s.start()
	case n == 0:
		s.arm()
	}
}

func (s *sink) drop() {
	s.stats.WriteDropped.Inc()
	if !s.running {
		s.start()
	}
}

// arm starts the flush timer; the lock is held.
func (s *sink) arm() {
	if s.timer == nil {
		s.timer = time.AfterFunc(s.interval, s.onTimer)
		return
	}
	s.timer.Reset(s.interval)
}

// onTimer writes on the timer's own goroutine what has gathered.
func (s *sink) onTimer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running || len(s.pending) == 0 {
		return
	}
	s.stats.FlushedByTimer.Inc()
	s.start()
}

// start runs the writer; the lock is held.
func (s *sink) start() {
	s.running = true
	task.Go("access log", s.drain, func(*task.Panic) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running = false
	})
}

// drain writes until less than the least size is left, then leaves the rest to the timer.
func (s *sink) drain() {
	for s.writeBatch() {
		s.mu.Lock()
		if len(s.pending) < s.min {
			s.running = false
			if len(s.pending) > 0 {
				s.arm()
			}
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
}

// writeBatch writes what is pending; it is false when that was nothing. The write lock is taken
// before the batch, so that batches of drain and flush stay in order.
func (s *sink) writeBatch() bool {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	batch := s.pending
	s.pending, s.spare = s.spare[:0], nil
	s.mu.Unlock()
	if len(batch) == 0 {
		return false
	}
	s.stats.TotalBuffered.Add(-int64(len(batch)))
	if _, err := s.w.Write(batch); err != nil {
		s.stats.WriteFailed.Inc()
		s.failed(s.path, err)
	} else {
		s.stats.WriteCompleted.Inc()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if cap(batch) <= keepIdle || len(batch) > cap(batch)/16 {
		s.spare = batch[:0]
	}
	return true
}

// reopen opens the file anew under its name; on an error the old one stays in use.
func (s *sink) reopen() error {
	if s.path == "" {
		return nil
	}
	s.writeBatch() // what came before belongs to the old file
	f, err := openFile(s.path)
	if err != nil {
		s.stats.ReopenFailed.Inc()
		return err
	}
	s.writing.Lock()
	old := s.w
	s.w = f
	s.writing.Unlock()
	return closeFile(old)
}

func closeFile(w io.Writer) error {
	if c, ok := w.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// openFile opens as Envoy does: for reading too, since a named pipe without a reader would block.
func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644) //nolint:gosec // Envoy's mode: log collectors read it
}

// flush writes what is pending, or gives up when ctx ends.
func (s *sink) flush(ctx context.Context) {
	done := make(chan struct{})
	task.Go("access log flush", func() {
		defer close(done)
		s.writeBatch()
	}, nil)
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// stop ends the timer.
func (s *sink) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
}
