package cluster_test

import (
	"testing"

	"sidecar/api/stream"
	"sidecar/cluster"
)

// BenchmarkPooled is what the cluster adds to a request that finds an idle connection: the look-up,
// the choice, breakers, counters, pool and back.
func BenchmarkPooled(b *testing.B) {
	r, u := pooled(b)
	t := stream.NewTurn()
	ctx := &cluster.Context{}
	target := u.target()
	b.ReportAllocs()
	for b.Loop() {
		request(b, r, u, t, ctx, target)
	}
}

func TestAllocsPooled(t *testing.T) {
	r, u := pooled(t)
	turn := stream.NewTurn()
	ctx := &cluster.Context{}
	target := u.target()
	if n := testing.AllocsPerRun(1000, func() { request(t, r, u, turn, ctx, target) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// pooled is a cluster with an idle connection.
func pooled(tb testing.TB) (*rig, *user) {
	tb.Helper()
	up := listen(tb)
	r := newRig(tb)
	c := r.add(static("a", up) + "lb_policy: LEAST_REQUEST\n")
	u := newUser()
	enc, f := u.get(tb, c, cluster.Context{})
	if enc == nil {
		tb.Fatal(f)
	}
	u.in(func(t *stream.Turn) { endOf(u).end(t) })
	return r, u
}

func request(tb testing.TB, r *rig, u *user, t *stream.Turn, ctx *cluster.Context, target stream.Target) {
	tb.Helper()
	c := r.Get("a")
	enc, _ := c.NewStream(t, ctx, target, &u.attempt)
	codec, ok := enc.(*idleCodec)
	if !ok {
		tb.Fatal("no idle connection")
	}
	c.ChargeCode(cluster.Response{Code: 200}, u.attempt.Host)
	c.ChargeTime(cluster.Response{Code: 200}, 1)
	codec.end(t)
	t.End()
}
