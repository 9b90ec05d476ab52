package cluster_test

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sidecar/cluster"
	"sidecar/cluster/discover"
)

func dnsCluster(kind string) string {
	return "name: d\ntype: " + kind + "\ndns_refresh_rate: 10s\nrespect_dns_ttl: true\nload_assignment:\n" +
		"  cluster_name: d\n  endpoints:\n  - lb_endpoints:\n" +
		"    - endpoint: {address: {socket_address: {address: one, port_value: 80}}}\n"
}

func answer(ttl time.Duration, addrs ...string) discover.Answer {
	a := discover.Answer{TTL: ttl}
	for _, s := range addrs {
		a.Addrs = append(a.Addrs, netip.MustParseAddr(s))
	}
	return a
}

func same(t *testing.T, c *cluster.Cluster, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, addrs(c)); diff != "" {
		t.Fatal(diff)
	}
}

// TestStrictDNS follows a name through its answers, on the clock of a bubble.
func TestStrictDNS(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.dns.set("one", answer(3*time.Second, "10.0.0.1", "10.0.0.2", "10.0.0.1"), nil)
		c := r.add(dnsCluster("STRICT_DNS") +
			"    - endpoint: {hostname: fixed, address: {socket_address: {address: 10.9.9.9, port_value: 81}}}\n")
		synctest.Wait()
		same(t, c, "10.0.0.1:80", "10.0.0.2:80", "10.9.9.9:81")
		if h := c.Hosts().Hosts; h[0].Hostname() != "one" || h[2].Hostname() != "fixed" {
			t.Fatalf("host names %q, %q", h[0].Hostname(), h[2].Hostname())
		}
		kept := c.Hosts().Hosts[1]

		// The servers rotate their answers: nothing changes.
		r.dns.set("one", answer(5*time.Second, "10.0.0.2", "10.0.0.1"), nil)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		same(t, c, "10.0.0.1:80", "10.0.0.2:80", "10.9.9.9:81")
		if r.stat("cluster.d.update_no_rebuild") != 1 {
			t.Fatal("update_no_rebuild was not counted")
		}

		r.dns.set("one", answer(4*time.Second, "10.0.0.2", "10.0.0.3"), nil)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		same(t, c, "10.0.0.2:80", "10.0.0.3:80", "10.9.9.9:81")
		if c.Hosts().Hosts[0] != kept {
			t.Fatal("a host that stayed was replaced")
		}

		// A failure keeps the hosts, and asks again after the refresh rate.
		r.dns.set("one", discover.Answer{}, errors.New("server failure"))
		time.Sleep(4 * time.Second)
		synctest.Wait()
		same(t, c, "10.0.0.2:80", "10.0.0.3:80", "10.9.9.9:81")
		if r.stat("cluster.d.update_failure") != 1 || r.stat("cluster.d.update_attempt") != 4 {
			t.Fatal("the failure was not counted")
		}

		// No such name takes them away.
		r.dns.set("one", discover.Answer{}, nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		same(t, c, "10.9.9.9:81")
	})
}

// TestLogicalDNS has one host, whatever it is called by and wherever it moves.
func TestLogicalDNS(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.dns.set("one", answer(0, "10.0.0.1", "10.0.0.2"), nil)
		c := r.add(dnsCluster("LOGICAL_DNS"))
		synctest.Wait()
		same(t, c, "10.0.0.1:80")
		h := c.Hosts().Hosts[0]
		if len(h.Addresses().More) != 1 {
			t.Fatal("the other address is not tried")
		}
		r.dns.set("one", answer(0, "10.0.0.3"), nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		same(t, c, "10.0.0.3:80")
		if c.Hosts().Hosts[0] != h || len(h.Addresses().More) != 0 {
			t.Fatal("the host did not move")
		}
		if r.stat("cluster.d.membership_change") != 1 {
			t.Fatal("a move is no change of members")
		}
		r.dns.set("one", discover.Answer{}, nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		same(t, c, "10.0.0.3:80")
	})
}

func TestDNSEndsWithTheCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.dns.set("one", answer(0, "10.0.0.1"), nil)
		r.dynamic(dnsCluster("STRICT_DNS"))
		synctest.Wait()
		if r.Get("d") == nil {
			t.Fatal("not live after the first answer")
		}
		r.Remove("d")
		before := r.dns.asked
		time.Sleep(time.Hour)
		if r.dns.asked != before {
			t.Fatal("asked for a cluster that is gone")
		}
	})
}

func TestDNSClusterType(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.dns.set("one", answer(0, "10.0.0.1", "10.0.0.2"), nil)
		c := r.add(`
name: d
cluster_type:
  name: envoy.clusters.dns
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster
    all_addresses_in_single_endpoint: true
    dns_lookup_family: V4_ONLY
    typed_dns_resolver_config: {name: x, typed_config: {"@type": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig,
      resolvers: [{socket_address: {address: 127.0.0.1, port_value: 53}}], query_tries: 2}}
load_assignment: {cluster_name: d, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: one, port_value: 80}}}}]}]}
`)
		synctest.Wait()
		same(t, c, "10.0.0.1:80")
		if c.Config().Kind != cluster.LogicalDNS {
			t.Fatal("not a logical host")
		}
	})
}
