package discover

import (
	"bufio"
	"bytes"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// system is what resolv.conf and the hosts file said when they were read. It never changes.
type system struct {
	servers []netip.AddrPort
	search  []string
	ndots   int
	timeout time.Duration
	tries   int
	hosts   map[string][]netip.Addr
}

// files reads the two files, and again when they have changed.
type files struct {
	conf, hosts string

	mu      sync.Mutex // guards below; held while the files are read
	checked time.Time
	stamps  [2]stamp
	last    *system
}

type stamp struct {
	mod  time.Time
	size int64
}

const (
	checkEvery  = 5 * time.Second
	maxFileSize = 1 << 20
)

func (f *files) read() *system {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.last != nil && now.Sub(f.checked) < checkEvery {
		return f.last
	}
	f.checked = now
	stamps := [2]stamp{stampOf(f.conf), stampOf(f.hosts)}
	if f.last == nil || stamps != f.stamps {
		f.stamps = stamps
		f.last = &system{hosts: readHosts(f.hosts)}
		f.last.configure(f.conf)
	}
	return f.last
}

func stampOf(path string) stamp {
	st, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{st.ModTime(), st.Size()}
}

// configure reads resolv.conf; without one, or with a broken one, there are no servers.
func (s *system) configure(path string) {
	s.ndots, s.timeout, s.tries = 1, defaultTimeout, defaultTries
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return
	}
	for _, server := range conf.Servers {
		ip, err := netip.ParseAddr(server)
		if err == nil {
			s.servers = append(s.servers, netip.AddrPortFrom(ip, 53))
		}
	}
	s.search, s.ndots = conf.Search, conf.Ndots
	if conf.Timeout > 0 {
		s.timeout = time.Duration(conf.Timeout) * time.Second
	}
	if conf.Attempts > 0 {
		s.tries = conf.Attempts
	}
}

// candidates lists the full names to ask for, in order.
func (s *system) candidates(name string, search bool) []string {
	full := dns.Fqdn(name)
	if !search || strings.HasSuffix(name, ".") || len(s.search) == 0 {
		return []string{full}
	}
	out := make([]string, 0, len(s.search)+1)
	early := strings.Count(name, ".") >= s.ndots
	if early {
		out = append(out, full)
	}
	for _, domain := range s.search {
		out = append(out, dns.Fqdn(name+"."+strings.Trim(domain, ".")))
	}
	if !early {
		out = append(out, full)
	}
	return out
}

func (s *system) lookup(name string, v4 bool) (out []netip.Addr) {
	for _, ip := range s.hosts[strings.ToLower(strings.TrimSuffix(name, "."))] {
		if ip.Is4() == v4 {
			out = append(out, ip)
		}
	}
	return out
}

// readHosts reads a hosts file; lines that make no sense are passed over, as everywhere.
func readHosts(path string) map[string][]netip.Addr {
	raw, err := os.ReadFile(path)
	if err != nil || len(raw) > maxFileSize {
		return nil
	}
	return parseHosts(raw)
}

func parseHosts(raw []byte) map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, maxFileSize+1)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		ip, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		for _, name := range fields[1:] {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			out[name] = append(out[name], ip.Unmap())
		}
	}
	return out
}
