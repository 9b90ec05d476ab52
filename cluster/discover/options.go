package discover

import (
	"net/netip"
	"time"
)

// Family says which addresses to ask for.
type Family uint8

// The families (Cluster.DnsLookupFamily).
const (
	Auto Family = iota
	V4Only
	V6Only
	V4Preferred
	All
)

// Options are how a cluster resolves its names. They never change.
type Options struct {
	Family Family
	// Refresh is the interval when TTLs are not respected or an answer has none.
	Refresh time.Duration
	// MinRefresh is the least interval that a TTL may give.
	MinRefresh time.Duration
	// Jitter is added at random.
	Jitter time.Duration
	// FailureBase and FailureMax bound the back-off after failures; 0 means Refresh.
	FailureBase, FailureMax time.Duration
	RespectTTL              bool
}

// ResolverOptions are where and how to ask.
type ResolverOptions struct {
	// Servers to ask instead of those of resolv.conf; or after them, if Fallback.
	Servers  []netip.AddrPort
	Fallback bool
	TCP      bool
	NoSearch bool
	// FilterUnroutable asks only for families that the machine has an address of.
	FilterUnroutable bool
	Timeout          time.Duration
	Tries            int
	MaxPayload       uint16
}
