package server

import (
	"sync/atomic"
	"time"
)

// clock renders the date header, once a second.
type clock struct{ last atomic.Pointer[dated] }

type dated struct {
	second int64
	text   string
}

// Date implements hcm.Clock.
func (c *clock) Date(now time.Time) string {
	s := now.Unix()
	if d := c.last.Load(); d != nil && d.second == s {
		return d.text
	}
	d := &dated{s, now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")}
	c.last.Store(d)
	return d.text
}
