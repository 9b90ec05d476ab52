// Package proxyprotocol is the transport socket envoy.transport_sockets.upstream_proxy_protocol: a
// connection to a host begins with a PROXY header that tells of the client, before another transport
// socket goes on.
//
// A connection is for one client, so pools are kept apart by its addresses. Without a client, as with a
// mirrored request, the header is LOCAL (version 2) or tells of our own connection (version 1).
//
// Limitations: TLVs of a host's typed metadata and those with a format string are refused.
package proxyprotocol
