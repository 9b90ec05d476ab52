// Package wire reads HTTP/1 messages off a connection and keeps them as they were: the order, case
// and spelling of header lines, and how the body was framed. net/http can't serve here because it
// hides just what a comparison of two proxies is about.
//
// Only the compatibility check uses it; it is apart from that so that it can be fuzzed.
package wire
