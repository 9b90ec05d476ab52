package discover

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// dnsServer answers from a zone by UDP and TCP, on one port.
type dnsServer struct {
	addr netip.AddrPort
	zone map[string][]string // "name. A" -> records

	mu    sync.Mutex
	asked []string
}

// samePort listens on one port for both protocols. A port that the system gives for one may be taken
// for the other, so several are tried.
func samePort(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	var last error
	for range 50 {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err == nil {
			return udp, tcp
		}
		last = err
		_ = udp.Close()
	}
	t.Fatal(last)
	return nil, nil
}

func newDNSServer(t *testing.T, zone map[string][]string) *dnsServer {
	t.Helper()
	s := &dnsServer{zone: zone}
	udp, tcp := samePort(t)
	s.addr = netip.MustParseAddrPort(udp.LocalAddr().String())
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait) // run last
	for _, srv := range []*dns.Server{{PacketConn: udp, Handler: s.handler("udp")}, {Listener: tcp, Handler: s.handler("tcp")}} {
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		wg.Go(func() { _ = srv.ActivateAndServe() })
		<-started
		t.Cleanup(func() { _ = srv.Shutdown() })
	}
	return s
}

func (s *dnsServer) handler(network string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		key := q.Question[0].Name + " " + dns.TypeToString[q.Question[0].Qtype]
		s.mu.Lock()
		s.asked = append(s.asked, network+" "+key)
		records, ok := s.zone[key]
		s.mu.Unlock()
		m := new(dns.Msg).SetReply(q)
		switch {
		case !ok:
			m.Rcode = dns.RcodeNameError
		case len(records) == 1 && records[0] == "SERVFAIL":
			m.Rcode = dns.RcodeServerFailure
		case len(records) == 1 && records[0] == "DROP":
			return
		case len(records) > 0 && records[0] == "CUT":
			if network == "udp" {
				m.Truncated = true
				break
			}
			records = records[1:]
			fallthrough
		default:
			for _, r := range records {
				rr, err := dns.NewRR(r)
				if err == nil {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		_ = w.WriteMsg(m)
	}
}

func ips(s string) (out []netip.Addr) {
	for f := range strings.FieldsSeq(s) {
		out = append(out, netip.MustParseAddr(f))
	}
	return out
}

func TestLookup(t *testing.T) {
	t.Parallel()
	zone := map[string][]string{
		"both. A":         {"both. 30 IN A 10.0.0.1", "both. 20 IN A 10.0.0.2"},
		"both. AAAA":      {"both. 40 IN AAAA fd00::1"},
		"four. A":         {"four. 9 IN A 10.0.0.4"},
		"four. AAAA":      {},
		"alias. A":        {"alias. 5 IN CNAME real.", "real. 60 IN A 10.0.0.5"},
		"loop. A":         {"loop. 5 IN CNAME pool.", "pool. 5 IN CNAME loop."},
		"foreign. A":      {"other. 5 IN A 10.9.9.9"},
		"big. A":          {"CUT", "big. 8 IN A 10.0.0.8"},
		"broken. A":       {"SERVFAIL"},
		"broken. AAAA":    {"SERVFAIL"},
		"half. AAAA":      {"SERVFAIL"},
		"half. A":         {"half. 3 IN A 10.0.0.3"},
		"short.corp.x. A": {"short.corp.x. 6 IN A 10.0.0.6"},
		"a.b. A":          {"a.b. 6 IN A 10.0.0.7"},
	}
	s := newDNSServer(t, zone)
	dir := t.TempDir()
	conf, hosts := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "hosts")
	write(t, conf, "search corp.x\noptions ndots:1 timeout:1 attempts:1\n")
	write(t, hosts, "# local\n127.0.0.9 Named named2\n::9 named\nnonsense x\n")
	tests := []struct {
		name, host string
		family     Family
		opt        ResolverOptions
		want       Answer
		fails      bool
		tcp        bool
	}{
		{name: "IPv4 with the least TTL", host: "both", family: V4Only, want: Answer{ips("10.0.0.1 10.0.0.2"), 20 * time.Second}},
		{name: "auto prefers IPv6", host: "both", want: Answer{ips("fd00::1"), 40 * time.Second}},
		{name: "auto falls back to IPv4", host: "four", want: Answer{ips("10.0.0.4"), 9 * time.Second}},
		{name: "auto falls back after a failure", host: "half", want: Answer{ips("10.0.0.3"), 3 * time.Second}},
		{name: "IPv4 preferred", host: "both", family: V4Preferred, want: Answer{ips("10.0.0.1 10.0.0.2"), 20 * time.Second}},
		{name: "all", host: "both", family: All, want: Answer{ips("10.0.0.1 10.0.0.2 fd00::1"), 20 * time.Second}},
		{name: "all, of which there is one", host: "four", family: All, want: Answer{ips("10.0.0.4"), 9 * time.Second}},
		{name: "alias", host: "alias", family: V4Only, want: Answer{ips("10.0.0.5"), 5 * time.Second}},
		{name: "aliases in a circle", host: "loop", family: V4Only, want: Answer{}},
		{name: "records of another name", host: "foreign", family: V4Only, want: Answer{}},
		{name: "no such name", host: "nobody", family: V4Only, want: Answer{}},
		{name: "cut answers are asked for by TCP", host: "big", family: V4Only, want: Answer{ips("10.0.0.8"), 8 * time.Second}, tcp: true},
		{name: "TCP alone", host: "four", family: V4Only, opt: ResolverOptions{TCP: true}, want: Answer{ips("10.0.0.4"), 9 * time.Second}, tcp: true},
		{name: "failing server", host: "broken", family: V4Only, fails: true},
		{name: "both families fail", host: "broken", family: All, fails: true},
		{name: "search list", host: "short", family: V4Only, want: Answer{ips("10.0.0.6"), 6 * time.Second}},
		{name: "no search list", host: "short", family: V4Only, opt: ResolverOptions{NoSearch: true}, want: Answer{}},
		{name: "dots come first", host: "a.b", family: V4Only, want: Answer{ips("10.0.0.7"), 6 * time.Second}},
		{name: "hosts file", host: "named", family: V4Only, want: Answer{Addrs: ips("127.0.0.9")}},
		{name: "hosts file, IPv6 first", host: "NAMED", want: Answer{Addrs: ips("::9")}},
		{name: "an address", host: "10.1.1.1", want: Answer{Addrs: ips("10.1.1.1")}},
		{name: "EDNS", host: "four", family: V4Only, opt: ResolverOptions{MaxPayload: 1232}, want: Answer{ips("10.0.0.4"), 9 * time.Second}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			opt := tt.opt
			opt.Servers = []netip.AddrPort{s.addr}
			got, err := newResolver(opt, conf, hosts).Lookup(t.Context(), tt.host, tt.family)
			if (err != nil) != tt.fails {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
				cmp.Transformer("nil", func(a []netip.Addr) int { return len(a) })); diff != "" {
				t.Fatal(diff)
			}
			for i, a := range got.Addrs {
				if a != tt.want.Addrs[i] {
					t.Fatalf("got %v, want %v", got.Addrs, tt.want.Addrs)
				}
			}
			if tt.tcp && !s.wasAsked("tcp "+dns.Fqdn(tt.host)+" A") {
				t.Fatal("not asked by TCP")
			}
		})
	}
}

func (s *dnsServer) wasAsked(what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.asked, what)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLookupSecondServer(t *testing.T) {
	t.Parallel()
	silent := newDNSServer(t, map[string][]string{"x. A": {"DROP"}})
	good := newDNSServer(t, map[string][]string{"x. A": {"x. 5 IN A 10.0.0.1"}})
	r := newResolver(ResolverOptions{
		Servers: []netip.AddrPort{silent.addr, good.addr}, Timeout: 50 * time.Millisecond,
	}, "/nonexistent", "/nonexistent")
	a, err := r.Lookup(t.Context(), "x", V4Only)
	if err != nil || len(a.Addrs) != 1 {
		t.Fatalf("%v, %v", a, err)
	}
}

func TestLookupEndsWithContext(t *testing.T) {
	t.Parallel()
	silent := newDNSServer(t, map[string][]string{"x. A": {"DROP"}})
	r := newResolver(ResolverOptions{Servers: []netip.AddrPort{silent.addr}}, "/nonexistent", "/nonexistent")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Lookup(ctx, "x", V4Only); err == nil {
		t.Fatal("no error")
	}
}

func TestLookupWithoutServers(t *testing.T) {
	t.Parallel()
	r := newResolver(ResolverOptions{}, "/nonexistent", "/nonexistent")
	if _, err := r.Lookup(t.Context(), "x", V4Only); err == nil {
		t.Fatal("no error")
	}
}

func FuzzHosts(f *testing.F) {
	for _, seed := range []string{
		"", "127.0.0.1 localhost", "::1 a b c\n", "# only a comment", "1.2.3.4", "nonsense name",
		"1.2.3.4 a#b", "1.2.3.4\ta\r\n", "::ffff:1.2.3.4 mapped", "fe80::1%eth0 zone", "1.2.3.4 A.",
		"1.2.3.4  .", "\x00\x01\x02 a", "1.2.3.4 a a a", "999.1.1.1 a", "1.2.3.4 \xff",
		strings.Repeat("1.2.3.4 a\n", 100), "1.2.3.4 " + strings.Repeat("a", 5000), "\n\n\n", " 1.2.3.4 a",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for name, addrs := range parseHosts(raw) {
			if len(addrs) == 0 || strings.ContainsAny(name, " \t\n") {
				t.Fatalf("name %q with %v", name, addrs)
			}
		}
	})
}

func FuzzRead(f *testing.F) {
	q := new(dns.Msg)
	q.SetQuestion("x.", dns.TypeA)
	for _, text := range []string{
		"x. 1 IN A 1.2.3.4", "x. 1 IN AAAA ::1", "x. 1 IN CNAME y.", "y. 1 IN A 1.2.3.4", "x. 0 IN A 1.2.3.4",
		"x. 4294967295 IN A 1.2.3.4", "x. 1 IN TXT hi", "X. 1 IN A 1.2.3.4", "x. 1 IN CNAME x.", "x. 1 IN MX 1 y.",
	} {
		m := new(dns.Msg).SetReply(q)
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
		raw, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		f.Add(raw[:len(raw)-3])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m := new(dns.Msg)
		if m.Unpack(raw) != nil {
			return
		}
		for _, v4 := range []bool{true, false} {
			a, err := read(m, "x.", v4)
			if err != nil {
				continue
			}
			for _, ip := range a.Addrs {
				if ip.Is4() != v4 && v4 {
					t.Fatalf("%v is no IPv4 address", ip)
				}
			}
		}
	})
}
