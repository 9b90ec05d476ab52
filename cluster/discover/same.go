package discover

import "slices"

// SameAddresses tells whether two answers, each without duplicates, have the same addresses: servers
// rotate them, which changes nothing.
func SameAddresses[A comparable](a, b []A) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(x A) bool { return !slices.Contains(b, x) })
}
