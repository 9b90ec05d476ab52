// Package outlier is passive health checking: hosts that fail requests are taken out of load
// balancing for a while (Envoy's outlier detection).
//
// A Detector belongs to a cluster that configures one, and is made when that is first used. Results
// of requests go to Put, which costs a few atomic operations and allocates nothing; whatever follows
// from them (an ejection, the end of one, the statistics of an interval) is decided on goroutines of
// the detector's own. Its timer runs only while there is something to look at.
//
// Limitations: no event log, and no monitors by extension.
package outlier
