package lb_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sidecar/api/stream"
	"sidecar/cluster/host"
	"sidecar/cluster/lb"
	"sidecar/internal/xxhash"
)

// hashHosts are 127.0.0.1:21001 and on, called h0 and on, as those were that Envoy was asked with.
func hashHosts(weights []uint32, keys bool) []*host.Host {
	var out []*host.Host
	for i, w := range weights {
		attr := &host.Attributes{Weight: w}
		if keys {
			attr.Metadata = host.Metadata{"envoy.lb": {"hash_key": fmt.Sprintf("key%d", i)}}
		}
		addr := stream.IPAddr(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(21001+i)))
		out = append(out, host.New(addr, fmt.Sprintf("h%d", i), nil, attr))
	}
	return out
}

func hashing(change func(*lb.Hashing)) *lb.Hashing {
	h := &lb.Hashing{MinRing: lb.DefaultMinRing, MaxRing: lb.DefaultMaxRing, Table: lb.DefaultTable}
	if change != nil {
		change(h)
	}
	return h
}

// TestHash_Envoy compares the choices with those that Envoy 1.40 makes of the same hosts, for requests
// whose header x-key is k0, k1 and so on.
func TestHash_Envoy(t *testing.T) {
	t.Parallel()
	even := []uint32{1, 1, 1, 1, 1}
	rising := []uint32{1, 2, 3, 4, 5}
	murmur := func(h *lb.Hashing) { h.Murmur = true }
	small := func(h *lb.Hashing) { h.MinRing, h.MaxRing = 6, 7 }
	names := func(h *lb.Hashing) { h.UseHostname = true }
	table := func(h *lb.Hashing) { h.Table = 1009 }
	for _, tt := range []struct {
		name           string
		policy         lb.Policy
		change         func(*lb.Hashing)
		weights        []uint32
		keys, locality bool
		want           string
	}{
		{"ring", lb.RingHash, nil, even, false, false, "2 0 0 3 0 0 3 2 0 0 3 1 2 4 0 0 0 1 3 2 1 2 4 4 1 1 0 4 0 3 4 0 0 4 1 1 3 4 1 3 1 2 0 2 4 3 2 3"},
		{"weights", lb.RingHash, nil, rising, false, false, "2 4 1 3 4 0 3 2 4 4 3 1 2 4 4 4 4 1 3 2 1 4 4 4 2 1 2 4 4 3 4 3 4 4 1 3 3 4 1 3 1 2 2 2 4 3 2 3"},
		{"MurmurHash2", lb.RingHash, murmur, even, false, false, "3 1 2 1 2 3 3 0 1 2 3 2 1 3 3 1 3 4 3 3 0 2 4 0 3 2 2 0 1 0 2 2 1 4 2 1 0 1 0 4 1 3 3 3 2 0 4 1"},
		{"small ring", lb.RingHash, small, even[:4], false, false, "1 2 3 1 1 1 3 1 3 1 1 1 2 0 1 3 1 3 0 2 0 2 3 3 2 2 3 0 2 1 2 0 0 1 3 1 2 2 1 1 3 1 1 2 1 2 3 0"},
		{"host names", lb.RingHash, names, even, false, false, "0 3 2 3 2 3 2 0 4 1 3 4 0 1 3 4 1 2 0 2 0 0 4 1 2 4 1 3 3 1 4 3 0 4 1 4 1 3 1 3 4 0 3 3 0 1 4 2"},
		{"hash_key", lb.RingHash, nil, even, true, false, "0 2 2 0 2 4 3 0 0 1 4 3 0 1 1 2 0 2 3 4 2 1 4 3 0 1 2 1 2 2 0 0 1 0 3 1 0 0 3 4 1 0 3 4 1 3 4 3"},
		{"localities", lb.RingHash, nil, even, false, true, "2 1 0 3 0 0 3 2 4 4 3 1 2 4 2 4 0 1 3 2 2 4 4 4 2 1 0 4 1 3 4 0 4 4 1 3 3 2 1 3 1 2 2 2 4 3 2 3"},
		{"Maglev", lb.Maglev, nil, even, false, false, "0 4 3 1 2 2 0 3 1 3 2 0 2 1 2 2 3 2 4 0 2 0 3 3 3 2 3 4 2 1 3 0 3 2 2 3 0 3 4 2 0 1 0 2 2 1 4 2"},
		{"Maglev by weights", lb.Maglev, table, rising, false, false, "4 3 4 0 2 4 4 2 1 4 3 2 3 3 1 1 4 2 4 2 3 2 3 4 4 2 4 4 2 3 3 1 1 3 2 3 4 2 4 0 4 3 4 4 4 3 4 4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conf := &lb.Config{
				Policy: tt.policy, PanicThreshold: 50, Hash: hashing(tt.change), LocalityWeighted: tt.locality,
			}
			hosts := hashHosts(tt.weights, tt.keys)
			specs := []host.Spec{{Hosts: hosts}}
			if tt.locality {
				specs = []host.Spec{{Weight: 1, Hosts: hosts[:2]}, {Weight: 3, Hosts: hosts[2:]}}
			}
			set := host.NewSet(specs, host.Policy{}, 1)
			b := lb.New(conf, lb.Env{Random: rand.Uint64})
			var got []string
			for i := range 48 {
				ctx := &lb.Context{Hash: xxhash.Sum64(0, "k"+strconv.Itoa(i)), HasHash: true}
				h, _ := b.Pick(set, ctx)
				got = append(got, strconv.Itoa(slices.Index(hosts, h)))
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got\n%s, not\n%s", s, tt.want)
			}
		})
	}
}

func TestHash_Sizes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		policy            lb.Policy
		weights           []uint32
		size, least, most uint64
	}{
		{lb.RingHash, []uint32{1, 1, 1, 1, 1}, 1025, 205, 205},
		{lb.RingHash, []uint32{1, 2, 3, 4, 5}, 1035, 69, 345},
		{lb.Maglev, []uint32{1, 1, 1, 1, 1}, 65537, 13107, 13108},
	} {
		var size, least, most uint64
		b := lb.New(&lb.Config{Policy: tt.policy, Hash: hashing(nil)}, lb.Env{
			Random: rand.Uint64, Sizes: func(s, l, m uint64) { size, least, most = s, l, m },
		})
		b.Pick(host.NewSet([]host.Spec{{Hosts: hashHosts(tt.weights, false)}}, host.Policy{}, 1), &lb.Context{})
		if size != tt.size || least != tt.least || most != tt.most {
			t.Errorf("%d of %v: %d, %d to %d", tt.policy, tt.weights, size, least, most)
		}
	}
}

// TestHash_Retry: a host that was tried is not chosen again, and the next is the same each time.
func TestHash_Retry(t *testing.T) {
	t.Parallel()
	for _, policy := range []lb.Policy{lb.RingHash, lb.Maglev} {
		set := host.NewSet([]host.Spec{{Hosts: hashHosts([]uint32{1, 1, 1}, false)}}, host.Policy{}, 1)
		b := lb.New(&lb.Config{Policy: policy, Hash: hashing(nil)}, lb.Env{Random: rand.Uint64})
		first, _ := b.Pick(set, &lb.Context{Hash: 77, HasHash: true})
		var second *host.Host
		for range 3 {
			h, _ := b.Pick(set, &lb.Context{Hash: 77, HasHash: true, Tried: []*host.Host{first}, MaxAttempts: 20})
			if h == first || second != nil && h != second {
				t.Errorf("%d: %s after %s", policy, h.Addr(), first.Addr())
			}
			second = h
		}
	}
}

// TestHash_Bounded: what is more than a host's share of the load goes elsewhere.
func TestHash_Bounded(t *testing.T) {
	t.Parallel()
	conf := &lb.Config{Policy: lb.Maglev, Hash: hashing(func(h *lb.Hashing) { h.BalanceFactor = 150 })}
	hosts := hashHosts([]uint32{1, 1, 1, 1}, false)
	set := host.NewSet([]host.Spec{{Hosts: hosts}}, host.Policy{}, 1)
	active := int64(0)
	b := lb.New(conf, lb.Env{Random: rand.Uint64, Active: func() int64 { return active }})
	seen := map[*host.Host]int{}
	for range 40 {
		h, _ := b.Pick(set, &lb.Context{Hash: 12345, HasHash: true})
		h.Counters().RqActive.Inc()
		active++
		seen[h]++
	}
	for h, n := range seen {
		if n > 17 { // ceil(41 x 1.5 / 4), and one more
			t.Errorf("%s has %d of 40", h.Addr(), n)
		}
	}
	if len(seen) < 3 {
		t.Errorf("only %d hosts", len(seen))
	}
}

func TestHash_Allocs(t *testing.T) {
	set := host.NewSet([]host.Spec{{Hosts: hashHosts([]uint32{1, 1, 1}, false)}}, host.Policy{}, 1)
	for _, policy := range []lb.Policy{lb.RingHash, lb.Maglev} {
		b := lb.New(&lb.Config{Policy: policy, Hash: hashing(nil)}, lb.Env{Random: rand.Uint64})
		ctx := &lb.Context{HasHash: true}
		if n := testing.AllocsPerRun(100, func() { b.Pick(set, ctx) }); n != 0 {
			t.Errorf("%d: %v allocations", policy, n)
		}
	}
}
