package listener

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sidecar/api/stream"
	"sidecar/internal/task"
)

func TestServe(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{})
	r.apply("l", loopback, `"stat_prefix":"s"`, `"traffic_direction":"INBOUND"`, `"access_log":[{}]`, chains("a"))
	c := r.dial("l")
	if got := hello(t, c); got != "a" || !alive(c) {
		t.Fatalf("chain %q", got)
	}
	info := r.lastInfo()
	if info.Listener != "l" || info.Chain != "a" || info.Direction != 1 || info.TransportProtocol != "raw_buffer" ||
		info.Remote.String() != c.LocalAddr().String() || info.Local.String() != c.RemoteAddr().String() {
		t.Errorf("connection %+v", info)
	}
	if r.stat("listener.s.downstream_cx_active") != 1 || r.Connections() != 1 {
		t.Errorf("active %d, %d connections", r.stat("listener.s.downstream_cx_active"), r.Connections())
	}
	_ = c.Close()
	l := r.line() // of a connection that was served
	if l.Flags != 0 || l.LogType != stream.LogNotSet || l.BytesReceived != 1 || l.BytesSent != 3 || l.Conn.Chain != "a" {
		t.Errorf("record %+v", l)
	}
	r.waitStat("listener.s.downstream_cx_destroy", 1)
	if r.stat("listener.s.downstream_cx_active") != 0 || r.stat("listener.s.downstream_cx_total") != 1 {
		t.Error("connection is not counted down")
	}
}

func TestServe_NoChain(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{})
	r.apply("l", loopback, `"stat_prefix":"s"`, `"access_log":[{}]`, chains(`a {"destination_port":1}`))
	if got := hello(t, r.dial("l")); !strings.HasPrefix(got, "error") {
		t.Errorf("served by %q", got)
	}
	if l := r.line(); l.Flags != stream.NoRouteFound || l.Details != "filter_chain_not_found" {
		t.Errorf("flags %v, details %q", l.Flags, l.Details)
	}
	if r.stat("listener.s.no_filter_chain_match") != 1 || r.stat("listener.s.downstream_cx_total") != 0 {
		t.Error("stats are not Envoy's")
	}
	r.apply("l", loopback, `"stat_prefix":"s"`, chains(`a {"destination_port":1}`),
		strings.Replace(strings.TrimSuffix(chains("rest"), "]"), `"filter_chains":[`, `"default_filter_chain":`, 1))
	if got := hello(t, r.dial("l")); got != "rest" {
		t.Errorf("served by %q, want the default chain", got)
	}
}

func TestServe_PanicEndsTheConnection(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{})
	r.apply("l", loopback, `"stat_prefix":"s"`, chains("panic"))
	before := task.Panics()
	if got := hello(t, r.dial("l")); !strings.HasPrefix(got, "error") {
		t.Errorf("served by %q", got)
	}
	r.waitStat("listener.s.downstream_cx_destroy", 1)
	r.wait("panic", func() bool { return task.Panics() > before })
	r.wait("connection to end", func() bool { return r.Connections() == 0 })
}

// TestUpdate_InPlace: a version that differs in chains only keeps the connections of those that stay.
func TestUpdate_InPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{Time: time.Hour, Immediate: true})
	r.apply("l", loopback, chains("a", `b {"source_ports":[1]}`))
	addr, kept := r.addr("l"), r.dial("l")
	hello(t, kept)
	r.apply("l", loopback, chains("a", `c {"source_ports":[2]}`))
	if r.addr("l") != addr {
		t.Errorf("rebound from %s to %s", addr, r.addr("l"))
	}
	if !alive(kept) || !alive(kept) { //nolint:staticcheck // two messages
		t.Error("a connection of a chain that stays was ended")
	}
	r.wait("retired chain", func() bool { return slices.Equal(r.retired(), []string{"b"}) })
	if r.stat("listener_manager.listener_in_place_updated") != 1 || r.stat("listener_manager.listener_modified") != 1 {
		t.Error("not counted as in-place update")
	}
	r.apply("l", loopback, chains("d"))
	if got := hello(t, r.dial("l")); got != "d" {
		t.Errorf("served by %q", got)
	}
	if !alive(kept) { // the byte is echoed, and then the drain ends it
		t.Error("a draining connection was cut off")
	}
	if alive(kept) {
		t.Error("a connection of a chain that went goes on after its drain began")
	}
	r.wait("retired chain", func() bool { return slices.Equal(r.retired(), []string{"a", "b", "c"}) })
	r.waitStat("listener_manager.total_filter_chains_draining", 0)
}

func TestUpdate_Unchanged(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{Immediate: true})
	r.apply("l", loopback, chains("a"))
	c := r.dial("l")
	hello(t, c)
	r.apply("l", loopback, chains("a"))
	if !alive(c) || !alive(c) { //nolint:staticcheck // two messages
		t.Error("a listener that was sent again drains")
	}
	if len(r.made) != 1 || r.stat("listener_manager.listener_modified") != 0 {
		t.Errorf("compiled %d times", len(r.made))
	}
}

// TestUpdate_Frame: everything drains, and the socket stays open.
func TestUpdate_Frame(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{Time: 200 * time.Millisecond})
	r.apply("l", loopback, `"stat_prefix":"s"`, chains("a"))
	addr, old := r.addr("l"), r.dial("l")
	hello(t, old)
	r.apply("l", loopback, `"stat_prefix":"s"`, `"per_connection_buffer_limit_bytes":1000`, chains("a"))
	if r.addr("l") != addr || r.stat("listener_manager.listener_in_place_updated") != 0 {
		t.Error("rebound, or counted as in place")
	}
	if r.stat("listener_manager.total_listeners_draining") != 1 {
		t.Error("the version before does not drain")
	}
	if got := hello(t, r.dial("l")); got != "a" {
		t.Errorf("served by %q", got)
	}
	start := time.Now()
	if _, err := old.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the old connection: %v after %v", err, time.Since(start))
	}
	r.waitStat("listener_manager.total_listeners_draining", 0)
	if r.stat("listener.s.downstream_cx_total") != 2 {
		t.Errorf("the stats of the name are not shared by its versions: %d", r.stat("listener.s.downstream_cx_total"))
	}
}

// TestUpdate_SocketOptions: other options need another socket.
func TestUpdate_SocketOptions(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{Immediate: true})
	r.apply("l", loopback, chains("a"))
	before := r.addr("l")
	r.apply("l", loopback, `"freebind":true`, chains("a"))
	if r.addr("l") == before {
		t.Error("the socket was kept though its options changed")
	}
	if got := hello(t, r.dial("l")); got != "a" {
		t.Errorf("served by %q", got)
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{Time: 200 * time.Millisecond})
	r.apply("l", loopback, `"stat_prefix":"s"`, chains("a"))
	addr, c := r.addr("l"), r.dial("l")
	hello(t, c)
	r.Remove("l")
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("a removed listener accepts")
	}
	if r.stat("listener.s.downstream_cx_active") != 1 {
		t.Error("the stats are gone while a connection drains")
	}
	_ = c.Close()
	r.waitStat("listener_manager.total_listeners_draining", 0)
	r.wait("end of stats", func() bool { return r.stat("listener.s.downstream_cx_total") == -1 })
	if got := r.retired(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("retired %v", got)
	}
	r.Remove("l")
	r.Remove("unknown")
}

func TestWarming(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{Immediate: true})
	r.apply("l", loopback, chains("a"))
	gate := make(chan struct{})
	r.gate = gate
	ready := make(chan struct{})
	started := make(chan error, 1)
	r.Apply(parse(t, "l", loopback, chains("b")), "2", false, Outcome{
		Started: func(err error) { started <- err }, Ready: func() { close(ready) },
	})
	if r.stat("listener_manager.total_listeners_warming") != 1 {
		t.Error("does not warm")
	}
	if got := hello(t, r.dial("l")); got != "a" {
		t.Errorf("served by %q while the next version warms", got)
	}
	close(gate)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	<-ready
	if got := hello(t, r.dial("l")); got != "b" {
		t.Errorf("served by %q", got)
	}
	r.fail = errors.New("does not start")
	err, done := r.try("l", loopback, chains("c"))
	<-done
	if !errors.Is(err, r.fail) || hello(t, r.dial("l")) != "b" {
		t.Errorf("error %v; the version before must stay", err)
	}
	// The version before the last drains on a goroutine of its own, so either may be the first.
	r.wait("retired versions", func() bool { return slices.Equal(slices.Sorted(slices.Values(r.retired())), []string{"a", "c"}) })
	if s := r.Snapshot(); len(s) != 1 || !strings.Contains(s[0].Err, "does not start") {
		t.Errorf("status %+v", s)
	}
}

// TestWarming_Superseded: a version that a newer one overtakes is given up.
func TestWarming_Superseded(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{Immediate: true})
	r.gate = make(chan struct{}) // never opened
	started := make(chan error, 1)
	r.Apply(parse(t, "l", loopback, chains("a")), "1", false, Outcome{
		Started: func(err error) { started <- err }, Ready: func() {},
	})
	r.gate = nil
	r.apply("l", loopback, chains("b"))
	if err := <-started; !errors.Is(err, context.Canceled) {
		t.Errorf("the version that was overtaken: %v", err)
	}
	if got := hello(t, r.dial("l")); got != "b" {
		t.Errorf("served by %q", got)
	}
	r.wait("retired version", func() bool { return slices.Equal(r.retired(), []string{"a"}) })
}

func TestDuplicateAddress(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{Immediate: true})
	r.apply("l", loopback, chains("a"))
	at := netip.MustParseAddrPort(r.addr("l"))
	same := strings.Replace(loopback, `:0`, `:`+strings.TrimPrefix(r.addr("l"), "127.0.0.1:"), 1)
	r.apply("m", strings.Replace(same, at.Addr().String(), "127.0.0.2", 1), chains("a"))
	if err, _ := r.try("n", strings.Replace(same, at.Addr().String(), "127.0.0.2", 1), chains("a")); err == nil ||
		!strings.Contains(err.Error(), "duplicate address") {
		t.Errorf("the address of another listener: %v", err)
	}
	if err, _ := r.try("o", same, `"enable_reuse_port":false`, chains("a")); err == nil || !strings.Contains(err.Error(), "cannot bind '"+at.String()+"'") {
		t.Errorf("an address in use: %v", err)
	}
	r.Remove("m")
	r.apply("n", strings.Replace(same, at.Addr().String(), "127.0.0.2", 1), chains("b"))
	if got := hello(t, r.dial("n")); got != "b" {
		t.Errorf("served by %q", got)
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{Immediate: true})
	path := filepath.Join(t.TempDir(), "s")
	abstract := "@sidecar-test-" + filepath.Base(filepath.Dir(path))
	r.apply("l", loopback, chains("a"), `"additional_addresses":[
		{"address":{"pipe":{"path":"`+path+`","mode":384}}}, {"address":{"pipe":{"path":"`+abstract+`"}}}]`)
	for _, a := range []string{path, abstract} {
		if got := hello(t, dial(t, "unix", a)); got != "a" {
			t.Errorf("%s: served by %q", a, got)
		}
	}
	if got := hello(t, r.dial("l")); got != "a" {
		t.Errorf("served by %q", got)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	r.apply("l", loopback, chains("a"), `"additional_addresses":[{"address":{"pipe":{"path":"`+path+`","mode":448}}}]`)
	if fi, err = os.Stat(path); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("mode %v after the update, %v", fi.Mode(), err)
	}
	if got := hello(t, dial(t, "unix", path)); got != "a" {
		t.Errorf("served by %q", got)
	}
	if _, err := net.Dial("unix", abstract); err == nil {
		t.Error("an address that was taken away accepts")
	}
}

func TestUnixSocket_StaleFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, DrainPolicy{})
	pipe := `"address":{"pipe":{"path":"` + path + `"}}`
	if err, _ := r.try("l", pipe, chains("a")); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a socket that somebody listens on: %v", err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = ln.Close()
	r.apply("l", pipe, chains("a"))
	if got := hello(t, dial(t, "unix", path)); got != "a" {
		t.Errorf("served by %q", got)
	}
}

// TestSocketOptions: what is set on the listening socket holds for what it accepts.
func TestSocketOptions(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{})
	r.apply("l", loopback, chains("a"), `"tcp_backlog_size":7`, `"tcp_keepalive":{"keepalive_probes":3,"keepalive_time":11,"keepalive_interval":5}`,
		`"tcp_fast_open_queue_length":5`, `"socket_options":[
		{"level":`+num(unix.SOL_SOCKET)+`,"name":`+num(unix.SO_RCVBUF)+`,"int_value":20000},
		{"level":`+num(unix.IPPROTO_IP)+`,"name":`+num(unix.IP_TOS)+`,"int_value":16,"state":"STATE_LISTENING"},
		{"level":6,"name":99999,"int_value":1,"type":{"datagram":{}}}]`)
	r.mu.Lock()
	var s *socket
	for _, s = range r.sockets {
	}
	r.mu.Unlock()
	raw, err := s.ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []struct{ level, name, want int }{
		{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 11},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 5},
		{unix.SOL_SOCKET, unix.SO_RCVBUF, 40000}, // the kernel doubles it
		{unix.IPPROTO_IP, unix.IP_TOS, 16},
	} {
		_ = raw.Control(func(fd uintptr) {
			if got, err := unix.GetsockoptInt(int(fd), o.level, o.name); err != nil || got != o.want {
				t.Errorf("option %d of level %d = %d, %v; want %d", o.name, o.level, got, err, o.want)
			}
		})
	}
	if err, _ := r.try("m", loopback, chains("a"), `"socket_options":[{"level":6,"name":99999,"int_value":1}]`); err == nil ||
		!strings.Contains(err.Error(), "socket option 99999") {
		t.Errorf("an option that the system refuses: %v", err)
	}
}

func num(n int) string { return strconv.Itoa(n) }

func TestStopAccepting(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{Time: time.Hour})
	r.apply("in", loopback, `"traffic_direction":"INBOUND"`, chains("a"))
	r.apply("out", loopback, chains("b"))
	in := r.dial("in")
	hello(t, in)
	addr := r.addr("in")
	r.StopAccepting(func(c *Config) bool { return c.Direction == 1 })
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("accepts")
	}
	if !alive(in) || hello(t, r.dial("out")) != "b" {
		t.Error("others are affected")
	}
	r.apply("in", loopback, `"traffic_direction":"INBOUND"`, chains("c"))
	for _, s := range r.Snapshot() {
		if s.Name == "in" && len(s.Bound) > 0 {
			t.Error("an update of a listener that was stopped opens it again")
		}
	}
	if r.stat("listener_manager.listener_stopped") != 1 {
		t.Error("not counted")
	}
}

// TestHandOff: use_original_dst gives a connection to the listener for its restored address.
func TestHandOff(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{Immediate: true})
	at := func(a string, port string) string {
		return `"address":{"socket_address":{"address":"` + a + `","port_value":` + port + `}}`
	}
	r.apply("virtual", loopback, `"stat_prefix":"v"`, `"use_original_dst":true`, chains("virtual"))
	r.apply("exact", at("10.1.1.1", "80"), `"stat_prefix":"e"`, `"bind_to_port":false`, chains("exact"))
	r.apply("any", at("0.0.0.0", "80"), `"bind_to_port":false`, chains("any"))
	r.apply("any6", at("::", "80"), `"deprecated_v1":{"bind_to_port":false}`, chains("any6"))
	for _, c := range []struct{ restored, want string }{
		{"10.1.1.1:80", "exact"}, {"10.9.9.9:80", "any"}, {"[fd00::1]:80", "any6"}, {"10.1.1.1:81", "virtual"}, {"", "virtual"},
	} {
		r.original.Store(nil)
		if c.restored != "" {
			a := stream.IPAddr(netip.MustParseAddrPort(c.restored))
			r.original.Store(&a)
		}
		if got := hello(t, r.dial("virtual")); got != c.want {
			t.Errorf("restored to %q: served by %q, want %q", c.restored, got, c.want)
		}
	}
	if r.stat("listener.e.downstream_cx_total") != 1 || r.stat("listener.v.downstream_cx_total") != 2 {
		t.Errorf("counted by %d, %d", r.stat("listener.e.downstream_cx_total"), r.stat("listener.v.downstream_cx_total"))
	}
	for _, s := range r.Snapshot() {
		if s.Name == "exact" && (len(s.Bound) != 0 || s.Local()[0].String() != "10.1.1.1:80") {
			t.Errorf("status %+v", s)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	r := newRig(t, DrainPolicy{})
	r.apply("l", loopback, `"stat_prefix":"s"`, chains("a"))
	r.apply("free", loopback, `"ignore_global_conn_limit":true`, `"bypass_overload_manager":true`, chains("b"))
	refused := func() bool { return strings.HasPrefix(hello(t, r.dial("l")), "error") }
	open := r.dial("l")
	hello(t, open)
	r.limits.most.Store(1)
	if !refused() || r.stat("listener.s.downstream_global_cx_overflow") != 1 {
		t.Error("the global limit is not held")
	}
	free := r.dial("free")
	if hello(t, free) != "b" {
		t.Error("ignore_global_conn_limit is not obeyed")
	}
	r.limits.most.Store(0)
	r.limits.reject.Store(true)
	if !refused() || r.stat("listener.s.downstream_cx_overload_reject") != 1 {
		t.Error("overload does not refuse connections")
	}
	if hello(t, r.dial("free")) != "b" || !alive(open) {
		t.Error("bypass_overload_manager is not obeyed, or an open connection was ended")
	}
	r.limits.reject.Store(false)
	r.runtime.Store(1)
	if !refused() || r.stat("listener.s.downstream_cx_overflow") != 1 {
		t.Error("the listener's limit in the runtime is not held")
	}
	r.runtime.Store(0)
	if refused() {
		t.Error("refused without a limit")
	}
}
