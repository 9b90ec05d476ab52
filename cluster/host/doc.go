// Package host is what a cluster knows of its endpoints: the hosts, and the immutable snapshot of
// them by priority, health and locality that load balancers choose from.
//
// A Host lives as long as its address is in the cluster, whatever else changes: its counters and
// connection pools survive updates of weights, health and localities. A Set is never changed; an
// update builds the next one from hosts that mostly exist already.
package host
