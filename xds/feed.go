package xds

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"sidecar/internal/config/source"
)

// feed is the resources of one type from one server or file: what is known of them and who wants
// them. It is owned by the client's goroutine.
type feed struct {
	c    *Client
	kind kind
	port port

	entries map[string]*entry
	all     []*subscription            // to whatever there is
	named   map[string][]*subscription // by name
	// pending is the reply to the last state-of-the-world response, until it is answered.
	pending  *reply
	version  string // of the last response
	answered bool
	// rev grows when the set of names that are wanted changes.
	rev uint64
	// left are names that were given up and not yet told to the server.
	left map[string]struct{}
}

// port is the protocol that a feed is fed by.
type port interface {
	// interest tells that the names wanted have changed.
	interest()
	// tell sends what the names are now.
	tell()
	// replied tells that a response was judged.
	replied(*reply)
	// unused tells that nobody subscribes any more.
	unused()
}

// entry is one resource. cur is what everyone who was given it has accepted, next what was given
// after it and is not accepted: being warmed, or rejected.
type entry struct {
	cur, next         *source.Resource
	curWire, nextWire source.Digest
	// version is the server's for cur; offered is that of the last response that had the resource.
	version, offered string
	bad              bool // somebody rejected next
	given            []given
	ttl              *time.Timer
}

// given is what one subscription was given last.
type given struct {
	sub      *subscription
	resource *source.Resource
	accepted bool
}

func newFeed(c *Client, k kind) *feed {
	return &feed{c: c, kind: k, entries: map[string]*entry{}, named: map[string][]*subscription{}, left: map[string]struct{}{}}
}

func (e *entry) givenTo(s *subscription) *given {
	for i := range e.given {
		if e.given[i].sub == s {
			return &e.given[i]
		}
	}
	return nil
}

// want returns who subscribes to a name.
func (f *feed) want(name string) []*subscription {
	named := f.named[name]
	switch {
	case len(f.all) == 0:
		return named
	case len(named) == 0:
		return f.all
	}
	return append(slices.Clip(f.all), named...)
}

// names returns the names that are subscribed to, sorted.
func (f *feed) names() []string {
	out := make([]string, 0, len(f.named))
	for name := range f.named {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// batch is what a response means to each subscription.
type batch struct {
	reply   *reply
	updates map[*subscription]*source.Update
	seen    map[string]struct{}
	// unnamed is true when a resource was so broken that its name is not known.
	unnamed bool
}

func newBatch(r *reply) *batch {
	return &batch{
		reply: r, updates: map[*subscription]*source.Update{}, seen: map[string]struct{}{},
	}
}

func (b *batch) update(s *subscription) *source.Update {
	u := b.updates[s]
	if u == nil {
		u = &source.Update{Version: b.reply.version}
		b.updates[s] = u
		b.reply.touch(s, false)
	}
	return u
}

// apply takes a response in: what differs is given to the watchers, and the answer waits for them.
func (f *feed) apply(resp *response) {
	b := newBatch(f.newReply(resp.version, resp.nonce))
	b.reply.gen = resp.gen
	f.version, f.answered = resp.version, true
	for _, s := range f.all {
		b.update(s) // even an empty answer is one
	}
	for i := range resp.items {
		f.item(b, i, &resp.items[i])
	}
	for _, name := range resp.removed {
		f.remove(b, name)
	}
	if resp.sotw && f.kind.full && len(f.all) > 0 {
		f.removeMissing(b)
	}
	if resp.sotw {
		b.reply.adopt(f.pending, b.seen)
		f.pending = b.reply
	}
	f.dispatch(b)
}

func (f *feed) dispatch(b *batch) {
	ok := false
	defer func() {
		if !ok { // a watcher panicked
			b.reply.reject(f.kind.singular, errors.New("internal error"))
		}
		b.reply.waiting()
	}()
	// The order of first mention, so that a test and a log see the same each time.
	for _, s := range slices.Clone(b.reply.order) {
		u := b.updates[s]
		if u == nil || s.gone.Load() {
			continue
		}
		s.answer()
		s.spec.Watcher.Apply(u)
	}
	ok = true
}

func (f *feed) item(b *batch, i int, it *item) {
	if it.name == "" {
		b.unnamed = true
		b.reply.reject(fmt.Sprintf("resources[%d]", i), it.err, f.all...)
		return
	}
	subs := f.want(it.name)
	if len(subs) == 0 {
		return // Envoy ignores what nobody asked for as well
	}
	if _, dup := b.seen[it.name]; dup {
		b.reply.reject(it.name, fmt.Errorf("duplicate %s %s found", f.kind.singular, it.name), subs...)
		return
	}
	b.seen[it.name] = struct{}{}
	e := f.entries[it.name]
	if it.heartbeat {
		if e != nil {
			f.setTTL(it.name, e, it.ttl)
		}
		return
	}
	if it.err != nil {
		b.reply.reject(it.name, it.err, subs...)
		return
	}
	if e == nil {
		e = &entry{}
		f.entries[it.name] = e
	}
	r, m, err := f.resolve(e, it)
	if err != nil {
		b.reply.reject(it.name, err, subs...)
		f.dropEmpty(it.name, e)
		return
	}
	e.offered = it.version
	f.setTTL(it.name, e, it.ttl)
	for _, s := range subs {
		f.give(b, e, s, r, &m)
	}
	f.settle(e, r)
}

// dropEmpty forgets an entry that never held anything.
func (f *feed) dropEmpty(name string, e *entry) {
	if e.cur == nil && e.next == nil {
		delete(f.entries, name)
	}
}

// resolve finds or makes the resource that an item stands for. Known bytes are not decoded; known
// meaning keeps the old bytes, so that each resource is held once.
func (f *feed) resolve(e *entry, it *item) (*source.Resource, proto.Message, error) {
	if e.cur != nil && e.curWire == it.wire {
		e.next = nil
		return e.cur, nil, nil
	}
	if e.next != nil && e.nextWire == it.wire {
		return e.next, nil, nil
	}
	r, m, unknown, err := f.kind.decode(it)
	if err != nil {
		return nil, nil, err
	}
	if unknown != "" {
		if err := f.c.unknownField(it.name, unknown); err != nil {
			return nil, nil, err
		}
	}
	switch {
	case e.cur != nil && e.cur.Digest == r.Digest:
		e.curWire, e.next = it.wire, nil
		return e.cur, m, nil
	case e.next != nil && e.next.Digest == r.Digest:
		e.nextWire = it.wire
		return e.next, m, nil
	}
	e.next, e.nextWire, e.bad = r, it.wire, false
	return r, m, nil
}

// give hands r to a subscription unless that has accepted it already. m is decoded when first
// needed.
func (f *feed) give(b *batch, e *entry, s *subscription, r *source.Resource, m *proto.Message) {
	b.reply.touch(s, false)
	g := e.givenTo(s)
	if g != nil && g.accepted && g.resource == r {
		return
	}
	if *m == nil {
		var err error
		if *m, err = f.kind.unmarshal(r.Raw); err != nil {
			b.reply.reject(r.Name, err, s)
			return
		}
	}
	if g == nil {
		e.given = append(e.given, given{sub: s})
		g = &e.given[len(e.given)-1]
	}
	g.resource, g.accepted = r, false
	u := b.update(s)
	rp := b.reply
	rp.outstanding++
	u.Resources = append(u.Resources, source.NewDelivery(r, *m, func(err error) {
		f.c.post(func() { f.completed(rp, s, r, err) })
	}))
}

// completed takes the watcher's answer to one delivery.
func (f *feed) completed(rp *reply, s *subscription, r *source.Resource, err error) {
	rp = rp.current()
	if e := f.entries[r.Name]; e != nil {
		// An answer about a version that is no longer the last one given says nothing.
		if g := e.givenTo(s); g != nil && g.resource == r {
			if g.accepted = err == nil; g.accepted {
				f.settle(e, r)
			} else {
				e.bad = e.bad || e.next == r
				f.rejected(rp, s, r, err)
			}
		}
	}
	rp.completed()
}

func (f *feed) rejected(rp *reply, s *subscription, r *source.Resource, err error) {
	if !rp.answered {
		rp.reject(r.Name, err, s)
		return
	}
	// Too late for the server: it was told that the resource is being warmed.
	if s.spec.Stats != nil {
		s.spec.Stats.UpdateRejected.Inc()
	}
	f.c.cfg.Log.Warn("xds: resource rejected after the response was acknowledged",
		"type", f.kind.url, "name", r.Name, "error", err)
}

// settle makes r current once everybody who was given it has accepted it.
func (f *feed) settle(e *entry, r *source.Resource) {
	for i := range e.given {
		if g := &e.given[i]; g.resource != r || !g.accepted {
			return
		}
	}
	if e.next == r {
		e.cur, e.curWire, e.next = r, e.nextWire, nil
	}
	if e.cur == r {
		e.version = e.offered
	}
}

func (f *feed) removeMissing(b *batch) {
	if b.unnamed {
		// One that is missing may be the one that can't be read: its last good version goes on.
		return
	}
	var gone []string
	for name := range f.entries {
		if _, there := b.seen[name]; !there {
			gone = append(gone, name)
		}
	}
	slices.Sort(gone)
	for _, name := range gone {
		f.remove(b, name)
	}
}

func (f *feed) remove(b *batch, name string) {
	if _, there := b.seen[name]; there {
		return // sent and removed in one response: it is there
	}
	if e := f.entries[name]; e != nil {
		e.stopTTL()
		delete(f.entries, name)
	}
	for _, s := range f.want(name) {
		u := b.update(s)
		u.Removed = append(u.Removed, name)
	}
}

// setTTL makes the resource go away unless it is renewed in time; 0 lets it stay.
func (f *feed) setTTL(name string, e *entry, ttl time.Duration) {
	e.stopTTL()
	if ttl <= 0 {
		return
	}
	e.ttl = f.c.after(ttl, func() {
		if f.entries[name] == e {
			f.expire(name)
		}
	})
}

func (e *entry) stopTTL() {
	if e.ttl != nil {
		e.ttl.Stop()
		e.ttl = nil
	}
}

func (f *feed) expire(name string) {
	rp := f.newReply(f.version, "")
	rp.local = true
	b := newBatch(rp)
	f.remove(b, name)
	f.dispatch(b)
}
