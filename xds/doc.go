// Package xds is the subscription client: it fetches listeners, clusters, endpoints, routes and
// extension configs from management servers and files, and answers each response with what the
// consumers made of it.
//
// A consumer sees internal/config/source only: it subscribes with a Watcher and answers every
// resource by Delivery.Done. The layers below are
//
//	client      one goroutine that owns all state and calls all watchers
//	feed        the resources of one type from one server or file: what is new, what is equal in
//	            meaning to what runs, what went away; the reply waits for the watchers
//	mux         one gRPC stream, with the state-of-the-world (sotw) or incremental (delta) protocol
//	file        a DiscoveryResponse in a file, read again when it is replaced
//	transport   streams that come back, file watches; no notion of resources
//
// # Limitations
//
// REST, xdstp:// names and a second server to fail over to are refused. On-demand subscriptions
// (VHDS, ODCDS) have no consumer yet.
package xds
