package pool_test

import (
	"sync/atomic"
	"testing"

	"sidecar/api/filter"
	"sidecar/api/stream"
	"sidecar/cluster/load"
	"sidecar/cluster/pool"
	"sidecar/internal/buf"
	"sidecar/internal/netfilter"
)

// exchange is a network filter that sends a question of its own first and keeps the answer to it.
type exchange struct {
	refuse bool
	taken  atomic.Int64
	ended  atomic.Int64
	last   atomic.Pointer[stream.Info]
}

type exchanging struct {
	x *exchange
	c *filter.Connection
}

func (x *exchange) NewNetworkFilter(c *filter.Connection) any { return &exchanging{x, c} }

func (e *exchanging) OnNewConnection(t *stream.Turn) bool {
	if e.x.refuse {
		return false
	}
	e.c.Info.FilterState = map[string]stream.FilterObject{"seen": {Value: "yes"}}
	e.c.Wire.Write(t, []byte("?"))
	return true
}

func (e *exchanging) OnRead(data *buf.Buffer, _ bool) bool {
	data.Consume(1)
	e.x.taken.Add(1)
	return false
}

func (e *exchanging) OnConnectionEnd(info *stream.Info) {
	record := *info
	e.x.last.Store(&record)
	e.x.ended.Add(1)
}

func TestFilters(t *testing.T) {
	t.Parallel()
	x := &exchange{}
	s := newServer(t, bang)
	r := newRig(t, s.ln.Addr(), load.DefaultLimits(), func(c *pool.Config) {
		c.Filters, c.ClusterName = netfilter.Chain{x}, "c"
	})
	u := r.user()
	u.get()
	if x.taken.Load() != 1 {
		t.Error("the filter has not seen its answer")
	}
	if got := u.lease.Conn().Filtered(); got == nil || got.FilterState["seen"].Value != "yes" {
		t.Errorf("the user of the connection sees %+v", got)
	}
	r.pool.Close()
	r.wait("the end of the filter", func() bool { return x.ended.Load() == 1 })
	if i := x.last.Load(); i.BytesReceived != 2 || i.BytesSent != 2 || i.Upstream.Cluster != "c" || i.Upstream.Host.IsZero() {
		t.Errorf("the record at the end is %+v", i)
	}
}

func TestFilters_Refuse(t *testing.T) {
	t.Parallel()
	x := &exchange{refuse: true}
	s := newServer(t, bang)
	r := newRig(t, s.ln.Addr(), load.DefaultLimits(), func(c *pool.Config) { c.Filters = netfilter.Chain{x} })
	u := r.user()
	if f := u.connect(); f != nil {
		t.Fatal(f)
	}
	if f := u.expect(stream.EventFailed).Fault; f.Reason != stream.ReasonLocalConnectionFailure {
		t.Errorf("fault %v", f)
	}
	if x.ended.Load() != 1 {
		t.Error("the filter was not told of the end")
	}
}

func TestFilters_TCP(t *testing.T) {
	t.Parallel()
	x := &exchange{}
	s := newServer(t, bang)
	r := newRig(t, s.ln.Addr(), load.DefaultLimits(), func(c *pool.Config) { c.Filters = netfilter.Chain{x} })
	u := r.user()
	if f := u.connect(); f != nil {
		t.Fatal(f)
	}
	u.expect(stream.EventReady)
	if u.raw.Filtered() == nil {
		t.Error("no record")
	}
	u.raw.Close(true)
	if x.ended.Load() != 1 {
		t.Error("the filter was not told of the end")
	}
}
