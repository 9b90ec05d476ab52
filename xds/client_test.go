package xds_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"sidecar/api/stats"
	"sidecar/internal/config/source"
	"sidecar/xds"
	"sidecar/xds/xdstest"
)

func TestPushes(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, delta bool) {
		r := newRig(t, delta)
		r.srv.Set(listener("a", "1"), listener("b", "1"))
		w, st, _ := r.subscribe(source.ListenerType)
		w.want(r.ctx, t, "a=1", "b=1")
		r.ack(source.ListenerType, "1")

		// Only what differs is given.
		v := r.srv.Set(listener("a", "2"), listener("b", "1"), listener("c", "1"))
		w.want(r.ctx, t, "a=2", "c=1")
		r.ack(source.ListenerType, v)

		v = r.srv.Remove(source.ListenerType, "b")
		w.want(r.ctx, t, "-b")
		r.ack(source.ListenerType, v)
		if n := st.UpdateSuccess.Value(); n != 3 {
			t.Fatalf("update_success %d, want 3", n)
		}
		if got := st.VersionText.Value(); got != v {
			t.Fatalf("version_text %q, want %q", got, v)
		}
	})
}

func TestPartlyBadPush(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, delta bool) {
		r := newRig(t, delta)
		w, st, _ := r.subscribe(source.ClusterType)
		w.want(r.ctx, t)
		r.srv.Set(cluster("a", "1"), cluster("b", "1"))
		w.want(r.ctx, t, "a=1", "b=1")

		v := r.srv.Set(cluster("a", "bad"), cluster("b", "2"))
		w.want(r.ctx, t, "a=bad", "b=2")
		e := r.nack(source.ClusterType, "Error adding/updating cluster(s) a: field.path: is bad")
		if e.Version != v {
			t.Fatalf("NACK of version %q, want %q", e.Version, v)
		}
		if n := st.UpdateRejected.Value(); n != 1 {
			t.Fatalf("update_rejected %d, want 1", n)
		}
		// Going back to what runs is a delivery too: it ends what the watcher may be doing.
		v = r.srv.Set(cluster("a", "1"))
		w.want(r.ctx, t, "a=1")
		r.ack(source.ClusterType, v)
	})
}

func TestNamedSubscriptions(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, delta bool) {
		r := newRig(t, delta)
		r.srv.Set(route("one", "1"), route("two", "1"), route("three", "1"))
		w, _, sub := r.subscribe(source.RouteType, "one")
		w.want(r.ctx, t, "one=1")
		two, _, subTwo := r.subscribe(source.RouteType, "two")
		two.want(r.ctx, t, "two=1")
		w.quiet(t)

		// A late subscriber is served from what is known: this name is never asked for twice.
		late, _, lateSub := r.subscribe(source.RouteType, "one")
		late.want(r.ctx, t, "one=1")
		sub.Close()
		r.srv.Set(route("one", "2"))
		late.want(r.ctx, t, "one=2")
		w.quiet(t)

		lateSub.SetNames([]string{"three"})
		late.want(r.ctx, t, "three=1")
		v := r.srv.Set(route("one", "3"), route("two", "2"))
		two.want(r.ctx, t, "two=2")
		r.ack(source.RouteType, v)
		late.quiet(t)
		subTwo.Close()
		lateSub.Close()
	})
}

// TestSlowWatcher checks that the answer waits for the watcher, that other types go on meanwhile,
// and that a newer response takes the place of the one that waits.
func TestSlowWatcher(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, delta bool) {
		r := newRig(t, delta)
		lds, _, _ := r.subscribe(source.ListenerType)
		lds.want(r.ctx, t)
		cds, _, _ := r.subscribe(source.ClusterType)
		cds.want(r.ctx, t)

		first := r.srv.Set(listener("a", "slow-1"))
		lds.want(r.ctx, t, "a=slow-1")
		v := r.srv.Set(cluster("c", "1"))
		cds.want(r.ctx, t, "c=1")
		r.ack(source.ClusterType, v)
		for _, e := range r.srv.Events() {
			if e.TypeURL == source.ListenerType && e.Version == first {
				t.Fatalf("answered before the watcher: %+v", e)
			}
		}
		lds.release("slow-1", nil)
		r.ack(source.ListenerType, first)

		r.srv.Set(listener("a", "slow-2"))
		lds.want(r.ctx, t, "a=slow-2")
		lds.release("slow-2", errBroken)
		r.nack(source.ListenerType, "a: broken")
	})
}

func TestReconnect(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, delta bool) {
		r := newRig(t, delta)
		r.srv.Set(cluster("c", "1"), cluster("gone", "1"), listener("l", "1"), route("r", "1"))
		cds, st, _ := r.subscribe(source.ClusterType)
		cds.want(r.ctx, t, "c=1", "gone=1")
		lds, _, _ := r.subscribe(source.ListenerType)
		lds.want(r.ctx, t, "l=1")
		rds, _, _ := r.subscribe(source.RouteType, "r")
		rds.want(r.ctx, t, "r=1")
		r.ack(source.RouteType, "1")

		n := len(r.srv.Events())
		r.srv.Stop()
		r.srv.Set(cluster("c", "2"))
		v := r.srv.Remove(source.ClusterType, "gone")
		if err := r.srv.Resume(); err != nil {
			t.Fatal(err)
		}
		cds.want(r.ctx, t, "c=2", "-gone")
		r.ack(source.ClusterType, v)
		rv := r.srv.Set(route("r", "2"))
		rds.want(r.ctx, t, "r=2")
		r.ack(source.RouteType, rv)
		if st.UpdateFailure.Value() == 0 {
			t.Error("update_failure is 0 after a break")
		}
		checkResubscription(t, r.srv.Events()[n:], delta)
		if delta {
			lds.want(r.ctx, t) // the versions told the server that nothing has changed
		}
	})
}

// checkResubscription: clusters before listeners before routes, the node in the first message only,
// all names, and the versions that are held.
func checkResubscription(t *testing.T, events []xdstest.Event, delta bool) {
	t.Helper()
	var order []string
	for _, e := range events {
		if e.Kind != xdstest.Subscribed {
			continue
		}
		// (The state-of-the-world server fills the node in itself.)
		if delta && (e.Node != nil) != (len(order) == 0) {
			t.Errorf("request %d: node %v", len(order), e.Node)
		}
		order = append(order, e.TypeURL)
		if e.TypeURL == source.RouteType && (len(e.Names) != 1 || e.Names[0] != "r") {
			t.Errorf("route names %q", e.Names)
		}
		if delta && e.TypeURL == source.ClusterType && len(e.InitialVersions) != 2 {
			t.Errorf("initial versions %v, want those of 2 clusters", e.InitialVersions)
		}
	}
	want := []string{source.ClusterType, source.ListenerType, source.RouteType}
	if len(order) != len(want) || order[0] != want[0] || order[1] != want[1] || order[2] != want[2] {
		t.Errorf("order of requests %q, want %q", order, want)
	}
}

func TestPanickingWatcher(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, delta bool) {
		r := newRig(t, delta)
		w, _, _ := r.subscribe(source.ListenerType)
		w.want(r.ctx, t)
		r.srv.Set(listener("a", "panic"))
		cds, _, _ := r.subscribe(source.ClusterType)
		cds.want(r.ctx, t)
		v := r.srv.Set(cluster("c", "1"))
		cds.want(r.ctx, t, "c=1")
		r.ack(source.ClusterType, v)
	})
}

func TestTypeStreams(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, delta bool) {
		r := newRig(t, delta)
		r.srv.Set(cluster("c", "1"), route("r", "1"))
		src := &source.ConfigSource{Kind: source.KindGRPC, GRPC: adsConfig(delta), Key: "k"}
		w := newWatcher()
		sub := r.client.Subscribe(source.Spec{TypeURL: source.ClusterType, Source: src, Watcher: w})
		w.want(r.ctx, t, "c=1")
		rds := newWatcher()
		r.client.Subscribe(source.Spec{
			TypeURL: source.RouteType, Names: []string{"r"}, Source: src, Watcher: rds,
		})
		rds.want(r.ctx, t, "r=1")
		r.ack(source.ClusterType, "1")
		sub.Close()
		if _, err := r.srv.Wait(r.ctx, func(e xdstest.Event) bool {
			return e.Kind == xdstest.Closed
		}); err != nil {
			t.Fatal(err)
		}
		r.client.Close()
		w.quiet(t)
	})
}

func TestNodeFields(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	w, _, _ := r.subscribe(source.ListenerType)
	w.want(r.ctx, t)
	e, err := r.srv.Wait(r.ctx, func(e xdstest.Event) bool { return e.Node != nil })
	if err != nil {
		t.Fatal(err)
	}
	v := e.Node.GetUserAgentBuildVersion().GetVersion()
	if e.Node.GetId() != "node" || e.Node.GetUserAgentName() != "envoy" ||
		v.GetMajorNumber() != 1 || v.GetMinorNumber() != 40 || len(e.Node.GetExtensions()) != 1 {
		t.Fatalf("node %v", e.Node)
	}
}

func TestNoADS(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := newClientWithoutADS(t)
	w := newWatcher()
	c.Subscribe(source.Spec{TypeURL: source.ListenerType, Source: source.ADS(), Watcher: w})
	if s := w.next(ctx, t); s.err == nil || errors.Is(s.err, source.ErrFetchTimeout) {
		t.Fatalf("got %+v, want an error", s)
	}
}

// TestDeltaWildcardAndNames: everything, then a name beside it, then the name alone.
func TestDeltaWildcardAndNames(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	r.srv.Set(cluster("a", "1"))
	all, _, allSub := r.subscribe(source.ClusterType)
	all.want(r.ctx, t, "a=1")
	one, _, _ := r.subscribe(source.ClusterType, "a")
	one.want(r.ctx, t, "a=1")
	r.srv.Set(cluster("b", "1"))
	all.want(r.ctx, t, "b=1")
	allSub.Close()
	if _, err := r.srv.Wait(r.ctx, func(e xdstest.Event) bool {
		return slices.Equal(e.Unsubscribed, []string{"*"})
	}); err != nil {
		t.Fatal(err)
	}
	r.srv.Set(cluster("a", "2"), cluster("b", "2"))
	one.want(r.ctx, t, "a=2")
	for len(all.calls) > 0 {
		if s := <-all.calls; len(s.resources) > 0 { // an empty answer may have come before the end
			t.Fatalf("a closed subscription got %+v", s)
		}
	}
	r.srv.Remove(source.ClusterType, "a")
	one.want(r.ctx, t, "-a")
}

// TestManyEndpoints: subscriptions that are made together are asked for together.
func TestManyEndpoints(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, delta bool) {
		r := newRig(t, delta)
		gate := newWatcher()
		r.client.Subscribe(source.Spec{
			TypeURL: source.ClusterType, Source: source.ADS(), Watcher: subscribing{gate, func() {
				for i := range 50 {
					r.subscribe(source.EndpointType, fmt.Sprintf("e%02d", i))
				}
			}},
		})
		gate.want(r.ctx, t)
		e, err := r.srv.Wait(r.ctx, func(e xdstest.Event) bool {
			return e.TypeURL == source.EndpointType && e.Kind == xdstest.Subscribed
		})
		if err != nil || len(e.Names) != 50 {
			t.Fatalf("the first request has %d names (%v)", len(e.Names), err)
		}
	})
}

// subscribing subscribes to more from inside Apply.
type subscribing struct {
	*watcher
	more func()
}

func (s subscribing) Apply(u *source.Update) {
	s.more()
	s.watcher.Apply(u)
}

func TestGoogleGRPC(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	r.srv.Set(listener("a", "1"))
	src := &source.ConfigSource{Kind: source.KindGRPC, Key: "g", GRPC: &source.GRPC{TargetURI: r.srv.Addr()}}
	w, cp := newWatcher(), &source.ControlPlaneStats{}
	r.client.Subscribe(source.Spec{
		TypeURL: source.ListenerType, Source: src, Watcher: w, ControlPlane: cp,
	})
	w.want(r.ctx, t, "a=1")
	if cp.ConnectedState.Value() != 1 {
		t.Fatal("connected_state is not 1")
	}
}

func TestUnknownFieldsRejected(t *testing.T) {
	t.Parallel()
	for _, reject := range []bool{false, true} {
		ctx := testContext(t)
		srv, count := xdstest.New(t), &stats.Counter{}
		c := xds.New(xds.Config{
			ADS: adsConfig(false), Dialer: srv, RejectUnknownFields: reject, UnknownField: count,
		})
		c.Start()
		t.Cleanup(c.Close)
		w := newWatcher()
		c.Subscribe(source.Spec{TypeURL: source.ListenerType, Source: source.ADS(), Watcher: w})
		w.want(ctx, t)
		l := listener("a", "1")
		l.ProtoReflect().SetUnknown(protowire.AppendVarint(
			protowire.AppendTag(nil, 1000, protowire.VarintType), 7))
		v := srv.Set(l)
		if reject {
			w.want(ctx, t)
			if _, err := srv.WaitNACK(ctx, source.ListenerType, "unknown field set {1000}"); err != nil {
				t.Fatal(err)
			}
		} else {
			w.want(ctx, t, "a=1")
			if err := srv.WaitACK(ctx, source.ListenerType, v); err != nil {
				t.Fatal(err)
			}
		}
		if count.Value() != 1 {
			t.Fatalf("counted %d", count.Value())
		}
	}
}

// TestResubscribe holds that who gives up a resource and wants it again at once gets it: the server,
// which knows that this version was sent, has to hear of both.
func TestResubscribe(t *testing.T) {
	t.Parallel()
	bothProtocols(t, func(t *testing.T, delta bool) {
		r := newRig(t, delta)
		r.srv.Set(route("one", "1"), route("two", "1"))
		other, _, _ := r.subscribe(source.RouteType, "two")
		other.want(r.ctx, t, "two=1")
		first, _, sub := r.subscribe(source.RouteType, "one")
		first.want(r.ctx, t, "one=1")
		sub.Close()
		second, _, _ := r.subscribe(source.RouteType, "one")
		second.want(r.ctx, t, "one=1")
	})
}
