package discover

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

const (
	// Envoy's c-ares: 5 seconds for the first try, 4 tries.
	defaultTimeout = 5 * time.Second
	defaultTries   = 4
	maxCNAMEs      = 16
)

// ask sends one question to the servers, one after the other, as often as configured.
func (r *resolver) ask(ctx context.Context, sys *system, servers []netip.AddrPort, name string, v4 bool) (Answer, error) {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeAAAA)
	if v4 {
		m.SetQuestion(name, dns.TypeA)
	}
	if r.opt.MaxPayload > 0 {
		m.SetEdns0(r.opt.MaxPayload, false)
	}
	timeout, tries := r.opt.Timeout, r.opt.Tries
	if timeout == 0 {
		timeout = sys.timeout
	}
	if tries == 0 {
		tries = sys.tries
	}
	var last error
	for range tries {
		for _, server := range servers {
			reply, err := r.exchange(ctx, m, server, timeout)
			if err == nil {
				var answer Answer
				if answer, err = read(reply, name, v4); err == nil {
					return answer, nil
				}
			}
			last = fmt.Errorf("%s from %s: %w", name, server, err)
			if ctx.Err() != nil {
				return Answer{}, last
			}
		}
	}
	return Answer{}, last
}

// exchange asks by UDP, and again by TCP if the answer was cut.
func (r *resolver) exchange(ctx context.Context, m *dns.Msg, server netip.AddrPort, timeout time.Duration) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	network := "udp"
	if r.opt.TCP {
		network = "tcp"
	}
	for {
		c := dns.Client{Net: network, Timeout: timeout}
		// The library checks the id; a new one for each try keeps late answers apart.
		m.Id = dns.Id()
		reply, _, err := c.ExchangeContext(ctx, m, server.String())
		if err != nil {
			return nil, err
		}
		if !reply.Truncated || network == "tcp" {
			return reply, nil
		}
		network = "tcp"
	}
}

// read takes the addresses out of a reply, along its CNAMEs.
func read(reply *dns.Msg, name string, v4 bool) (Answer, error) {
	switch reply.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
	default:
		return Answer{}, fmt.Errorf("answered %s", dns.RcodeToString[reply.Rcode])
	}
	var out Answer
	ttl := uint32(0)
	least := func(h *dns.RR_Header) {
		if len(out.Addrs) == 0 && ttl == 0 || h.Ttl < ttl {
			ttl = h.Ttl
		}
	}
	owner := name
	for range maxCNAMEs {
		next := ""
		for _, rr := range reply.Answer {
			h := rr.Header()
			if !equalNames(h.Name, owner) {
				continue
			}
			switch x := rr.(type) {
			case *dns.CNAME:
				next = x.Target
				least(h)
			case *dns.A:
				if ip, ok := netip.AddrFromSlice(x.A); ok && v4 {
					least(h)
					out.Addrs = append(out.Addrs, ip.Unmap())
				}
			case *dns.AAAA:
				if ip, ok := netip.AddrFromSlice(x.AAAA); ok && !v4 {
					least(h)
					out.Addrs = append(out.Addrs, ip)
				}
			}
		}
		if next == "" || len(out.Addrs) > 0 {
			break
		}
		owner = next
	}
	if len(out.Addrs) > 0 {
		out.TTL = time.Duration(ttl) * time.Second
	}
	return out, nil
}

func equalNames(a, b string) bool { return dns.CanonicalName(a) == dns.CanonicalName(b) }

// isRoutable tells whether the machine has an address of a family beside loopback and link-local
// ones.
func isRoutable(v4 bool) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		if ok && ip.Unmap().Is4() == v4 && ip.IsGlobalUnicast() {
			return true
		}
	}
	return false
}
