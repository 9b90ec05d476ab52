package stats

import (
	"strconv"
	"sync/atomic"
)

const (
	firstCode = 100
	endCode   = 600
)

// Codes counts responses by status: in total ("_completed"), by class ("_2xx") and by code
// ("_200"). Bound with the tag `stat:"upstream_rq"` it lists upstream_rq_completed, upstream_rq_2xx
// and upstream_rq_200, each from its first use on, as Envoy does. It is one pointer until then. The
// zero value is ready; it may be used from any goroutine.
type Codes struct{ p atomic.Pointer[codeTable] }

type codeTable struct {
	completed, unknown Counter
	classes            [(endCode - firstCode) / 100]Counter
	tens               [(endCode - firstCode) / 10]atomic.Pointer[[10]Counter]
}

// Inc counts one response with this status. A code outside 100 to 599 counts as "_unknown". Only
// the first of each ten codes allocates.
func (c *Codes) Inc(code int) {
	t := c.p.Load()
	if t == nil {
		c.p.CompareAndSwap(nil, new(codeTable))
		t = c.p.Load()
	}
	t.completed.Inc()
	if code < firstCode || code >= endCode {
		t.unknown.Inc()
		return
	}
	i := code - firstCode
	t.classes[i/100].Inc()
	ten := t.tens[i/10].Load()
	if ten == nil {
		t.tens[i/10].CompareAndSwap(nil, new([10]Counter))
		ten = t.tens[i/10].Load()
	}
	ten[i%10].Inc()
}

// Value returns the count of one code.
func (c *Codes) Value(code int) uint64 {
	t := c.p.Load()
	if t == nil || code < firstCode || code >= endCode {
		return 0
	}
	i := code - firstCode
	ten := t.tens[i/10].Load()
	if ten == nil {
		return 0
	}
	return ten[i%10].Value()
}

// each calls fn for every counter that was used, with the suffix of its name.
func (c *Codes) each(fn func(suffix string, ctr *Counter)) {
	t := c.p.Load()
	if t == nil {
		return
	}
	if t.completed.Used() {
		fn("_completed", &t.completed)
	}
	if t.unknown.Used() {
		fn("_unknown", &t.unknown)
	}
	for i := range t.classes {
		if t.classes[i].Used() {
			fn("_"+strconv.Itoa(i+1)+"xx", &t.classes[i])
		}
	}
	for i := range t.tens {
		ten := t.tens[i].Load()
		if ten == nil {
			continue
		}
		for j := range ten {
			if ten[j].Used() {
				fn("_"+strconv.Itoa(firstCode+10*i+j), &ten[j])
			}
		}
	}
}
