// Package listener is the downstream half: it turns listener resources into sockets, accepts
// connections, runs the listener filters, finds the filter chain and hands the connection to the
// chain's terminal filter.
//
// A listener resource compiles to an immutable Config (compile.go). The Manager (manager.go) binds,
// warms, swaps and drains; sockets (socket.go) outlive configurations, since a new version of a
// listener takes over the socket of the old one and no connection is refused in between. Connections
// pin their filter chain alone: a chain that is the same in the next version keeps its connections.
package listener
