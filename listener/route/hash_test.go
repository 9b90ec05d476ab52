package route

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sidecar/api/stream"
	clusterhost "sidecar/cluster/host"
	"sidecar/cluster/lb"
)

// hashOf compiles hash policies and asks them.
func hashOf(t *testing.T, policies string, info *stream.Info, lines ...string) Hashed {
	t.Helper()
	table := compile(t, oneHost("- {match: {prefix: /}, route: {cluster: c, hash_policy: "+policies+"}}"))
	h := head(lines...)
	return table.Match(h, infoOf(h), 0).Action.Hash(h, info)
}

// TestHash_Envoy: of the same hosts in a ring, the one that Envoy 1.40 sends a request to.
func TestHash_Envoy(t *testing.T) {
	t.Parallel()
	var hosts []*clusterhost.Host
	for i := range 5 {
		addr := stream.IPAddr(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(21001+i)))
		hosts = append(hosts, clusterhost.New(addr, "", nil, &clusterhost.Attributes{Weight: 1}))
	}
	set := clusterhost.NewSet([]clusterhost.Spec{{Hosts: hosts}}, clusterhost.Policy{}, 1)
	ring := lb.New(&lb.Config{
		Policy: lb.RingHash, Hash: &lb.Hashing{MinRing: lb.DefaultMinRing, MaxRing: lb.DefaultMaxRing},
	}, lb.Env{Random: rand.Uint64})
	for name, tt := range map[string]struct {
		policies string
		head     func(i int) []string
		want     string
	}{
		"two policies": {
			"[{header: {header_name: x-key}}, {header: {header_name: x-two}}]",
			func(i int) []string { return []string{fmt.Sprintf("x-key: k%d", i), "x-two: t"} },
			"2 3 3 2 0 4 1 2 2 3 1 4 1 4 1 4 2 3 2 2",
		},
		"two values": {
			"[{header: {header_name: X-Key}}]",
			func(i int) []string { return []string{fmt.Sprintf("x-key: k%d", i), "x-key: b"} },
			"4 1 1 3 1 3 3 4 0 4 3 2 1 0 2 3 2 4 2 0",
		},
		"terminal": {
			`[{header: {header_name: x-none}, terminal: true}, {header: {header_name: x-key}, terminal: true},
				{header: {header_name: x-two}}]`,
			func(i int) []string { return []string{fmt.Sprintf("x-key: k%d", i), fmt.Sprintf("x-two: t%d", i)} },
			"2 0 0 3 0 0 3 2 0 0 3 1 2 4 0 0 0 1 3 2",
		},
		"cookie": {
			"[{cookie: {name: c}}]",
			func(i int) []string { return []string{fmt.Sprintf("cookie: a=b; c=k%d", i)} },
			"2 0 0 3 0 0 3 2 0 0 3 1 2 4 0 0 0 1 3 2",
		},
		"query": {
			"[{query_parameter: {name: q}}]",
			func(i int) []string { return []string{fmt.Sprintf(":path: /pol-query?a=1&q=k%%20%d", i)} },
			"1 3 2 0 4 1 1 2 3 1 1 2 3 4 3 4 4 2 3 2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for i := range 20 {
				hashed := hashOf(t, tt.policies, &stream.Info{}, tt.head(i)...)
				h, _ := ring.Pick(set, &lb.Context{Hash: hashed.Hash, HasHash: hashed.OK})
				got = append(got, strconv.Itoa(slices.Index(hosts, h)))
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHash(t *testing.T) {
	t.Parallel()
	conn := &stream.ConnInfo{
		Remote: stream.IPAddr(netip.MustParseAddrPort("127.0.0.1:59530")),
		Local:  stream.IPAddr(netip.MustParseAddrPort("127.0.0.1:21901")),
	}
	info := &stream.Info{Conn: conn, Remote: netip.MustParseAddr("127.0.0.1")}
	made := hashOf(t, `[{cookie: {name: c, ttl: 60s, path: /p, attributes: [{name: SameSite, value: Lax}, {name: Secure}]}}]`, info)
	// As Envoy answers a client at that address.
	want := []string{`c="7f3afab16a0fafd1"; Max-Age=60; Path=/p; SameSite=Lax; Secure; HttpOnly`}
	if diff := cmp.Diff(want, made.SetCookies); diff != "" || !made.OK {
		t.Error(diff)
	}
	if made := hashOf(t, `[{cookie: {name: c, ttl: 0s}}]`, info); !strings.HasSuffix(made.SetCookies[0], `"; HttpOnly`) {
		t.Errorf("a cookie of the session: %q", made.SetCookies)
	}
	if kept := hashOf(t, `[{cookie: {name: c, ttl: 60s}}]`, info, "cookie: c=x"); kept.SetCookies != nil || !kept.OK {
		t.Errorf("%+v with a cookie", kept)
	}
	if none := hashOf(t, `[{cookie: {name: c}}, {header: {header_name: x}}, {query_parameter: {name: q}}]`, info); none.OK {
		t.Error("a hash of nothing")
	}
	a := hashOf(t, `[{connection_properties: {source_ip: true}}]`, info)
	b := hashOf(t, `[{header: {header_name: x}}]`, info, "x: 127.0.0.1")
	if !a.OK || a.Hash != b.Hash {
		t.Error("the client's address is not hashed as its text")
	}
	info.FilterState = map[string]stream.FilterObject{"k": {Value: "127.0.0.1"}}
	if s := hashOf(t, `[{filter_state: {key: k}}]`, info); !s.OK || s.Hash != b.Hash {
		t.Error("the filter state is not hashed")
	}
	rewritten := hashOf(t, `[{header: {header_name: x, regex_rewrite: {pattern: {regex: "-.*"}, substitution: ""}}}]`, info, "x: 127.0.0.1-q")
	if rewritten.Hash != b.Hash {
		t.Error("the value is not rewritten")
	}
}
