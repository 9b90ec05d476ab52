package route

import (
	"slices"
	"strings"

	"sidecar/api/header"
	"sidecar/internal/config"
	"sidecar/internal/match"
)

// domains finds the virtual host of a request's host: exact, then the longest suffix wildcard, then
// the longest prefix wildcard, then "*".
type domains struct {
	exact      map[string]*host
	suffixes   wildcards
	prefixes   wildcards
	fallback   *host
	ignorePort bool
}

// wildcards are looked up once for each length that occurs, the longest first.
type wildcards struct {
	lengths []int
	hosts   map[string]*host
}

// hostBuffer is on the stack; hosts longer than it are folded on the heap.
const hostBuffer = 256

func (w *wildcards) add(text string, vh *host) bool {
	if _, dup := w.hosts[text]; dup {
		return false
	}
	if w.hosts == nil {
		w.hosts = map[string]*host{}
	}
	w.hosts[text] = vh
	if !slices.Contains(w.lengths, len(text)) {
		w.lengths = append(w.lengths, len(text))
		slices.SortFunc(w.lengths, func(a, b int) int { return b - a })
	}
	return true
}

// add registers the domains of a virtual host. Errors are in Envoy's words.
func (d *domains) add(p *config.Path, list []string, vh *host, table string, errs *config.Errors) {
	for i, domain := range list {
		at := p.Field("domains").Index(i)
		domain = match.ToLower(domain)
		ok := true
		switch {
		case domain == "*":
			if d.fallback != nil {
				errs.Addf(at, "Only a single wildcard domain is permitted in route %s", table)
				continue
			}
			d.fallback = vh
		case strings.HasPrefix(domain, "*"):
			ok = d.suffixes.add(domain[1:], vh)
		case strings.HasSuffix(domain, "*"):
			ok = d.prefixes.add(domain[:len(domain)-1], vh)
		default:
			if ok = d.exact[domain] == nil; ok {
				d.exact[domain] = vh
			}
		}
		if !ok {
			errs.Addf(at, "Only unique values for domains are permitted. Duplicate entry of domain %s in route %s",
				domain, table)
		}
	}
}

// find returns nil if no virtual host serves the host.
func (d *domains) find(h *header.Map) *host {
	if len(d.exact) == 0 && len(d.suffixes.lengths) == 0 && len(d.prefixes.lengths) == 0 {
		return d.fallback
	}
	host, ok := h.GetID(header.Authority)
	if !ok {
		return nil
	}
	if d.ignorePort {
		host = withoutPort(host)
	}
	for i := range len(host) {
		if match.Lower(host[i]) != host[i] {
			return d.findFolded(host)
		}
	}
	return lookup(d, host)
}

func (d *domains) findFolded(host string) *host {
	if len(host) > hostBuffer {
		return lookup(d, match.ToLower(host))
	}
	var b [hostBuffer]byte
	for i := range len(host) {
		b[i] = match.Lower(host[i])
	}
	return lookup(d, b[:len(host)])
}

// lookup takes bytes, too: the conversions inside the index expressions copy nothing.
func lookup[T string | []byte](d *domains, host T) *host {
	if vh := d.exact[string(host)]; vh != nil {
		return vh
	}
	// A wildcard stands for at least one character: *.foo.com doesn't match .foo.com.
	for _, n := range d.suffixes.lengths {
		if n < len(host) {
			if vh := d.suffixes.hosts[string(host[len(host)-n:])]; vh != nil {
				return vh
			}
		}
	}
	for _, n := range d.prefixes.lengths {
		if n < len(host) {
			if vh := d.prefixes.hosts[string(host[:n])]; vh != nil {
				return vh
			}
		}
	}
	return d.fallback
}

// withoutPort cuts the port off; the colons of an IPv6 address stand in brackets.
func withoutPort(host string) string {
	i := strings.LastIndexByte(host, ':')
	if i < 0 || strings.LastIndexByte(host, ']') > i {
		return host
	}
	return host[:i]
}
