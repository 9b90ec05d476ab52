package log

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"sidecar/internal/task"
)

// maxPending bounds the bytes that wait to be written.
const maxPending = 1 << 20

// output writes lines on a goroutine that lives while there are any.
type output struct {
	w    io.Writer
	lost atomic.Uint64

	mu      sync.Mutex
	pending []byte
	spare   []byte
	dropped uint64        // since the last line that went through
	idle    chan struct{} // closed when all is written; nil: nobody is writing
}

func newOutput(w io.Writer) *output { return &output{w: w} }

// write queues a line, which is copied.
func (o *output) write(line []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.pending)+len(line) > maxPending {
		o.dropped++
		o.lost.Add(1)
		return
	}
	if o.dropped > 0 {
		o.pending = fmt.Appendf(o.pending, "%d log lines were dropped: they came faster than they could be written\n", o.dropped)
		o.dropped = 0
	}
	o.pending = append(o.pending, line...)
	if o.idle == nil {
		o.idle = make(chan struct{})
		task.Go("log", o.drain, func(*task.Panic) { o.finish() })
	}
}

func (o *output) drain() {
	for {
		o.mu.Lock()
		batch := o.pending
		if len(batch) == 0 {
			close(o.idle)
			o.idle = nil
			o.mu.Unlock()
			return
		}
		o.pending, o.spare = o.spare[:0], nil
		o.mu.Unlock()
		// A log that can't be written has nowhere to complain.
		_, _ = o.w.Write(batch)
		o.mu.Lock()
		o.spare = batch[:0]
		o.mu.Unlock()
	}
}

// finish lets a writer start again after one that panicked in the Writer.
func (o *output) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.idle != nil {
		close(o.idle)
		o.idle = nil
	}
}

func (o *output) flush(ctx context.Context) {
	o.mu.Lock()
	idle := o.idle
	o.mu.Unlock()
	if idle == nil {
		return
	}
	select {
	case <-idle:
	case <-ctx.Done():
	}
}
