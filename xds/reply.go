package xds

import (
	"strings"
	"time"

	"sidecar/internal/config/source"
)

// ackTimeout is how long a response waits for its watchers before it is answered without them.
const ackTimeout = 10 * time.Second

// reply collects what the watchers say to one response until it can be answered. It is owned by the
// client's goroutine.
type reply struct {
	feed    *feed
	version string
	nonce   string
	gen     uint64 // of the stream that the response came from
	start   time.Time
	// local replies answer nobody: the response came from the cache, for a late subscriber.
	local bool
	// into is the newer reply that took this one over.
	into *reply

	outstanding int
	timer       *time.Timer
	answered    bool
	errs        []resourceError
	touched     map[*subscription]bool // true: at least one of its resources was rejected
	order       []*subscription
}

type resourceError struct {
	name string
	err  error
}

func (f *feed) newReply(version, nonce string) *reply {
	return &reply{
		feed: f, version: version, nonce: nonce, start: time.Now(),
		touched: make(map[*subscription]bool),
	}
}

// touch notes that the response concerns a subscription.
func (r *reply) touch(s *subscription, bad bool) {
	was, ok := r.touched[s]
	if !ok {
		r.order = append(r.order, s)
	}
	r.touched[s] = was || bad
}

func (r *reply) reject(name string, err error, subs ...*subscription) {
	r.errs = append(r.errs, resourceError{name, err})
	for _, s := range subs {
		r.touch(s, true)
	}
}

// adopt takes over an older reply that the server no longer waits for: what is still being warmed
// for it delays this one, and errors that this response has nothing newer about are repeated.
func (r *reply) adopt(old *reply, seen map[string]struct{}) {
	if old == nil || old.answered {
		return
	}
	old.stop()
	old.into = r
	r.outstanding += old.outstanding
	for _, s := range old.order {
		r.touch(s, false)
	}
	for _, e := range old.errs {
		if _, again := seen[e.name]; again || r.feed.entries[e.name] == nil {
			continue
		}
		r.reject(e.name, e.err, r.feed.want(e.name)...)
	}
}

// current is the reply that stands for r.
func (r *reply) current() *reply {
	for r.into != nil {
		r = r.into
	}
	return r
}

// waiting starts the wait for the watchers, or answers at once.
func (r *reply) waiting() {
	if r.outstanding == 0 {
		r.finish()
		return
	}
	r.timer = r.feed.c.after(ackTimeout, r.finish)
}

func (r *reply) completed() {
	if r.outstanding--; r.outstanding == 0 && !r.answered {
		r.finish()
	}
}

func (r *reply) stop() {
	if r.timer != nil {
		r.timer.Stop()
	}
}

func (r *reply) finish() {
	if r.answered || r.into != nil {
		return
	}
	r.answered = true
	r.stop()
	now := time.Now()
	for _, s := range r.order {
		if !s.closed {
			r.count(s.spec.Stats, r.touched[s], now)
		}
	}
	if err := r.text(); err != "" {
		r.feed.c.cfg.Log.Warn("xds: update rejected", "type", r.feed.kind.url, "version", r.version,
			"error", err)
	}
	if !r.local {
		r.feed.port.replied(r)
	}
	r.touched, r.order = nil, nil
}

func (r *reply) count(st *source.Stats, rejected bool, now time.Time) {
	if st == nil {
		return
	}
	st.UpdateAttempt.Inc()
	if rejected {
		st.UpdateRejected.Inc()
		return
	}
	st.UpdateSuccess.Inc()
	st.UpdateTime.Set(now.UnixMilli())
	st.UpdateDuration.Record(uint64(now.Sub(r.start).Milliseconds()))
	st.Version.Set(versionHash(r.version))
	st.VersionText.Set(r.version)
}

// text is that of the NACK, empty for an ACK. Its form is Envoy's for the kinds that have one.
func (r *reply) text() string {
	if len(r.errs) == 0 {
		return ""
	}
	// Envoy: clusters are listed with commas, each listener ends its line.
	between, end := "\n", ""
	switch r.feed.kind.url {
	case source.ClusterType:
		between = ", "
	case source.ListenerType:
		end = "\n"
	}
	list := make([]string, len(r.errs))
	for i, e := range r.errs {
		list[i] = e.name + ": " + e.err.Error()
	}
	return r.feed.kind.rejected + strings.Join(list, between) + end
}

// maxErrorBytes is what Envoy cuts the message of a NACK to.
const maxErrorBytes = 4096

func truncate(s string) string {
	if len(s) <= maxErrorBytes {
		return s
	}
	return strings.ToValidUTF8(s[:maxErrorBytes], "") + "...(truncated)"
}

// versionHash makes a number of a version_info, for the gauge.
//
// DIVERGES(xds-version-gauge): Envoy's is the xxHash64, which a gauge here has no room for.
func versionHash(version string) int64 {
	d := wireDigest([]byte(version))
	var n int64
	for _, b := range d[:6] {
		n = n<<8 | int64(b)
	}
	return n
}
