package cluster_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/discover"
	"sidecar/cluster/host"
)

// listen serves connections that are held open until the test ends.
func listen(tb testing.TB) netip.AddrPort {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			})
		}
	})
	// Registered before the manager's own cleanup, thus run after it.
	tb.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	addr, err := netip.ParseAddrPort(ln.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	return addr
}

func static(name string, addrs ...netip.AddrPort) string {
	y := "name: " + name + "\nload_assignment:\n  cluster_name: " + name + "\n  endpoints:\n  - lb_endpoints:\n"
	for _, a := range addrs {
		y += "    - endpoint: {address: {socket_address: {address: \"" + a.Addr().String() +
			"\", port_value: " + itoa(a.Port()) + "}}}\n"
	}
	if len(addrs) == 0 {
		y += "    []\n"
	}
	return y
}

func itoa(n uint16) string {
	return netip.AddrPortFrom(netip.IPv4Unspecified(), n).String()[len("0.0.0.0:"):]
}

func addrs(c *cluster.Cluster) (out []string) {
	for _, h := range c.Hosts().Hosts {
		out = append(out, h.Addr().String())
	}
	return out
}

func port(n uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), n)
}

func TestStaticServes(t *testing.T) {
	t.Parallel()
	up := listen(t)
	r := newRig(t)
	c := r.add(static("a", up))
	u := newUser()
	enc, f := u.get(t, c, cluster.Context{})
	if enc == nil || f != nil {
		t.Fatalf("no stream: %v", f)
	}
	var info stream.UpstreamInfo
	u.attempt.Describe(&info)
	if info.Host.String() != up.String() || info.Remote.String() != up.String() || info.ConnID == 0 ||
		info.Local.IsZero() || info.Cluster != "a" || info.Protocol != stream.HTTP11 {
		t.Fatalf("described as %+v", info)
	}
	if r.stat("cluster.a.upstream_rq_active") != 1 || r.stat("cluster.a.membership_total") != 1 ||
		r.stat("cluster_manager.active_clusters") != 1 {
		t.Fatal("statistics are wrong")
	}
	c.ChargeCode(cluster.Response{Code: 503}, u.attempt.Host)
	c.ChargeTime(cluster.Response{Code: 503}, time.Second)
	for _, name := range []string{
		"upstream_rq_503", "upstream_rq_5xx", "upstream_rq_completed", "external.upstream_rq_503",
	} {
		if r.stat("cluster.a."+name) != 1 {
			t.Errorf("%s was not counted", name)
		}
	}
	if st := c.Status(); st.Hosts[0].RqError != 1 || st.Hosts[0].CxActive != 1 {
		t.Fatalf("status %+v", st)
	}
}

func TestNoHealthyUpstream(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.add("name: a\nload_assignment: {cluster_name: a}")
	_, f := newUser().get(t, c, cluster.Context{})
	want := &stream.Fault{
		Side: stream.Upstream, Flag: stream.NoHealthyUpstream, Status: 503,
		Details: "no_healthy_upstream", Body: "no healthy upstream",
	}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Fatal(diff)
	}
	if r.stat("cluster.a.upstream_cx_none_healthy") != 1 {
		t.Fatal("not counted")
	}
	if r.Get("b") != nil {
		t.Fatal("an unknown cluster was found")
	}
}

// TestUpdateInPlace keeps hosts, connections and the cluster itself when only endpoints change.
func TestUpdateInPlace(t *testing.T) {
	t.Parallel()
	one, two := listen(t), listen(t)
	r := newRig(t)
	if !r.dynamic(static("a", one)) {
		t.Fatal("not applied")
	}
	c := r.Get("a")
	u := newUser()
	if enc, f := u.get(t, c, cluster.Context{}); enc == nil {
		t.Fatal(f)
	}
	kept := c.Hosts().Hosts[0]
	if r.dynamic(static("a", one)) {
		t.Fatal("an equal cluster was applied")
	}
	if !r.dynamic(static("a", one, two)) {
		t.Fatal("not applied")
	}
	if r.Get("a") != c || c.Hosts().Hosts[0] != kept || len(c.Hosts().Hosts) != 2 {
		t.Fatal("the cluster or its host was replaced")
	}
	if r.stat("cluster.a.upstream_cx_active") != 1 {
		t.Fatal("the connection did not survive")
	}
	r.dynamic(static("a", two))
	if diff := cmp.Diff([]string{two.String()}, addrs(c)); diff != "" {
		t.Fatal(diff)
	}
	// The removed host's stream is served to its end, then its connection closes.
	if r.stat("cluster.a.upstream_rq_active") != 1 {
		t.Fatal("the request was lost")
	}
	u.in(func(t *stream.Turn) { endOf(u).end(t) })
	r.wait("close of the removed host's connection", func() bool {
		return r.stat("cluster.a.upstream_cx_active") == 0
	})
}

// endOf finds the codec of a user's stream.
func endOf(u *user) *idleCodec {
	c, _ := u.enc.(*idleCodec)
	return c
}

func TestReplaceAndRemove(t *testing.T) {
	t.Parallel()
	up := listen(t)
	r := newRig(t)
	r.dynamic(static("a", up))
	old := r.Get("a")
	u := newUser()
	if enc, f := u.get(t, old, cluster.Context{}); enc == nil {
		t.Fatal(f)
	}
	r.dynamic(static("a", up) + "connect_timeout: 1s\n")
	if r.Get("a") == old {
		t.Fatal("not replaced")
	}
	if r.stat("cluster.a.upstream_rq_active") != 1 {
		t.Fatal("statistics did not go on")
	}
	// The old one still serves who holds it, and keeps no connection.
	u.in(func(t *stream.Turn) { endOf(u).end(t) })
	second := newUser()
	if enc, f := second.get(t, old, cluster.Context{}); enc == nil {
		t.Fatal(f)
	}
	second.in(func(t *stream.Turn) { endOf(second).end(t) })
	r.wait("drain", func() bool { return r.stat("cluster.a.upstream_cx_active") == 0 })
	if !r.Remove("a") || r.Get("a") != nil || r.Remove("a") {
		t.Fatal("not removed once")
	}
	if r.stat("cluster.a.membership_total") != -1 {
		t.Fatal("statistics are still listed")
	}
	r.add(static("b", up))
	if r.Remove("b") {
		t.Fatal("a cluster of the bootstrap was removed")
	}
	if r.dynamic(static("b", up) + "connect_timeout: 1s\n") {
		t.Fatal("a cluster of the bootstrap was replaced")
	}
}

const edsCluster = `
name: e
type: EDS
eds_cluster_config: {service_name: svc, eds_config: {ads: {}}}
`

func endpoints(health string, ports ...uint16) string {
	y := "cluster_name: svc\nendpoints:\n- lb_endpoints:\n"
	for _, p := range ports {
		y += "  - {health_status: " + health + ", endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: " + itoa(p) + "}}}}\n"
	}
	return y
}

func TestEDS(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ready := make(chan struct{})
	r.dynamic(edsCluster)
	r.WhenReady(func() { close(ready) })
	if r.Get("e") != nil || r.stat("cluster_manager.warming_clusters") != 1 {
		t.Fatal("live before its endpoints are known")
	}
	sub := r.subs.open()[0]
	if diff := cmp.Diff([]string{"svc"}, sub.Names); diff != "" {
		t.Fatal(diff)
	}
	if err := sub.answer("svc", assignment(t, endpoints("HEALTHY", 1, 2))); err != nil {
		t.Fatal(err)
	}
	<-ready
	c := r.Get("e")
	if diff := cmp.Diff([]string{"127.0.0.1:1", "127.0.0.1:2"}, addrs(c)); diff != "" {
		t.Fatal(diff)
	}
	first := c.Hosts().Hosts[0]

	// A bad update is refused with the place, and changes nothing.
	err := sub.answer("svc", assignment(t, "cluster_name: svc\nendpoints:\n- lb_endpoints:\n"+
		"  - endpoint: {address: {socket_address: {address: nope, port_value: 1}}}\n"))
	const want = "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: malformed IP address: nope."
	if err == nil || !cmp.Equal(err.Error()[:len(want)], want) {
		t.Fatalf("error %v", err)
	}
	if len(c.Hosts().Hosts) != 2 {
		t.Fatal("a bad update changed hosts")
	}

	// Health changes in place; hosts are the same objects, one that repeats is there once.
	if err := sub.answer("svc", assignment(t, endpoints("DRAINING", 1, 3, 3))); err != nil {
		t.Fatal(err)
	}
	if c.Hosts().Hosts[0] != first || first.Attr().Health != host.Draining || len(c.Hosts().Hosts) != 2 {
		t.Fatal("hosts were not kept")
	}
	if r.stat("cluster.e.membership_healthy") != 0 || r.stat("cluster.e.membership_total") != 2 ||
		r.stat("cluster.e.membership_excluded") != 2 ||
		r.stat("cluster.e.membership_change") != 2 {
		t.Fatal("membership is wrong")
	}

	// A new version of the cluster warms, and takes the endpoints over when the server has none.
	r.dynamic(edsCluster + "connect_timeout: 1s\n")
	if r.Get("e") != c {
		t.Fatal("the live one does not serve while the new one warms")
	}
	subs := r.subs.open()
	subs[len(subs)-1].Watcher.Unavailable(errors.New("timeout"))
	if r.Get("e") == c || len(r.Get("e").Hosts().Hosts) != 2 {
		t.Fatal("endpoints were not taken over")
	}
	if len(r.subs.open()) != 1 {
		t.Fatal("the old subscription is open")
	}
	r.Remove("e")
	if len(r.subs.open()) != 0 {
		t.Fatal("a subscription is open")
	}
}

func TestStaleEndpoints(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.dynamic(edsCluster)
		sub := r.subs.last()
		fresh := endpoints("HEALTHY", 1) + "policy: {endpoint_stale_after: 10s}\n"
		for range 2 {
			if err := sub.answer("svc", assignment(t, fresh)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(9 * time.Second)
			synctest.Wait()
			same(t, r.Get("e"), "127.0.0.1:1")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		same(t, r.Get("e"))
		if r.stat("cluster.e.assignment_stale") != 1 || r.stat("cluster.e.assignment_timeout_received") != 2 {
			t.Fatal("not counted")
		}
	})
}

func TestInitOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.dns.set("xds", discover.Answer{}, errors.New("not yet"))
	block := make(chan struct{})
	r.dns.gate = block
	r.add("name: xds\ntype: STRICT_DNS\nload_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: " +
		"[{endpoint: {address: {socket_address: {address: xds, port_value: 1}}}}]}]}")
	r.add(edsCluster)
	if len(r.subs.open()) != 0 {
		t.Fatal("EDS began before the primary clusters were ready")
	}
	ready := make(chan struct{})
	r.WhenReady(func() { close(ready) })
	close(block)
	r.wait("subscription", func() bool { return len(r.subs.open()) == 1 })
	select {
	case <-ready:
		t.Fatal("ready before EDS answered")
	default:
	}
	r.subs.open()[0].Watcher.Unavailable(errors.New("timeout"))
	<-ready
}

func TestCDS(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first := 0
	r.StartCDS(nil, func() { first++ })
	sub := r.subs.open()[0]
	if err := sub.answer("a", parse(t, static("a", port(1)))); err != nil {
		t.Fatal(err)
	}
	err := sub.answer("b", parse(t, static("b", port(1))+"filters: [{name: x}]\nhealth_checks: [{}]\n"))
	if err == nil {
		t.Fatal("a bad cluster was accepted")
	}
	if r.Get("a") == nil || r.Get("b") != nil || first != 1 {
		t.Fatal("the good and the bad were mixed up")
	}
	version, dumps := r.Dumps()
	if version != "7" || len(dumps) != 1 || dumps[0].Name != "a" || dumps[0].VersionInfo != "7" || len(dumps[0].Raw) == 0 {
		t.Fatalf("dump %q %+v", version, dumps)
	}
	sub.Watcher.Apply(removed("a"))
	if r.Get("a") != nil {
		t.Fatal("not removed")
	}
}

func TestOriginalDst(t *testing.T) {
	t.Parallel()
	up, other := listen(t), listen(t)
	r := newRig(t)
	c := r.add("name: o\ntype: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\ncleanup_interval: 0.02s\n" +
		"original_dst_lb_config: {use_http_header: true}\n")
	conn := &stream.ConnInfo{Local: stream.IPAddr(up), LocalRestored: true}
	u := newUser()
	enc, f := u.get(t, c, cluster.Context{Conn: conn})
	if enc == nil {
		t.Fatal(f)
	}
	if u.attempt.Host.Addr().String() != up.String() {
		t.Fatalf("host %s", u.attempt.Host.Addr())
	}
	h := &header.Map{}
	h.Add("x-envoy-original-dst-host", other.String())
	v := newUser()
	if enc, f := v.get(t, c, cluster.Context{Conn: conn, Headers: h}); enc == nil || v.attempt.Host.Addr().String() != other.String() {
		t.Fatalf("the header was not obeyed: %v", f)
	}
	bad := &header.Map{}
	bad.Add("x-envoy-original-dst-host", "nonsense")
	if _, f := newUser().get(t, c, cluster.Context{Headers: bad}); f == nil || f.Flag != stream.NoHealthyUpstream {
		t.Fatalf("fault %v", f)
	}
	if _, f := newUser().get(t, c, cluster.Context{}); f == nil {
		t.Fatal("a stream without destination got a host")
	}
	if _, f := newUser().get(t, c, cluster.Context{Conn: &stream.ConnInfo{Local: conn.Local}}); f == nil {
		t.Fatal("a connection that was not redirected got a host")
	}
	if r.stat("cluster.o.original_dst_host_invalid") != 1 || r.stat("cluster.o.membership_total") != 2 {
		t.Fatal("statistics are wrong")
	}
	v.in(func(t *stream.Turn) { endOf(v).end(t) })
	r.wait("cleanup", func() bool { return r.stat("cluster.o.membership_total") == 1 })
	r.wait("close", func() bool { return r.stat("cluster.o.upstream_cx_active") == 1 })
}

func TestConnect(t *testing.T) {
	t.Parallel()
	up := listen(t)
	r := newRig(t)
	c := r.add(static("a", up))
	u := newUser()
	u.in(func(*stream.Turn) {
		if f := c.Connect(&cluster.Context{Seq: 4}, u.target(), &u.attempt); f != nil {
			t.Error(f)
		}
	})
	if e := <-u.events; e.Kind != stream.EventReady || e.Seq != 4 {
		t.Fatalf("event %+v", e)
	}
	u.in(func(*stream.Turn) {
		conn := u.attempt.OpenTCP()
		var info stream.UpstreamInfo
		u.attempt.Describe(&info)
		if info.Local.IsZero() || info.Remote.String() != up.String() {
			t.Errorf("described as %+v", info)
		}
		if r.stat("cluster.a.upstream_cx_active") != 1 || r.stat("cluster.a.upstream_rq_active") != 1 {
			t.Error("not counted")
		}
		conn.Close(true)
		conn.Close(true)
	})
	if r.stat("cluster.a.upstream_cx_active") != 0 || r.stat("cluster.a.upstream_cx_destroy_local") != 1 {
		t.Fatal("the end was not counted once")
	}
}

func TestDropOverload(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.add("name: a\nload_assignment: {cluster_name: a, policy: {drop_overloads: [{category: x, drop_percentage: {numerator: 100}}]}}")
	if f := c.DropOverload(); f == nil || f.Flag != stream.UnconditionalDropOverload || f.Status != 503 {
		t.Fatalf("fault %v", f)
	}
	half := r.add("name: b\nload_assignment: {cluster_name: b, policy: {drop_overloads: [{category: x, drop_percentage: {numerator: 50}}]}}")
	dropped := 0
	for range 1000 {
		if f := half.DropOverload(); f != nil {
			dropped++
		}
	}
	if dropped < 400 || dropped > 600 {
		t.Fatalf("%d of 1000 dropped, want half", dropped)
	}
}

func TestRetries(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.add(static("a", port(1)) + "circuit_breakers: {thresholds: [{max_retries: 1, track_remaining: true}]}\n")
	if !c.TakeRetry(0) || c.TakeRetry(0) {
		t.Fatal("not exactly one retry was allowed")
	}
	if r.stat("cluster.a.circuit_breakers.default.rq_retry_open") != 1 ||
		r.stat("cluster.a.circuit_breakers.default.remaining_retries") != 0 {
		t.Fatal("the gauges are wrong")
	}
	c.GiveRetry(0)
	if !c.TakeRetry(0) || r.stat("cluster.a.circuit_breakers.default.rq_retry_open") != 1 {
		t.Fatal("a retry was not given back")
	}
	b := r.add(static("b", port(1)) + "circuit_breakers: {thresholds: [{retry_budget: {budget_percent: {value: 20}, min_retry_concurrency: 2}}]}\n")
	for i := range 3 {
		if got, want := b.TakeRetry(0), i < 2; got != want {
			t.Fatalf("retry %d: %v; the budget's minimum is 2", i, got)
		}
	}
}
