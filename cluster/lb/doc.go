// Package lb chooses the host of a request: priority by health, panic, locality by weight, then one
// of Envoy's policies ROUND_ROBIN, LEAST_REQUEST and RANDOM.
//
// A Balancer belongs to a cluster. What it works out for a host set (the plan) is made at the first
// choice after an update and kept until the next. Choosing never blocks for long (a weighted schedule
// has a lock of its own, held for a heap operation) and allocates nothing.
//
// Limitations: zone aware routing, slow start, subsets and consistent hashing are not here.
package lb
