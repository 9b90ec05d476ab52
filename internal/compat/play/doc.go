// Package play is both ends of a case: scripted clients that talk to a proxy and scripted upstreams
// that the proxy talks to. Both work on bytes, and record what they got.
//
// Only the compatibility check uses it; it is apart because it needs no proxy to be tested.
package play
