// Package corpus reads the cases of the compatibility check from testdata/compat/cases and builds
// the bootstrap that each group of them runs on.
//
// A group is one file: listeners, clusters, and cases that run one after the other against one
// proxy. What a file leaves out has a default: one listener "main" with an HTTP connection manager
// whose only route leads to one cluster "main" with one upstream "main". A case says what a client
// sends and, where it matters, what the upstream does; what must come of it is not written down by
// hand but recorded from Envoy. docs/compat.md describes the format for those who add cases.
//
// Only the compatibility check uses it; it is apart because its parser and its config builder are
// tested without any proxy.
package corpus
