// Package load is what a cluster counts and what it limits: statistics, circuit breakers and the
// retry budget.
//
// Everything here may be used from any goroutine, and nothing blocks. What a cluster without traffic
// does not need (its traffic counters, the breakers' counts) is not allocated before its first use:
// a mesh hands every proxy thousands of clusters of which a few see traffic.
package load
