package wasmhost

import (
	"sync"
	"time"
)

// lineRate is how many lines a plugin may log in a second, and at once. DIVERGES(wasm-log-rate): Envoy
// writes all, and a plugin that logs in a loop fills the disk.
const lineRate = 1000

// lines is the budget of a plugin's log lines.
type lines struct {
	mu      sync.Mutex // guards below; a leaf
	left    float64
	at      time.Time
	dropped uint64 // since the last line that was let through
}

// take tells whether a line may be written, and how many were not since the last one.
func (l *lines) take(now time.Time) (ok bool, dropped uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at.IsZero() {
		l.left = lineRate
	} else {
		l.left = min(lineRate, l.left+now.Sub(l.at).Seconds()*lineRate)
	}
	l.at = now
	if l.left < 1 {
		l.dropped++
		return false, 0
	}
	l.left--
	dropped, l.dropped = l.dropped, 0
	return true, dropped
}

const (
	// maxCalls bounds the call-outs of one VM that are on their way, maxCallBytes what they hold.
	maxCalls     = 16384
	maxCallBytes = 64 << 20
	// maxStreams bounds the streams of one VM, and so its contexts.
	maxStreams = 65536
	// maxReady bounds the notifications of queues that wait for one VM.
	maxReady = 1024
)
