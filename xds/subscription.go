package xds

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"sidecar/internal/config/source"
)

// subscription is one open subscription. It is owned by the client's goroutine.
type subscription struct {
	c        *Client
	spec     source.Spec
	feed     *feed
	wildcard bool
	names    []string // sorted; none when wildcard
	timer    *time.Timer
	answered bool // or given up
	closed   bool

	// gone is set by Close on any goroutine, so that not even an update on its way is delivered.
	gone atomic.Bool
}

// handle is what a consumer holds of a subscription.
type handle struct{ s *subscription }

// SetNames implements source.Subscription.
func (h handle) SetNames(names []string) {
	names = uniq(names)
	h.s.c.post(func() { h.s.setNames(names) })
}

// Close implements source.Subscription.
func (h handle) Close() {
	h.s.gone.Store(true)
	h.s.c.post(h.s.close)
}

func uniq(names []string) []string {
	out := slices.Clone(names)
	slices.Sort(out)
	return slices.Compact(out)
}

// start runs on the client's goroutine.
func (s *subscription) start() {
	if s.gone.Load() {
		return
	}
	if st := s.spec.Stats; st != nil && (s.spec.Source == nil || s.spec.Source.Kind != source.KindFile) {
		st.UpdateAttempt.Inc() // Envoy counts a file when it is read only
	}
	f, err := s.c.feedFor(&s.spec)
	if err != nil {
		s.c.cfg.Log.Error("xds: can't subscribe", "type", s.spec.TypeURL, "error", err)
		s.unavailable(err)
		return
	}
	s.feed = f
	if d := s.spec.Source.InitialFetchTimeout; d > 0 {
		s.timer = s.c.after(d, s.timeout)
	}
	if s.wildcard {
		f.all = append(f.all, s)
		f.rev++
	} else {
		f.addNames(s, s.names)
	}
	f.port.interest()
	f.catchUp(s)
}

func (f *feed) addNames(s *subscription, names []string) {
	for _, name := range names {
		if f.named[name] == nil {
			if _, left := f.left[name]; left {
				// What was known of it is forgotten. The server sends it again only if it hears of both.
				f.port.tell()
			}
			f.rev++
		}
		f.named[name] = append(f.named[name], s)
	}
}

func (f *feed) dropNames(s *subscription, names []string) {
	for _, name := range names {
		left := without(f.named[name], s)
		if len(left) == 0 {
			delete(f.named, name)
			f.rev++
			f.left[name] = struct{}{}
		} else {
			f.named[name] = left
		}
		f.forget(s, name)
	}
}

// without returns the list without s, in fresh memory: the old one may be ranged over.
func without(list []*subscription, s *subscription) []*subscription {
	out := make([]*subscription, 0, len(list))
	for _, other := range list {
		if other != s {
			out = append(out, other)
		}
	}
	return out
}

// forget drops what s was given, and the resource itself when it was the last who wanted it.
func (f *feed) forget(s *subscription, name string) {
	e := f.entries[name]
	if e == nil {
		return
	}
	e.given = slices.DeleteFunc(e.given, func(g given) bool { return g.sub == s })
	if len(f.want(name)) == 0 {
		e.stopTTL()
		delete(f.entries, name)
		return
	}
	if e.next != nil && len(e.given) > 0 {
		f.settle(e, e.next)
	}
}

// catchUp gives a late subscriber what is known already.
func (f *feed) catchUp(s *subscription) {
	rp := f.newReply(f.version, "")
	rp.local = true
	b := newBatch(rp)
	names := s.names
	if s.wildcard {
		names = make([]string, 0, len(f.entries))
		for name := range f.entries {
			names = append(names, name)
		}
		slices.Sort(names)
		if f.answered {
			b.update(s)
		}
	}
	for _, name := range names {
		e := f.entries[name]
		if e == nil || e.givenTo(s) != nil {
			continue
		}
		r := e.cur
		if r == nil || (e.next != nil && !e.bad) {
			r = e.next // being warmed elsewhere: all should end at the same version
		}
		var m proto.Message
		f.give(b, e, s, r, &m)
	}
	if len(b.updates) > 0 {
		f.dispatch(b)
	}
}

func (s *subscription) setNames(names []string) {
	if s.closed || s.feed == nil || s.wildcard {
		return
	}
	var gone, fresh []string
	for _, name := range s.names {
		if _, kept := slices.BinarySearch(names, name); !kept {
			gone = append(gone, name)
		}
	}
	for _, name := range names {
		if _, had := slices.BinarySearch(s.names, name); !had {
			fresh = append(fresh, name)
		}
	}
	if len(gone)+len(fresh) == 0 {
		return
	}
	s.names = names
	s.feed.addNames(s, fresh)
	s.feed.dropNames(s, gone)
	if st := s.spec.Stats; st != nil {
		st.UpdateAttempt.Inc()
	}
	s.feed.port.interest()
	s.feed.catchUp(s)
}

func (s *subscription) close() {
	if s.closed {
		return
	}
	s.closed = true
	s.stopTimer()
	f := s.feed
	if f == nil {
		return
	}
	if s.wildcard {
		f.all = without(f.all, s)
		f.rev++
		for name := range f.entries {
			f.forget(s, name)
		}
	} else {
		f.dropNames(s, s.names)
	}
	if len(f.all) == 0 && len(f.named) == 0 {
		f.port.unused()
		return
	}
	f.port.interest()
}

// answer notes that the first answer is there.
func (s *subscription) answer() {
	s.answered = true
	s.stopTimer()
}

func (s *subscription) stopTimer() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

func (s *subscription) timeout() {
	if s.answered || s.closed {
		return
	}
	if st := s.spec.Stats; st != nil {
		st.InitFetchTimeout.Inc()
		st.UpdateAttempt.Inc()
	}
	s.unavailable(fmt.Errorf("%w (%s)", source.ErrFetchTimeout, s.spec.Source.InitialFetchTimeout))
}

func (s *subscription) unavailable(err error) {
	if s.answered || s.gone.Load() {
		return
	}
	s.answer()
	s.spec.Watcher.Unavailable(err)
}

// failed counts a lost stream or an unreadable file.
func (s *subscription) failed() {
	if st := s.spec.Stats; st != nil {
		st.UpdateFailure.Inc()
		st.UpdateAttempt.Inc()
	}
}

// each calls fn for every subscription of the feed once.
func (f *feed) each(fn func(*subscription)) {
	for _, s := range f.all {
		fn(s)
	}
	done := map[*subscription]bool{}
	for _, name := range f.names() {
		for _, s := range f.named[name] {
			if !done[s] {
				done[s] = true
				fn(s)
			}
		}
	}
}
