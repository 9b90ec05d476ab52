// Package chain finds the filter chain of a new connection.
//
// Envoy looks at one criterion after the other, in a fixed order, keeps at each the chains whose
// condition is the most specific that fits, and never goes back: a connection for a port that some
// chain names is not offered to chains without a port (FilterChainManagerImpl::findFilterChain).
package chain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"sidecar/api/stream"
	"sidecar/internal/config"
)

//nolint:gochecknoglobals // immutable tables
var (
	matchFields = config.Fields[*listenerv3.FilterChainMatch]{
		Used: "destination_port prefix_ranges direct_source_prefix_ranges source_type " +
			"source_prefix_ranges source_ports server_names transport_protocol application_protocols",
		Refused: "address_suffix suffix_len",
	}
	rangeFields = config.Fields[*corev3.CidrRange]{Used: "address_prefix prefix_len"}
)

// Match is the compiled condition of a filter chain.
type Match struct {
	port       uint16 // 0: any
	dst        []netip.Prefix
	names      []string
	transport  string
	alpn       []string
	direct     []netip.Prefix
	sourceType listenerv3.FilterChainMatch_ConnectionSourceType
	src        []netip.Prefix
	srcPorts   []uint16
}

// CompileMatch compiles the condition of a filter chain; nil matches everything.
func CompileMatch(p *config.Path, m *listenerv3.FilterChainMatch, errs *config.Errors) *Match {
	matchFields.Check(p, m, errs)
	c := &Match{sourceType: m.GetSourceType(), transport: m.GetTransportProtocol()}
	if v := m.GetDestinationPort(); v != nil {
		if v.GetValue() == 0 || v.GetValue() > 65535 {
			errs.Add(p.Field("destination_port"), "must be from 1 to 65535")
		}
		c.port = uint16(v.GetValue())
	}
	c.dst = prefixes(p.Field("prefix_ranges"), m.GetPrefixRanges(), errs)
	c.direct = prefixes(p.Field("direct_source_prefix_ranges"), m.GetDirectSourcePrefixRanges(), errs)
	c.src = prefixes(p.Field("source_prefix_ranges"), m.GetSourcePrefixRanges(), errs)
	for i, sp := range m.GetSourcePorts() {
		if sp == 0 || sp > 65535 {
			errs.Add(p.Field("source_ports").Index(i), "must be from 1 to 65535")
		}
		c.srcPorts = append(c.srcPorts, uint16(sp))
	}
	for i, n := range m.GetServerNames() {
		if strings.Contains(n, "*") && !strings.HasPrefix(n, "*.") {
			errs.Addf(p.Field("server_names").Index(i),
				"partial wildcards are not supported in \"server_names\": %q", n)
		}
		c.names = append(c.names, strings.ToLower(n))
	}
	c.alpn = slices.Clone(m.GetApplicationProtocols())
	return c
}

func prefixes(p *config.Path, list []*corev3.CidrRange, errs *config.Errors) []netip.Prefix {
	var out []netip.Prefix
	for i, r := range list {
		rangeFields.Check(p.Index(i), r, errs)
		a, err := netip.ParseAddr(r.GetAddressPrefix())
		if err != nil {
			errs.Addf(p.Index(i).Field("address_prefix"), "%w", err)
			continue
		}
		pre, err := a.Unmap().Prefix(int(r.GetPrefixLen().GetValue()))
		if err != nil {
			errs.Addf(p.Index(i).Field("prefix_len"), "%w", err)
			continue
		}
		out = append(out, pre)
	}
	return out
}

// Find returns the index of the chain for a connection, -1 if none fits.
func Find(chains []*Match, info *stream.ConnInfo) int {
	var store [64]int
	left := store[:0]
	for i := range chains {
		left = append(left, i)
	}
	for _, score := range criteria {
		best, n := -1, 0
		for _, i := range left {
			switch sc := score(chains[i], info); {
			case sc < 0 || sc < best:
			case sc > best:
				best, n = sc, 1
				left[0] = i
			default:
				left[n] = i
				n++
			}
		}
		if n == 0 {
			return -1
		}
		left = left[:n]
	}
	return left[0]
}

// criteria give, in Envoy's order, how specific a chain's condition fits: -1 not at all, 0 because
// there is none.
//
//nolint:gochecknoglobals // immutable table
var criteria = [...]func(*Match, *stream.ConnInfo) int{
	scorePort, scoreDst, scoreName, scoreTransport, scoreALPN, scoreDirect, scoreSourceType, scoreSrc,
	scoreSrcPort,
}

func scorePort(m *Match, c *stream.ConnInfo) int {
	switch {
	case m.port == 0:
		return 0
	case m.port == c.Local.IP.Port():
		return 1
	}
	return -1
}

// noAddress stands for the address of a unix socket (FilterChainManagerImpl's fakeLocalAddress).
//
//nolint:gochecknoglobals // a constant
var noAddress = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func scorePrefixes(list []netip.Prefix, a netip.Addr) int {
	if len(list) == 0 {
		return 0
	}
	if !a.IsValid() {
		a = noAddress
	}
	best := -1
	for _, p := range list {
		if p.Contains(a) {
			best = max(best, p.Bits()+1)
		}
	}
	return best
}

func scoreDst(m *Match, c *stream.ConnInfo) int { return scorePrefixes(m.dst, c.Local.IP.Addr()) }
func scoreDirect(m *Match, c *stream.ConnInfo) int {
	return scorePrefixes(m.direct, c.Direct.IP.Addr())
}
func scoreSrc(m *Match, c *stream.ConnInfo) int { return scorePrefixes(m.src, c.Remote.IP.Addr()) }

// scoreName prefers an exact name, then the wildcard with the most labels.
func scoreName(m *Match, c *stream.ConnInfo) int {
	if len(m.names) == 0 {
		return 0
	}
	best := -1
	for _, n := range m.names {
		switch {
		case n == c.SNI && n != "":
			return 1 << 20
		case strings.HasPrefix(n, "*.") && strings.HasSuffix(c.SNI, n[1:]) && len(c.SNI) > len(n)-1:
			best = max(best, len(n))
		}
	}
	return best
}

func scoreTransport(m *Match, c *stream.ConnInfo) int {
	switch m.transport {
	case "":
		return 0
	case c.TransportProtocol:
		return 1
	}
	return -1
}

func scoreALPN(m *Match, c *stream.ConnInfo) int {
	if len(m.alpn) == 0 {
		return 0
	}
	// The client's order decides between chains; within one chain any of them fits.
	rank := 1 << 20 // more than a ClientHello has room for
	for rest := c.ALPN; rest != ""; rank-- {
		var p string
		p, rest, _ = strings.Cut(rest, ",")
		if slices.Contains(m.alpn, p) {
			return rank
		}
	}
	return -1
}

func scoreSourceType(m *Match, c *stream.ConnInfo) int {
	local := c.Remote.Pipe != "" || c.Remote.IP.Addr().IsLoopback() ||
		c.Remote.IP.Addr() == c.Local.IP.Addr()
	switch m.sourceType {
	case listenerv3.FilterChainMatch_SAME_IP_OR_LOOPBACK:
		if local {
			return 1
		}
		return -1
	case listenerv3.FilterChainMatch_EXTERNAL:
		if !local {
			return 1
		}
		return -1
	case listenerv3.FilterChainMatch_ANY:
	}
	return 0
}

func scoreSrcPort(m *Match, c *stream.ConnInfo) int {
	if len(m.srcPorts) == 0 {
		return 0
	}
	if slices.Contains(m.srcPorts, c.Remote.IP.Port()) {
		return 1
	}
	return -1
}

// Key is a text that is equal for two conditions exactly when they are the same: two chains with one
// key can't both be right.
func (m *Match) Key() string {
	return fmt.Sprint(m.port, sorted(m.dst), sortedText(m.names), m.transport, sortedText(m.alpn),
		sorted(m.direct), m.sourceType, sorted(m.src), m.srcPorts)
}

func sorted(list []netip.Prefix) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.Masked().String())
	}
	slices.Sort(out)
	return out
}

func sortedText(list []string) []string {
	out := slices.Clone(list)
	slices.Sort(out)
	return out
}
