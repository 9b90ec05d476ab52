// Package load has the load generators that the benchmarks can't take from elsewhere: HTTP/1.1
// clients that check each answer, an open loop at a fixed rate, and TCP round trips.
//
// Only the bench uses it; it is apart so that its clients are tested against a plain server.
package load
