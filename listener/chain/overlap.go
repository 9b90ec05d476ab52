package chain

import (
	"fmt"
	"net/netip"
	"slices"
)

// Overlaps finds chains that one connection could take equally well. Envoy refuses them: it has one
// place for each combination of one value of every criterion. The zero value is ready.
type Overlaps struct {
	list []*Match
	// at lists the chains by what they can't overlap without sharing.
	at map[string][]int
}

// Add takes the condition of the next chain and returns the first earlier one that it overlaps, -1 if
// there is none.
func (o *Overlaps) Add(m *Match) int {
	if o.at == nil {
		o.at = map[string][]int{}
	}
	mine := len(o.list)
	o.list = append(o.list, m)
	first := -1
	names := m.names
	if len(names) == 0 {
		names = []string{""}
	}
	for _, n := range names {
		key := fmt.Sprint(m.port, m.transport, "\x00", m.sourceType, n)
		for _, i := range o.at[key] {
			if (first < 0 || i < first) && o.list[i].overlaps(m) {
				first = i
			}
		}
		o.at[key] = append(o.at[key], mine)
	}
	return first
}

// overlaps compares what the key of Overlaps does not hold.
func (m *Match) overlaps(n *Match) bool {
	return share(masked(m.dst), masked(n.dst)) && share(m.alpn, n.alpn) &&
		share(masked(m.direct), masked(n.direct)) && share(masked(m.src), masked(n.src)) &&
		share(m.srcPorts, n.srcPorts)
}

// share tells whether two criteria have a value in common; to have none is a value too.
func share[T comparable](a, b []T) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	return slices.ContainsFunc(a, func(v T) bool { return slices.Contains(b, v) })
}

func masked(list []netip.Prefix) []netip.Prefix {
	out := slices.Clone(list)
	for i := range out {
		out[i] = out[i].Masked()
	}
	return out
}
