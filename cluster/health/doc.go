// Package health is active health checking: each host is asked from time to time, over HTTP, gRPC or
// TCP, and takes traffic while it answers well (Envoy's HealthCheckerImplBase and those built on it).
//
// A Checker belongs to a cluster that configures one. A host costs a timer, and a connection if these
// are used again; a check runs on events, and only one that has to read from a raw connection has a
// goroutine. How many checks run at a time is bounded over all clusters (Turnstile).
//
// Limitations: no event log, no custom checkers, and no ALPN of its own (tls_options).
package health
