package hcm

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestTimerBetweenUses has the timer that a stream left armed fire while nobody uses the stream, and
// the next use begin in a batch whose clock was read before that.
func TestTimerBetweenUses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "stream_idle_timeout: 1s")
		r.request(true)
		r.respHeaders(true)
		time.Sleep(999 * time.Millisecond)
		r.turn.Now()
		time.Sleep(2 * time.Millisecond)
		r.take()
		r.begin()
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		r.want("enc.headers 408", "enc.data stream timeout end", "log 408 SI stream_idle_timeout")
	})
}
