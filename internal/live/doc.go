// Package live replaces a configured object under those who use it: compile, warm, swap, retire.
//
// A Slot holds one named resource. Update compiles a new version (pure), warms it (may fetch, start
// a plugin, wait for a dependency) beside the live one, swaps one atomic pointer, and retires the
// old version, which is closed when the last of its users has released it. A newer version cancels
// one that still warms; a version equal in meaning to the live one is not swapped.
//
// Readers pay one atomic load (Load), and one atomic add when they pin what they got (Acquire,
// Release).
//
// Single importer: extension configs stand on it now, secrets come next. Listeners, routes and
// clusters keep their own: a listener warms sockets and shares chains between versions, a route table
// and a host set have nothing to warm.
package live
