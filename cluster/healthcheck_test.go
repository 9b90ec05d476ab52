package cluster_test

import (
	"fmt"
	"net"
	"testing"

	"sidecar/cluster/host"
)

// acceptor accepts connections until the test ends.
func acceptor(t *testing.T) uint16 {
	t.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	addr, _ := ln.Addr().(*net.TCPAddr)
	return uint16(addr.Port)
}

func checkedEDS(more string) string {
	return `
name: a
type: EDS
eds_cluster_config: {eds_config: {ads: {}}}
health_checks: [{timeout: 5s, interval: 0.01s, no_traffic_interval: 0.01s, unhealthy_threshold: 1, healthy_threshold: 1,
  tcp_health_check: {}}]
` + more
}

func portsOf(ports ...uint16) string {
	s := "cluster_name: a\nendpoints: [{lb_endpoints: ["
	for _, p := range ports {
		s += fmt.Sprintf("{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}},", p)
	}
	return s + "]}]"
}

// TestHealthCheck_Warming: a cluster is ready when its hosts have been checked, whatever came of it.
func TestHealthCheck_Warming(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good, bad := acceptor(t), uint16(1)
	r.dynamic(checkedEDS(""))
	ready := make(chan struct{})
	r.WhenReady(func() { close(ready) })
	if err := r.subs.last().answer("a", assignment(t, portsOf(good, bad))); err != nil {
		t.Fatal(err)
	}
	<-ready
	set := r.Get("a").Hosts()
	if len(set.Hosts) != 2 || len(set.Priorities[0].Healthy) != 1 || set.Hosts[1].Condition() != host.Down {
		t.Errorf("%d of %d healthy", len(set.Priorities[0].Healthy), len(set.Hosts))
	}
}

// TestHealthCheck_Removal: a host that was removed stays while its checks are good.
func TestHealthCheck_Removal(t *testing.T) {
	t.Parallel()
	for more, kept := range map[string]int{"": 2, "ignore_health_on_host_removal: true": 1} {
		t.Run(more, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			var lc net.ListenConfig
			ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			addr, _ := ln.Addr().(*net.TCPAddr)
			other := acceptor(t)
			r.dynamic(checkedEDS(more))
			sub := r.subs.last()
			if err := sub.answer("a", assignment(t, portsOf(other, uint16(addr.Port)))); err != nil {
				t.Fatal(err)
			}
			r.wait("healthy hosts", func() bool { return r.stat("cluster.a.membership_healthy") == 2 })
			if err := sub.answer("a", assignment(t, portsOf(other))); err != nil {
				t.Fatal(err)
			}
			hosts := r.Get("a").Hosts().Hosts
			if len(hosts) != kept {
				t.Fatalf("%d hosts", len(hosts))
			}
			if kept == 2 && !hosts[1].Has(host.PendingRemoval) {
				t.Error("no flag")
			}
			_ = ln.Close()
			r.wait("the host to go", func() bool { return r.stat("cluster.a.membership_total") == 1 })
		})
	}
}

// TestHealthCheck_Endpoint: hosts say where they are to be checked, or that they are not.
func TestHealthCheck_Endpoint(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := acceptor(t)
	r.dynamic(checkedEDS("common_lb_config: {ignore_new_hosts_until_first_hc: true}"))
	err := r.subs.last().answer("a", assignment(t, fmt.Sprintf(`
cluster_name: a
endpoints:
- lb_endpoints:
  - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}, health_check_config: {port_value: %d}}
  - endpoint: {address: {socket_address: {address: 127.0.0.2, port_value: 1}}, health_check_config: {disable_active_health_check: true}}
  - endpoint: {address: {socket_address: {address: 127.0.0.3, port_value: 1}}, health_check_config: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}
  - endpoint: {address: {socket_address: {address: 127.0.0.4, port_value: 1}}}
`, good, good)))
	if err != nil {
		t.Fatal(err)
	}
	r.wait("the checks", func() bool {
		return r.stat("cluster.a.membership_healthy") == 3 && r.stat("cluster.a.membership_excluded") == 0
	})
	if got := r.stat("cluster.a.health_check.healthy"); got != 2 {
		t.Errorf("healthy: %d", got)
	}
	if r.Get("a").Hosts().Hosts[3].Condition() != host.Down {
		t.Error("a host that nothing listens at is healthy")
	}
}
