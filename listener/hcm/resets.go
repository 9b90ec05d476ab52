package hcm

import (
	"sync/atomic"
	"time"

	"sidecar/api/stream"
)

// Envoy's defaults of overload.premature_reset_total_stream_count and
// overload.premature_reset_min_stream_lifetime_seconds.
const (
	prematureLimit    = 500
	prematureLifetime = time.Second
)

// prematureResets counts the streams that a client resets before they could be answered. A connection
// most of whose streams end that way costs the upstreams much and its client nothing, so it is closed
// (ConnectionManagerImpl::maybeDrainDueToPrematureResets).
type prematureResets struct {
	ended, early atomic.Uint32
	acted        atomic.Bool
}

// note counts a finished stream; true, once, says that the connection has had enough of them.
func (x *prematureResets) note(early bool) bool {
	ended, bad := x.ended.Add(1), x.early.Load()
	if early {
		bad = x.early.Add(1)
	}
	// Below the limit it is enough that only good streams up to there could not make up for the bad ones.
	if bad*2 < max(ended, prematureLimit) {
		return false
	}
	return !x.acted.Swap(true)
}

// noteEnd looks at a stream that has ended; true says that the connection is to be closed for it.
func (c *Conn) noteEnd(info *stream.Info) bool {
	if !c.multiplexed() {
		return false
	}
	early := info.Status == 0 && info.Complete/time.Second <= prematureLifetime/time.Second
	if !c.resets.note(early) {
		return false
	}
	c.stats.RqTooManyPremature.Inc()
	return true
}
