package lb

import (
	"fmt"
	"slices"
	"strings"

	"sidecar/cluster/host"
)

// Fallback is what happens to a request whose criteria no subset fits.
type Fallback uint8

// The fallbacks; FallbackUnset of a selector leaves it to that of all.
const (
	FallbackUnset Fallback = iota
	FallbackNone
	FallbackAny
	FallbackDefault
	FallbackKeys
)

// Subsets is how a cluster is divided by the metadata of its hosts. It never changes.
type Subsets struct {
	Fallback  Fallback
	Default   *Criteria // of FallbackDefault
	Selectors []Selector
	// LocalityWeights keeps the weights of localities in subsets; ScaleWeights makes them fit the part of
	// the hosts that is left.
	LocalityWeights, ScaleWeights bool
	// PanicAny tries any host where the fallback has none.
	PanicAny bool
	// ListAsAny has a host whose value is a list be in the subset of each member.
	ListAsAny bool
}

// Selector makes a subset for each combination of values of its keys, which are sorted.
type Selector struct {
	Keys       []string
	Single     bool // a subset has one host, the first
	Fallback   Fallback
	FallbackBy []string // sorted; of FallbackKeys
}

// Criteria are the values that a host has to have. They never change.
type Criteria struct {
	keys, values []string // sorted by key
	id           string
}

// NewCriteria makes criteria of the envoy.lb metadata of a route; nil for none.
func NewCriteria(values map[string]any) *Criteria {
	if len(values) == 0 {
		return nil
	}
	c := &Criteria{}
	for k := range values {
		c.keys = append(c.keys, k)
	}
	slices.Sort(c.keys)
	for _, k := range c.keys {
		c.values = append(c.values, valueID(values[k]))
	}
	c.id = idOf(c.keys, c.values)
	return c
}

// Merge returns these criteria with those of more, which go before them.
func (c *Criteria) Merge(more *Criteria) *Criteria {
	switch {
	case more == nil:
		return c
	case c == nil:
		return more
	}
	all := map[string]string{}
	for _, x := range []*Criteria{c, more} {
		for i, k := range x.keys {
			all[k] = x.values[i]
		}
	}
	out := &Criteria{}
	for k := range all {
		out.keys = append(out.keys, k)
	}
	slices.Sort(out.keys)
	for _, k := range out.keys {
		out.values = append(out.values, all[k])
	}
	out.id = idOf(out.keys, out.values)
	return out
}

// only returns the criteria of some keys.
func (c *Criteria) only(keys []string) *Criteria {
	out := &Criteria{}
	for i, k := range c.keys {
		if _, ok := slices.BinarySearch(keys, k); ok {
			out.keys, out.values = append(out.keys, k), append(out.values, c.values[i])
		}
	}
	out.id = idOf(out.keys, out.values)
	return out
}

// valueID tells values apart, of different types too.
func valueID(v any) string { return fmt.Sprintf("%T:%v", v, v) }

func idOf(keys, values []string) string {
	var b strings.Builder
	for i, k := range keys {
		fmt.Fprintf(&b, "%q=%q,", k, values[i])
	}
	return b.String()
}

// SubsetStats counts what becomes of subsets and of choices from them; nil functions count nothing.
type SubsetStats struct {
	Created, Removed, Selected, Fallback, FallbackPanic func()
	Active, Duplicates                                  func(n int)
}

// subsets are the parts of one host set.
type subsets struct {
	set      *host.Set
	parts    map[string]*part
	fallback *part // nil: none
	any      *part
}

// part is a subset, with a balancer of its own.
type part struct {
	balancer *Balancer
	set      *host.Set
}

func (p *part) pick(c *Context) (*host.Host, bool) { return p.balancer.Pick(p.set, c) }

// subsetsOf returns the parts of a set, made at the first choice from it.
func (b *Balancer) subsetsOf(set *host.Set) *subsets {
	if s := b.parts.Load(); s != nil && s.set == set {
		return s
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.parts.Load()
	if s == nil || s.set != set {
		s = b.divide(set, s)
		b.parts.Store(s)
	}
	return s
}

// divide makes the parts of a set. Those that were there before keep their balancers; the caller holds
// mu.
func (b *Balancer) divide(set *host.Set, old *subsets) *subsets {
	conf, st := b.conf.Subsets, &b.env.Subsets
	members, duplicates := map[string]map[*host.Host]bool{}, 0
	for i := range conf.Selectors {
		sel := &conf.Selectors[i]
		for _, h := range set.Hosts {
			for _, id := range idsOf(h, sel.Keys, conf.ListAsAny) {
				if members[id] == nil {
					members[id] = map[*host.Host]bool{}
				} else if sel.Single {
					duplicates++
					continue
				}
				members[id][h] = true
			}
		}
	}
	s := &subsets{set: set, parts: make(map[string]*part, len(members))}
	for id, hosts := range members {
		var was *part
		if old != nil {
			was = old.parts[id]
		}
		if was == nil && st.Created != nil {
			st.Created()
		}
		s.parts[id] = b.part(was, set, func(h *host.Host) bool { return hosts[h] })
	}
	if old != nil && st.Removed != nil {
		for id := range old.parts {
			if s.parts[id] == nil {
				st.Removed()
			}
		}
	}
	if st.Active != nil {
		st.Active(len(s.parts))
		st.Duplicates(duplicates)
	}
	s.any = b.part(nil, set, func(*host.Host) bool { return true })
	switch conf.Fallback {
	case FallbackAny:
		s.fallback = s.any
	case FallbackDefault:
		s.fallback = b.part(nil, set, func(h *host.Host) bool { return conf.Default.fits(h, conf.ListAsAny) })
	default:
	}
	return s
}

func (b *Balancer) part(was *part, set *host.Set, keep func(*host.Host) bool) *part {
	p := &part{set: set.Filter(keep)}
	b.weigh(p.set, set)
	if was != nil {
		p.balancer = was.balancer
		return p
	}
	conf := *b.conf
	conf.Subsets = nil
	p.balancer = New(&conf, b.env)
	return p
}

// weigh settles the weights of the localities of a part.
func (b *Balancer) weigh(part, whole *host.Set) {
	conf := b.conf.Subsets
	for i := range part.Priorities {
		g := &part.Priorities[i]
		if !conf.LocalityWeights {
			g.Localities = nil
			continue
		}
		for j := range g.Localities {
			l, all := &g.Localities[j], len(whole.Priorities[i].Localities[j].All)
			if conf.ScaleWeights && l.Weight > 0 && all > 0 {
				scaled := float64(l.Weight) * float64(len(l.All)) / float64(all)
				l.Weight = max(1, uint32(scaled+0.5))
			}
		}
	}
}

// idsOf are the subsets of a selector that a host is in: one, or several where values are lists.
func idsOf(h *host.Host, keys []string, listAsAny bool) []string {
	have := h.Attr().Metadata[MetadataNamespace]
	values := [][]string{nil}
	for _, k := range keys {
		v, ok := have[k]
		if !ok {
			return nil
		}
		choices := []any{v}
		if list, isList := v.([]any); isList && listAsAny {
			choices = list
		}
		var next [][]string
		for _, head := range values {
			for _, x := range choices {
				next = append(next, append(slices.Clip(head), valueID(x)))
			}
		}
		values = next
	}
	out := make([]string, 0, len(values))
	for _, v := range values {
		out = append(out, idOf(keys, v))
	}
	return out
}

// fits tells whether a host has all of the values; no criteria fit all hosts.
func (c *Criteria) fits(h *host.Host, listAsAny bool) bool {
	return c == nil || slices.Contains(idsOf(h, c.keys, listAsAny), c.id)
}

// pickSubset chooses from the subset that fits, or as the fallback says
// (SubsetLoadBalancer::chooseHost).
func (b *Balancer) pickSubset(set *host.Set, c *Context) (h *host.Host, panicked bool) {
	s := b.subsetsOf(set)
	for crit := c.Criteria; crit != nil; {
		if p := s.parts[crit.id]; p != nil {
			count(b.env.Subsets.Selected)
			return p.pick(c)
		}
		sel := b.selector(crit.keys)
		if sel == nil {
			break
		}
		switch sel.Fallback {
		case FallbackNone:
			return nil, false
		case FallbackAny:
			return s.any.pick(c)
		case FallbackDefault:
			if s.fallback != nil {
				return s.fallback.pick(c)
			}
			return nil, false
		case FallbackKeys:
			crit = crit.only(sel.FallbackBy)
			continue
		case FallbackUnset:
		}
		break
	}
	if s.fallback != nil {
		if h, panicked = s.fallback.pick(c); h != nil {
			count(b.env.Subsets.Fallback)
			return h, panicked
		}
	}
	if b.conf.Subsets.PanicAny {
		if h, panicked = s.any.pick(c); h != nil {
			count(b.env.Subsets.FallbackPanic)
		}
	}
	return h, panicked
}

func count(f func()) {
	if f != nil {
		f()
	}
}

// selector finds the selector of exactly these keys that has a fallback of its own.
func (b *Balancer) selector(keys []string) *Selector {
	for i := range b.conf.Subsets.Selectors {
		sel := &b.conf.Subsets.Selectors[i]
		if sel.Fallback != FallbackUnset && slices.Equal(sel.Keys, keys) {
			return sel
		}
	}
	return nil
}
