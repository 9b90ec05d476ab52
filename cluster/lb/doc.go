// Package lb chooses the host of a request: priority by health, panic, locality by weight, then one
// of Envoy's policies.
//
// A Balancer belongs to a cluster. What it works out for a host set (the plan) is made at the first
// choice after an update and kept until the next. Choosing never blocks for long (a weighted schedule
// has a lock of its own, held for a heap operation) and allocates nothing.
//
// Consistent hashing chooses by a ring or by Maglev's table, as Envoy does to the host.
//
// A cluster with subsets has a balancer for each of them, over the part of the hosts that has its labels.
//
// Limitations: zone aware routing is not here.
package lb
