package cluster_test

import (
	"net/netip"
	"testing"

	"sidecar/api/header"
	"sidecar/api/stream"
	"sidecar/cluster"
	"sidecar/cluster/discover"
)

const forwardProxy = `
name: f
connect_timeout: 1s
lb_policy: CLUSTER_PROVIDED
cluster_type:
  name: envoy.clusters.dynamic_forward_proxy
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig
    dns_cache_config: {name: cache, dns_lookup_family: V4_ONLY}
`

func TestForward(t *testing.T) {
	t.Parallel()
	up := listen(t)
	r := newRig(t)
	r.dns.set("a.example", discover.Answer{Addrs: []netip.Addr{up.Addr()}}, nil)
	c := r.add(forwardProxy)
	port := netip.AddrPortFrom(up.Addr(), up.Port()).String()[len(up.Addr().String()):]
	for _, x := range []struct {
		name, authority string
		want            stream.EventKind
		state           map[string]stream.FilterObject
	}{
		{"by authority", "a.example" + port, stream.EventReady, nil},
		{"known by now", "a.example" + port, stream.EventReady, nil},
		{"does not resolve", "none.example", stream.EventFailed, nil},
		{"by filter state", "none.example", stream.EventReady, map[string]stream.FilterObject{
			"envoy.upstream.dynamic_host": {Value: "a.example"}, "envoy.upstream.dynamic_port": {Value: port[1:]},
		}},
	} {
		h := &header.Map{}
		h.AddID(header.Authority, x.authority)
		ctx := &cluster.Context{Seq: 3, Headers: h, Info: &stream.Info{FilterState: x.state}}
		u := newUser()
		ready := false
		u.in(func(turn *stream.Turn) {
			enc, f := c.NewStream(turn, ctx, u.target(), &u.attempt)
			if f != nil {
				t.Fatalf("%s: %v", x.name, f)
			}
			ready = enc != nil
		})
		for !ready {
			e := <-u.events
			if e.Kind == stream.EventFailed {
				if x.want != e.Kind || e.Fault.Flag != stream.NoHealthyUpstream {
					t.Errorf("%s: fault %v", x.name, e.Fault)
				}
				break
			}
			u.in(func(turn *stream.Turn) {
				enc, f := u.attempt.Open(turn)
				if f != nil {
					t.Fatalf("%s: %v", x.name, f)
				}
				ready = enc != nil
			})
		}
		if ready != (x.want == stream.EventReady) {
			t.Errorf("%s: ready is %v", x.name, ready)
		}
	}
	if n := r.stat("cluster.f.membership_total"); n != 1 {
		t.Errorf("%d hosts", n)
	}
	if _, f := newUser().get(t, c, cluster.Context{}); f == nil || f.Flag != stream.NoHealthyUpstream {
		t.Errorf("without a name: %v", f)
	}
}

func TestForward_Cancel(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.add(forwardProxy)
	h := &header.Map{}
	h.AddID(header.Authority, "a.example")
	u := newUser()
	u.in(func(turn *stream.Turn) {
		if _, f := c.NewStream(turn, &cluster.Context{Headers: h}, u.target(), &u.attempt); f != nil {
			t.Error(f)
		}
		u.attempt.Cancel(turn)
	})
}

func TestNameOf(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a.example": "a.example:80", "a.example:8080": "a.example:8080", "1.2.3.4": "1.2.3.4:80", "[::1]:9": "[::1]:9",
		"[::1]": "[::1]:80", "::1": "[::1]:80", "a:0": "a:80", "a:99999": "a:80",
	} {
		if n, ok := cluster.NameOf(in, 80); !ok || n.String() != want {
			t.Errorf("%s: %s, want %s", in, n, want)
		}
	}
	if _, ok := cluster.NameOf("", 80); ok {
		t.Error("an empty authority is a name")
	}
}
